"""One run on its host, in this process: how it ends, what it leaves, what it brings."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from grid.commands.onhost import RunCommand
from grid.kernel import boot

pytestmark = pytest.mark.row("A02")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRID_ROOT", str(tmp_path))
    return tmp_path


def run(*words: str, **wishes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"text": None, "ins": [], "outs": [], "variables": {}, "stdin": None, "timeout_s": 20.0}
    spec |= {"check": False, "keep": False, "apart": 1 << 20}
    spec |= {"keep_bytes": 1000, "show": False, "words": list(words), **wishes}
    return RunCommand()(spec)


def gone(pid: int) -> bool:
    """Whether it has ended; one that has may not be reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def soon(what: Any) -> bool:
    until = time.monotonic() + 20
    while not what() and time.monotonic() < until:
        time.sleep(0.01)
    return bool(what())


def test_status_output_and_times(root: Path) -> None:
    answer = run("sh", "-c", "printf 'a\\377'; echo b >&2; exit 3")
    assert (answer["status"], answer["signal"], answer["stdout"], answer["stderr"]) == (3, 0, b"a\xff", b"b\n")
    assert answer["cpu_s"] >= 0 and answer["peak_bytes"] > 0 and answer["left"] == 0
    assert run("sh", "-c", "kill -9 $$")["signal"] == 9
    assert os.listdir(root / ".commands" / "runs") == []


def test_the_last_bytes_are_kept(root: Path) -> None:
    answer = run("sh", "-c", "yes | head -c 300000; printf end", keep_bytes=100)
    assert len(answer["stdout"]) == 100 and answer["stdout"].endswith(b"end") and answer["stdout_lost"] == 299_903
    assert run("echo", "x", keep_bytes=0)["stdout"] == b""


def test_time_is_up_for_the_whole_group(root: Path) -> None:
    answer = run("sh", "-c", "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000", timeout_s=0.2)
    assert answer["timed_out"] and answer["signal"] == 9 and soon(lambda: gone(int(answer["stdout"])))


def test_what_runs_on_is_ended(root: Path) -> None:
    """In its group, in a session of its own, and as a daemon that holds the pipe."""
    started = time.monotonic()
    answer = run("sh", "-c", "sleep 1000 & echo $!; (setsid sh -c 'echo $$; exec sleep 1000' &); sleep 0.2")
    pids = [int(line) for line in answer["stdout"].split()]
    assert len(pids) == 2 and all(soon(lambda pid=pid: gone(pid)) for pid in pids), pids
    assert answer["status"] == 0 and time.monotonic() - started < 100


def test_closed_output_is_no_end(root: Path) -> None:
    answer = run("sh", "-c", "exec >&- 2>&-; sleep 0.1; exit 4")
    assert answer["status"] == 4
    assert run("sh", "-c", "exec >&- 2>&-; sleep 1000", timeout_s=0.1)["timed_out"]


def test_files_in_and_out(root: Path) -> None:
    (root / ".commands" / "in").mkdir(parents=True)
    (root / ".commands" / "in" / "h1").write_bytes(b"text")
    ins = [("d/a.txt", ".commands/in/h1", 0o444), ("b.txt", b"whole", 0o600)]
    answer = run("sh", "-c", "cat d/a.txt > b.out; mkdir r; echo x > r/c.out", ins=ins, outs=["*.out", "r", "**/*.txt"])
    found = sorted((output["name"], output["mode"], output["data"]) for output in answer["outputs"])
    assert found == [("b.out", 0o644, b"text"), ("r/c.out", 0o644, b"x\n")]
    assert answer["missing"][0] == "**/*.txt"  # inputs are no outputs
    assert run("cat", ins=ins, stdin="d/a.txt")["stdout"] == b"text"
    assert run("sh", "-c", "echo y >> d/a.txt", ins=ins)["status"] == 0
    assert (root / ".commands" / "in" / "h1").read_bytes() == b"text"


@pytest.mark.parametrize(
    ("script", "outs", "trouble"),
    [
        ("ln -s /etc/passwd x", ["x"], "leads out of its directory"),
        ("ln -s .. up; true", ["up/in/*"], "leads out of its directory"),
        ("mkfifo x", ["x"], "plain file"),
        ("ln -s nowhere x", ["x"], "No such file"),
    ],
)
def test_what_is_no_plain_file_of_the_run_is_refused(root: Path, script: str, outs: list[str], trouble: str) -> None:
    (root / ".commands" / "in").mkdir(parents=True)
    (root / ".commands" / "runs").mkdir()
    (root / ".commands" / "runs" / "in").mkdir()
    (root / ".commands" / "runs" / "in" / "secret").write_text("s")
    answer = run("sh", "-c", script, outs=outs)
    assert answer["trouble"][0] == "output" and trouble in answer["trouble"][1] and not answer.get("outputs")


def test_programs_that_can_not_run(root: Path) -> None:
    assert run("no-such-program")["trouble"] == ("absent", "no-such-program")
    (root / ".commands" / "in").mkdir(parents=True, exist_ok=True)
    (root / ".commands" / "in" / "h").write_bytes(b"not a program")
    assert run("./p", ins=[("p", ".commands/in/h", 0o644)])["trouble"][0] == "no right"
    assert run("./p", ins=[("p", ".commands/in/h", 0o755)])["trouble"][0] == "refused"
    assert run("./q")["trouble"][0] == "absent"


def test_directories_of_killed_servers_are_removed(root: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = root / ".commands" / "runs" / f"{os.uname().nodename}.{ended.pid}.abc"
    left.mkdir(parents=True)
    RunCommand._swept = 0
    run("true")
    assert not left.exists()


def test_it_travels_as_source_alone(tmp_path: Path) -> None:
    """It needs grid's kernel, and not its own module there."""
    from grid.compat.runner import Runner

    with zipfile.ZipFile(io.BytesIO(boot.archive())) as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if "/commands/" not in name])
    (tmp_path / "both").write_bytes(pickle.dumps((Runner(), RunCommand())))
    script = (
        f"import pickle, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"runner, command = pickle.load(open({str(tmp_path / 'both')!r}, 'rb'))\n"
        "again = pickle.loads(pickle.dumps(command))\n"
        "print(type(command).__name__, type(command) is type(again), runner._runs_functions)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.split() == ["RunCommand", "True", "True"], told.stderr
