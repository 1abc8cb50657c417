"""Files that stay on hosts: outputs with `keep=True`, and `RemotePath`s that methods return."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import (
    CommandFailed,
    ConnectError,
    Grid,
    GridError,
    In,
    LocalGrid,
    Out,
    RemotePath,
    SerialisationError,
    SSHGrid,
    StagingError,
)
from grid.grids import keptfiles
from grid.testing.probe import Probe
from tests.lab import Lab
from tests.lab.host import wait_until

pytestmark = pytest.mark.row("A12")
LIMIT_S = 60.0


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as grid:
        yield grid


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def stored(g: Any) -> list[Path]:
    g._engine.fleet.homes[0].ask("status")  # after what it was asked before
    return [path for base in g.temp_paths["localhost"] for path in Path(base).rglob(".commands/kept/*")]


def test_an_output_stays_and_is_an_input_of_the_next_command(g: LocalGrid) -> None:
    first = g.command("printf 'b\\na\\n' > {o}; chmod 750 x.txt", o=Out("x.txt"), shell=True, keep=True).get(LIMIT_S)
    assert first.outputs == [] and not list(Path().iterdir())
    [path] = first.kept
    assert (path.name, path.size, path.host) == ("x.txt", 4, "localhost") and path == pickle.loads(pickle.dumps(path))
    again = g.command("sort {i} -o {i}; cat {i}; ls -l {i}", i=In(path), shell=True).get(LIMIT_S)  # it has a copy
    assert again.text.startswith("a\nb\n-rwxr-x---") and g.command("cat {i}", i=In(path, name="y")).get(LIMIT_S)
    assert path.fetch("to") == Path("to/x.txt").absolute() and Path("to/x.txt").read_text() == "b\na\n"
    assert os.access("to/x.txt", os.X_OK)
    # what a run is known by is the contents, wherever they are
    assert g.command("cat {i}", i=In("to/x.txt")).get(LIMIT_S).key == g.command("cat {i}", i=In(path)).get(LIMIT_S).key
    assert g.command("cat", stdin=In(path)).get(LIMIT_S).text == "b\na\n"
    runs = list(g.map_commands("cp {i} {o}", [In(path, name=f"{n}.txt") for n in range(3)], o=Out("*.out"), keep=True))
    assert [run.kept[0].name for run in runs] == ["0.out", "1.out", "2.out"]
    for bad in ({"to": "x"}, {"memo": "m"}):
        with pytest.raises(ValueError, match="keep=True leaves"):
            list(g.map_commands("cp {i} {o}", [In(path)], o=Out("o"), keep=True, **bad))  # type: ignore[arg-type]


def test_forget_waits_for_commands_that_have_it(g: LocalGrid) -> None:
    path, other = g.command("echo x > x; echo x > y", o=[Out("x"), Out("y")], shell=True, keep=True).get(LIMIT_S).kept
    gates = [Path(f"gate{number}").absolute() for number in range(2)]
    for gate in gates:
        os.mkfifo(gate)
    held = [g.command(["sh", "-c", f"read x < {gate}"]) for gate in gates]
    waiting, doomed = g.command("cat {i}", i=In(path)), g.command("cat {i}", i=In(path))
    path.forget()
    for use in (path.fetch, lambda: g.command("cat {i}", i=In(path))):
        with pytest.raises(StagingError, match="'x' was forgotten"):
            use()
    assert doomed.cancel() and len(stored(g)) == 2
    for gate, one in zip(gates, held, strict=True):
        gate.write_text("go\n")
        assert one.get(LIMIT_S).ok
    assert waiting.get(LIMIT_S).text == "x\n"
    assert g.command("true").get(LIMIT_S).ok and len(stored(g)) == 1
    path.forget()
    other.forget()
    assert g.command("true").get(LIMIT_S).ok and not stored(g)


def test_a_file_that_can_not_be_used_any_more_is_named(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        two = g.command("echo x > x; echo y > y", o=[Out("x"), Out("y")], shell=True, keep=True).get(LIMIT_S).kept
        for file in stored(g):
            file.unlink() if file.read_text() == "x\n" else file.write_text("changed")
        with pytest.raises(CommandFailed, match="its input 'x' is not on the host any more"):
            g.command("cat {i}", i=In(two[0])).get(LIMIT_S)
        for each in two:
            with pytest.raises(StagingError, match="changed while it was read"):
                each.fetch()
        assert not list(Path().iterdir())
        [path] = g.command("echo x > x", o=Out("x"), shell=True, keep=True).get(LIMIT_S).kept
        file = Path("x")
        file.touch()
        (tmp_path / "d").touch()
        with pytest.raises(StagingError, match="can't be written"):
            path.fetch("d")
        with LocalGrid(1, output=None) as other, pytest.raises(StagingError, match="a file of another grid"):
            other.command("cat {i}", i=In(path))
    with pytest.raises(GridError, match=r"terminated|ended"):
        path.fetch()
    own = RemotePath("x")
    for use in (own.fetch, lambda: own.size):
        with pytest.raises(StagingError, match="was made here"):
            use()
    for bad in ("/etc/passwd", "../x", "a/../../x", "", "a\0b"):
        with pytest.raises(ValueError, match="no file below"):
            RemotePath(bad)


def test_a_host_that_is_lost_is_named_with_the_file() -> None:
    g = LocalGrid(1, output=None)
    try:
        [path] = g.command("echo x > x", o=Out("x"), shell=True, keep=True).get(LIMIT_S).kept
        home = g._engine.fleet.homes[0]
        os.kill(home.report["pid"], signal.SIGKILL)
        wait_until(lambda: home.gone, "the loss of the host")
        for use in (path.fetch, lambda: g.command("cat {i}", i=In(path))):
            with pytest.raises(ConnectError, match="it was lost, and the file 'x' with it"):
                use()
    finally:
        g.terminate()


class Writer(Probe):
    """Gives back files."""

    def give(self, name: str, data: bytes | None = None) -> dict[str, RemotePath]:
        if data is not None:
            Path(name).write_bytes(data)
        return {"file": RemotePath(name)}

    def link(self, name: str, to: str) -> RemotePath:
        os.symlink(to, name)
        return RemotePath(name)


def test_a_method_returns_a_file_of_its_server() -> None:
    with LocalGrid(1, output=None, workdir="staging") as g, g.acquire_service(g.publish(Writer())) as writer:
        path = writer.give("r.dat", b"results").get(LIMIT_S)["file"]
        assert path.fetch("here").read_bytes() == b"results"
        assert g.command("cat {i}", i=In(path)).get(LIMIT_S).text == "results"
        assert g.command("cat {i}", i=In(path)).get(LIMIT_S).text == "results" and len(stored(g)) == 1
        assert writer.link("inside", "r.dat").get(LIMIT_S).fetch("here").read_bytes() == b"results"
        Path(g.temp_paths["localhost"][0], "src", "d").mkdir()
        for bad, why in (("/etc/passwd", "leads out"), ("nowhere", "can't be looked at"), ("d", "is no plain file")):
            with pytest.raises(SerialisationError, match=why):
                writer.link(f"link{len(why)}", bad).get(LIMIT_S)
        assert Path(path.on(writer)).read_bytes() == b"results"  # where it is
        [kept] = g.command("echo k > k.txt", o=Out("k.txt"), shell=True, keep=True).get(LIMIT_S).kept
        there = Path(kept.on(writer))
        assert kept.on(writer) == str(there) and there.name == "k.txt" and writer.read(str(there)).get(LIMIT_S) == "k\n"
        kept.forget()
        assert len(stored(g)) == 1 and not there.exists()
        newer = writer.give("r.dat", b"newer!!").get(LIMIT_S)["file"]
        for use in (path.fetch, lambda: g.command("cat {i}", i=In(RemotePath.found("other", path.at)))):
            with pytest.raises(StagingError, match="changed"):
                use()
        path.forget()
        newer.forget()
        assert writer.give("r.dat").get(LIMIT_S)["file"].fetch("here").read_bytes() == b"newer!!"
        assert not stored(g)


MODULE = """
from pathlib import Path
from grid import RemotePath

