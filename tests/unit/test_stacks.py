"""A process tells its stacks when it is asked, whatever it does; one that can't is named with the reason."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grid.kernel import stacks
from grid.kernel.stacks import LookedAt, StackReader, own_threads

ROOT = Path(__file__).parents[2]
BEGIN = "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\nfrom grid.kernel import stacks\n"
LISTEN = BEGIN + "stacks.listen(Path(sys.argv[2]))\n"
IN_C = "import re\nprint(flush=True)\nre.match('(a+)+$', 'a' * 60 + 'b')\n"
IDLE = "import time\ndef rest():\n    print(flush=True)\n    time.sleep(600)\nrest()\n"
BLOCKS = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [stacks.which_signal()])\n"
OTHER = "import os\nprint(flush=True)\nos.execv('/bin/sleep', ['sleep', '600'])\n"

Make = Callable[[str], LookedAt]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Start a program; it has printed a line when it is returned."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(program: str) -> LookedAt:
        path = tmp_path / f"p{len(started)}.t"
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(ROOT), str(path)], stdout=subprocess.PIPE, cwd=tmp_path
        )
        started.append(process)
        assert process.stdout is not None and select.select([process.stdout], [], [], 60)[0]
        process.stdout.readline()
        return LookedAt(f"S.0/{len(started)}", process.pid, path)

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.row("I01")
def test_one_that_is_deep_in_c_and_one_that_waits_tell_where(make: Make) -> None:
    deep, idle = make(LISTEN + IN_C), make(LISTEN + IDLE)
    for _ in range(2):  # the second answer is not added to the first
        *told, agent = StackReader().read([deep, idle])
        assert [one["name"] for one in told] == [deep.name, idle.name] and not any(one["why"] for one in told)
        assert told[0]["text"].count("in match") == 1 and told[1]["text"].count("in rest") == 1
        assert agent["name"] == "" and agent["pid"] == os.getpid()


@pytest.mark.row("I02")
def test_a_stopped_process_is_told_and_left_alone(make: Make) -> None:
    idle = make(LISTEN + IDLE)
    os.kill(idle.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, idle.pid, os.WSTOPPED | os.WNOWAIT)
    (told, _) = StackReader().read([idle])
    assert "stopped" in told["why"] and not told["text"]
    os.kill(idle.pid, signal.SIGCONT)
    os.waitid(os.P_PID, idle.pid, os.WCONTINUED)
    (told, _) = StackReader().read([idle])
    assert not told["why"] and "in rest" in told["text"]


@pytest.mark.row("I02")
def test_a_process_that_would_die_of_the_signal_is_not_sent_it(make: Make) -> None:
    other = make(LISTEN + OTHER)
    deadline = time.monotonic() + 30  # its line comes before it is the other program
    while b"sleep" not in Path(f"/proc/{other.pid}/cmdline").read_bytes().split(b"\0")[0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (told, _) = StackReader().read([other])
    assert "no such signal" in told["why"]
    assert Path(f"/proc/{other.pid}").exists() and os.waitpid(other.pid, os.WNOHANG) == (0, 0)


@pytest.mark.row("I02")
def test_a_process_that_blocks_signals_or_has_ended_is_told(make: Make) -> None:
    blocks, ends = make(LISTEN + BLOCKS + IDLE), make(LISTEN + IDLE)
    os.kill(ends.pid, signal.SIGKILL)
    os.waitpid(ends.pid, 0)
    told = {one["name"]: one for one in StackReader().read([blocks, ends])}
    assert "blocks signals" in told[blocks.name]["why"] and "ended" in told[ends.name]["why"]


@pytest.mark.row("I02")
def test_a_full_disk_is_said_and_is_no_reason_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stacks.listen(tmp_path / "absent" / "p1.t")
    assert "can't be looked at" in capsys.readouterr().err


@pytest.mark.row("I02")
def test_a_system_without_spare_signals_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stacks, "which_signal", lambda: None)
    stacks.listen(tmp_path / "p1.t")
    (told, _) = StackReader().read([LookedAt("S.0/1", os.getpid(), tmp_path / "p1.t")])
    assert "no signal to spare" in told["why"]


@pytest.mark.row("I01")
def test_own_threads_have_their_names_and_lines() -> None:
    begun, end = threading.Event(), threading.Event()

    def wait_here() -> None:
        begun.set()
        end.wait()

    thread = threading.Thread(target=wait_here, name="waits")
    thread.start()
    assert begun.wait(30)
    text = own_threads()
    end.set()
    thread.join()
    assert "[waits] (most recent call first):" in text and "in wait_here" in text
    assert "test_own_threads_have" not in text, "the thread that asks tells nothing"
