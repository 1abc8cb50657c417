"""A pilot's files: what its script does on the nodes, and what is read back by one command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch_systems import DIALECTS, Dialect
from grid.errors import AllocationError
from grid.grids import pilots
from grid.grids.pilots import Pilot, Rank


def unpack(directory: Path, kernels: list[tuple[str, bytes]], dialect: Dialect = DIALECTS["torque"]) -> None:
    with tarfile.open(fileobj=io.BytesIO(pilots.pilot_files(str(directory), kernels, dialect))) as archive:
        archive.extractall(directory, filter="data")


def run(directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", f"{directory}/nodes.sh"]
    env = {"PATH": environ.pop("PATH", os.environ["PATH"]), "HOME": str(directory.parent), **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)


def look(*found: Pilot) -> None:
    answer = subprocess.run(["/bin/sh", "-c", pilots.look_script(found)], capture_output=True, timeout=30).stdout
    pilots.take_news(found, answer)


def pilot(directory: Path, nodes: int) -> Pilot:
    return Pilot("t", str(directory), "", 100.0, [Rank(n) for n in range(nodes)])


@pytest.fixture
def plain_path(tmp_path: Path) -> str:
    """A PATH without batch systems, whose ssh runs its command here and tells of which host it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "cat", "mv", "rm", "date", "awk", "dirname", "sort", "sleep", "ps"):
        target = next(p for p in (f"/bin/{name}", f"/usr/bin/{name}") if os.path.exists(p))
        (programs / name).symlink_to(target)
    (programs / "ssh").write_text('#!/bin/sh\nshift 2; echo "$1" >>"$HOME/asked"; shift; exec "$@"\n')
    (programs / "ssh").chmod(0o755)
    return str(programs)


@pytest.mark.row("B06", "B14", "G61")
@pytest.mark.parametrize("variable", ["PBS_NODEFILE", "PE_HOSTFILE"])
def test_each_node_runs_its_kernel_once_and_says_how_it_ended(variable: str, tmp_path: Path, plain_path: str) -> None:
    directory = tmp_path / "a pilot's"
    directory.mkdir()
    says = 'read -r word; echo noise; echo "GRID1 {\\"rank\\": \\"$word\\"}"; echo of $word >&2; exit 3'
    dialect = DIALECTS["torque" if variable == "PBS_NODEFILE" else "sge"]
    unpack(directory, [(says, b"zero\n"), (says, b"one\n")], dialect)
    nodes = tmp_path / "nodes"
    nodes.write_text("n1\nn1\nn2\nn2\n" if variable == "PBS_NODEFILE" else "n1 2 q\nn2 2 q\n")
    before = pilot(directory, 2)
    look(before)
    assert (before.started, before.status, before.ranks[0].words) == (None, None, None)
    done = run(directory, PATH=plain_path, **{variable: str(nodes)})
    assert done.returncode == 0, done.stderr
    after = pilot(directory, 2)
    look(after)
    assert after.status == 0 and after.started is not None and 0 <= (after.age_s or 0) < 60
    assert [rank.words for rank in after.ranks] == ['{"rank": "zero"}', '{"rank": "one"}']
    assert [rank.status for rank in after.ranks] == [3, 3]
    assert "of one" in after.ranks[1].noise
    assert (tmp_path / "asked").read_text() == "n2\n"
    assert not list(directory.glob("*/stdin"))  # it held keys
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.glob("*/std*"))


@pytest.mark.row("B02")
def test_where_all_kernels_say_that_their_client_was_gone_the_files_go(tmp_path: Path, plain_path: str) -> None:
    directory = tmp_path / "pilot"
    nodes = tmp_path / "nodes"
    nodes.write_text("n1\nn2\n")
    for statuses, left in (((75, 0), True), ((75, 75), False)):
        directory.mkdir(exist_ok=True)
        unpack(directory, [(f"exit {status}", b"") for status in statuses])
        run(directory, PATH=plain_path, PBS_NODEFILE=str(nodes))
        assert directory.exists() == left


@pytest.mark.row("B02", "B13")
def test_a_kernel_gets_sigterm_through_its_script(tmp_path: Path) -> None:
    """Some batch systems send it to the task alone, and then kill what is left."""
    directory = tmp_path / "pilot"
    directory.mkdir()
    unpack(directory, [("trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.05; done", b"")])
    shell = subprocess.Popen(["/bin/sh", str(directory / "0" / "run.sh")])
    output = directory / "0" / "stdout"
    try:
        while not output.exists() or "up" not in output.read_text():
            assert shell.poll() is None
        shell.terminate()
        assert shell.wait(30) is not None
    finally:
        shell.kill()
    assert output.read_text() == "up\ntold\n"
    assert (directory / "0" / "status").read_text() == "5\n"


@pytest.mark.row("B11")
@given(st.lists(st.binary(max_size=200), min_size=3, max_size=3))
def test_whatever_nodes_print_is_told_apart(printed: list[bytes]) -> None:
    one = Pilot("t", "/p", "", 100.0, [Rank(0), Rank(1)])
    files = {"0/stdout": printed[0], "0/stderr": printed[1], "1/stdout": printed[2], "1/status": b"4\n"}
    answer = b"1000\n" + b"".join(b"\nFILE /p/%s %d\n%s" % (n.encode(), len(d), d) for n, d in files.items())
    pilots.take_news([one], answer)
    assert one.ranks[1].status == 4
    assert one.ranks[0].status is None


@pytest.mark.row("B11")
def test_a_login_shell_that_prints_much_is_told_of() -> None:
    with pytest.raises(AllocationError, match="Welcome to the cluster"):
        pilots.take_news([], b"Welcome to the cluster\n1000\n")


@pytest.mark.row("Z10")
def test_a_signal_to_the_script_is_a_notice_and_no_end(tmp_path: Path, plain_path: str) -> None:
    directory = tmp_path / "pilot"
    directory.mkdir()
    unpack(directory, [("echo >up; read line <go", b"")])
    os.mkfifo(tmp_path / "go")
    environment = {"PATH": plain_path, "HOME": str(tmp_path), "PBS_NODEFILE": str(tmp_path / "nodes")}
    (tmp_path / "nodes").write_text("n1\n")
    script = subprocess.Popen(
        ["/bin/sh", f"{directory}/nodes.sh"],
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_DFL),
    )
    seen = pilot(directory, 1)
    try:
        until(lambda: (tmp_path / "up").exists())
        look(seen)
        assert seen.started is not None and seen.notice is None
        script.send_signal(signal.SIGUSR1)
        until(lambda: (directory / "notice").exists())
        look(seen)
        assert seen.notice is not None and seen.notice >= seen.started and seen.status is None
    finally:
        with open(os.open(tmp_path / "go", os.O_RDWR), "w") as go:  # for both: else it would wait for a reader
            go.write("x\n")
            go.flush()
            ended = script.wait(30)
    assert ended == 0
    look(seen)
    assert seen.status == 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
