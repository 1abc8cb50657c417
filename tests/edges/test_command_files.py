"""Outputs of commands that are large: they wait on the host, and come piece by piece."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from grid import CommandFailed, ConnectError, In, LocalGrid, Out, ServerLost, StagingError
from grid.commands import running
from grid.grids import fetching, keptfiles
from grid.kernel import produce
from grid.kernel.filestore import FileStore
from tests.lab.host import wait_until

LIMIT_S = 20.0


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as grid:
        yield grid


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large elsewhere is a few bytes here."""
    monkeypatch.setattr(running, "APART", 100)
    monkeypatch.setattr(fetching, "PIECE", 1000)


def waiting(g: LocalGrid) -> list[Path]:
    """Files that wait on the host."""
    g._engine.fleet.homes[0].ask("status")  # after what it was asked before
    return [path for base in g.temp_paths["localhost"] for path in Path(base).rglob(".commands/kept/*")]


@pytest.mark.row("A11")
def test_large_outputs_come_in_pieces_and_small_ones_with_the_answer(g: LocalGrid, small: None) -> None:
    data = random.Random(3).randbytes(10_001)
    Path("data").write_bytes(data)
    script = "cp data large; chmod 750 large; ln large again; ln -s large link; : > empty; head -c 90 data > little"
    run = g.command(
        f"mkdir d; cd d; cp ../data .; {script}", i=In("data"), o=Out("d"), shell=True, to="to", keep_bytes=0
    ).get(LIMIT_S)
    there = {path.name: path.read_bytes() for path in run.outputs}
    wanted = dict.fromkeys(("data", "large", "again", "link"), data)
    assert there == {**wanted, "empty": b"", "little": data[:90]}
    assert os.access("to/d/large", os.X_OK) and not waiting(g)
    many = g.command("for n in 1 2 3 4 5; do head -c 90 data > f$n; done", i=In("data"), o=Out("f?"), shell=True)
    assert [path.read_bytes() for path in many.get(LIMIT_S).outputs] == [data[:90]] * 5


@pytest.mark.row("A11")
def test_cancel_ends_what_is_being_brought_and_leaves_nothing(
    g: LocalGrid, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    pieces = fetching.pieces

    def slow(*args: Any) -> Iterator[bytes]:
        for number, piece in enumerate(pieces(*args)):
            if number == 2:
                reached.set()
                assert go_on.wait(LIMIT_S)
            yield piece

    monkeypatch.setattr(keptfiles, "pieces", slow)
    doomed = g.command("head -c 5000 /dev/zero > out", o=Out("out"), shell=True)
    assert reached.wait(LIMIT_S) and g.command("true").get(LIMIT_S).ok  # others run meanwhile
    assert doomed.cancel()
    go_on.set()
    with pytest.raises(CancelledError):
        doomed.get(LIMIT_S)
    assert doomed.cancelled() and not list(Path().iterdir()) and not waiting(g)


@pytest.mark.row("A11")
def test_what_goes_wrong_before_outputs_are_here_is_named_and_nothing_stays(
    g: LocalGrid, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in ("exit 3", "ln -s /etc/passwd out2", "exit 0"):
        with pytest.raises(CommandFailed):
            g.command(f"head -c 5000 /dev/zero > out; {end}", o=[Out("out*"), Out("x*")], shell=True).get(LIMIT_S)
    assert not waiting(g)
    command = "head -c 2000000 /dev/zero > out"
    Path("taken").touch()
    with pytest.raises(StagingError, match="can't be written"):
        g.command(command, o=Out("out"), shell=True, to="taken").get(LIMIT_S)
    Path("taken").unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # as of a disk that is full
    try:
        with pytest.raises(StagingError, match="'out' can't be written"):
            g.command(command, o=Out("out"), shell=True).get(LIMIT_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not waiting(g)
    pieces = keptfiles.pieces

    def robbed(*args: Any) -> Iterator[bytes]:
        for path in waiting(g):
            path.unlink()
        return pieces(*args)

    def lost(*args: Any) -> Iterator[bytes]:
        yield next(pieces(*args))
        raise ConnectError("its agent does not run", host="localhost", hint="")

    for broken, error, said in (
        (robbed, StagingError, "changed while it was read"),
        (lost, ConnectError, "the output 'out' was not brought"),
    ):
        monkeypatch.setattr(keptfiles, "pieces", broken)
        with pytest.raises(error, match=said):
            g.command("head -c 5000 /dev/zero > out", o=Out("out"), shell=True).get(LIMIT_S)
    assert not list(Path().iterdir()) and not waiting(g)


@pytest.mark.row("A11", "A02")
def test_what_a_server_left_that_was_killed_in_a_run_goes_with_the_next_one(g: LocalGrid, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run = g.command(["sh", "-c", f"echo $PPID > {gate}; sleep 1000"], show=False)
    pid = int(gate.read_text())
    [root] = {path.parents[2] for path in Path(g.temp_paths["localhost"][0]).rglob(".commands/runs/*")}
    [directory] = (root / ".commands/runs").iterdir()
    (tmp_path / "output").write_text("x")
    name = FileStore(root).put(tmp_path / "output")  # as if it were killed between its output and its answer
    directory.with_name(f"{directory.name}.kept").write_text(f"{name}\n")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ServerLost):
        run.get(LIMIT_S)
    assert waiting(g)
    wait_until(lambda: g.command("true").get(LIMIT_S).ok and not waiting(g), "its successor to clear up")
    assert not directory.exists() and len(list(directory.parent.iterdir())) == 0


@pytest.mark.row("A02", "A10")
def test_files_are_chosen_by_one_rule(tmp_path: Path) -> None:
    for name in ("a.out", "*.out", "d/in", "d/b.out"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    os.symlink("/etc/passwd", "leads.out")
    found = produce.find(str(tmp_path), ["*.out", "d", "x*"], {"d/in", "a.out"})
    assert sorted(found["files"]) == ["*.out", "d/b.out"] and found["empty"] == ["x*"]
    assert found["refused"] == {"leads.out": "leads out of its directory, to /etc/passwd"}
    assert found["there"] == 3 and "a.out" not in found["present"]
    assert sorted(produce.find(str(tmp_path), ["a.out"], {"a.out"})["files"]) == ["a.out"]
