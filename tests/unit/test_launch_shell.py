"""Text for shells, run by several of them. Elsewhere: login shells of hosts (`edges/test_shells.py`)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from grid.launch.shell import follow_child, kill_script, safe_program, sh_command
from tests.lab.ground import MissingPart
from tests.lab.host import wait_until

CAREFUL = """\
said() { echo term >>terms; while [ ! -e go ]; do sleep 0.01; done; exit 9; }
trap said TERM
: >up
while :; do sleep 0.01; done"""


@pytest.fixture(params=["dash", "bash --posix", "bash", "zsh --emulate sh"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """What `sh` is on one machine or another."""
    words: list[str] = request.param.split()
    if shutil.which(words[0]) is None:
        raise MissingPart(f"there is no {words[0]}")
    return words


def heard() -> None:
    """A shell can't trap what was ignored when it began, as SIGHUP is in a run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def start(shell: list[str], command: str, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Its group ends with the block, whatever became of it."""
    text = f"{command} & {follow_child('TERM HUP USR2')}; exit $status"
    with subprocess.Popen([*shell, "-c", text], cwd=place, start_new_session=True, preexec_fn=heard) as running:
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)


@pytest.mark.row("B08", "L07")
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 0),
        ("sh -c 'exit 3'", 3),
        ("sh -c 'exit 127'", 127),
        ("sh -c 'exit 200'", 200),
        ("sh -c 'kill -KILL $$'", 128 + signal.SIGKILL),
    ],
)
def test_a_shell_ends_as_its_child_did(shell: list[str], command: str, status: int, tmp_path: Path) -> None:
    with start(shell, command, tmp_path) as running:
        assert running.wait(30) == status


@pytest.mark.row("B08", "L07")
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_only_the_first_signal_is_handed_on_and_the_childs_status_counts(
    shell: list[str], first: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "careful").write_text(CAREFUL)
    with start(shell, "sh careful", tmp_path) as running:
        wait_until(lambda: (tmp_path / "up").exists() and catches(running.pid), "the child")
        running.send_signal(first)
        wait_until((tmp_path / "terms").exists, "the child to hear of it")
        assert ignores(running.pid)
        running.send_signal(signal.SIGTERM)  # while the child is about to end
        (tmp_path / "go").touch()
        assert running.wait(30) == 9
    assert (tmp_path / "terms").read_text() == "term\n"


@pytest.mark.row("B08", "L07")
def test_a_child_that_dies_of_the_signal_is_told_as_that(shell: list[str], tmp_path: Path) -> None:
    with start(shell, "sh -c ': >up; exec sleep 60'", tmp_path) as running:
        wait_until(lambda: (tmp_path / "up").exists() and catches(running.pid), "the child")
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 128 + signal.SIGTERM


@pytest.mark.row("H06")
@pytest.mark.parametrize(
    "text", ["echo it\\'s", 'printf "%s\\n" "a!b"', "echo one\necho two", "echo 'a\\\\b'", "echo '%d'"]
)
def test_a_command_line_gives_the_same_as_its_text(text: str, tmp_path: Path) -> None:
    plain = subprocess.run(["sh", "-c", text], capture_output=True, text=True)
    carried = subprocess.run(["sh", "-c", sh_command(text)], capture_output=True, text=True)
    assert carried.stdout == plain.stdout != "" and carried.returncode == 0
    assert "\n" not in sh_command(text)


@pytest.mark.row("H06")
def test_a_program_imports_nothing_of_the_directory_that_it_starts_in(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    words = ["python3", "-c", safe_program("import json; print(json.dumps([1]))")]
    assert subprocess.run(words, capture_output=True, cwd=tmp_path).stdout == b"[1]\n"


@pytest.mark.row("G24")
def test_the_whole_group_of_a_command_is_ended_though_some_of_it_hears_nothing(tmp_path: Path) -> None:
    words = ["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as running:
        assert running.stdout is not None
        child = int(running.stdout.readline())
        subprocess.run(["sh", "-c", kill_script(running.pid)], check=True)
        assert running.wait(30) == -signal.SIGKILL
        wait_until(has_ended(child), "its child to end")


def catches(pid: int) -> bool:
    """Whether it has got to setting its traps."""
    return has_last(pid, "SigCgt")


def ignores(pid: int) -> bool:
    """Whether signals do nothing to it, so that bash can't lose the status of its child by them."""
    return has_last(pid, "SigIgn")


def has_last(pid: int, which: str) -> bool:
    """Whether SIGUSR2, the last of those that are trapped, is in that mask of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith(which))
    return bool(int(mask.split()[1], 16) >> (signal.SIGUSR2 - 1) & 1)


def has_ended(pid: int) -> Callable[[], bool]:
    def ended() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    return ended