class Writes:
    def give(self):
        Path("theirs").write_text("written")
        return RemotePath("theirs")
"""


@pytest.mark.lab
def test_a_file_goes_from_host_to_host(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    through: list[str] = []
    here = keptfiles.KeptFiles._through_here
    monkeypatch.setattr(
        keptfiles.KeptFiles, "_through_here", lambda self, *args: (through.append("x"), here(self, *args))
    )
    Path("writes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    module: Any = importlib.import_module("writes")
    monkeypatch.delitem(sys.modules, "writes")
    Path("data").write_bytes(random.Random(4).randbytes(3_000_001))
    wanted = hashlib.sha256(Path("data").read_bytes()).hexdigest()
    with SSHGrid(["s1", "s2"], output=None, wait="all") as g:
        for ways in (0, 1):  # straight, and then by this machine
            [path] = g.command("cp {i} {o}", i=In("data"), o=Out("copy"), keep=True, where="s1").get(LIMIT_S).kept
            assert path.host == "s1"
            for host in ("s2", "s1", "s2"):
                run = g.command("sha256sum {i}", i=In(path), where=host).get(LIMIT_S)
                assert run.text.split()[0] == wanted and run.host == host
            assert len(through) == ways and hashlib.sha256(path.fetch("to").read_bytes()).hexdigest() == wanted
            monkeypatch.setattr(keptfiles, "carry_file", lambda *_: False)
        with g.acquire_service(g.publish(module.Writes(), where="s1")) as writes:
            theirs = writes.give().get(LIMIT_S)
        with g.acquire_service(g.publish(Probe(), where="s2")) as probe:
            assert probe.read(theirs.on(probe)).get(LIMIT_S) == "written"
        assert theirs.host == "s1" and theirs.fetch("to").read_text() == "written"
        assert g.command("cat {i}", i=In(theirs), where="s2").get(LIMIT_S).text == "written"


def test_another_client_of_the_grid_has_its_files() -> None:
    g = LocalGrid(1, output=None, name="files", keep="10m")
    [path] = g.command("echo x > x", o=Out("x"), shell=True, keep=True).get(LIMIT_S).kept
    pickled = pickle.dumps(path)
    g.detach()
    with Grid.attach("files") as again:
        path = pickle.loads(pickled)
        assert again.command("cat {i}", i=In(path)).get(LIMIT_S).text == "x\n"
        assert path.host == "localhost" and path.fetch().read_text() == "x\n"
        path.forget()
        assert not stored(again)
