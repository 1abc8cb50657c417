"""Scripts that run on without their shell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import SessionError
from grid.runs import detached as runs
from grid.runs import watchman
from grid.runs.detached import DetachedRun, free_name, output_of
from tests.lab.host import wait_until

pytestmark = pytest.mark.row("Z07")
ROOT = Path(__file__).parents[2]
FIT = """
import sys, time
from pathlib import Path
from grid import Grid
from grid.testing.probe import Probe

print("begins", *sys.argv[1:])
with Grid.auto() as g:
    with g.acquire_service(g.publish(Probe())) as probe:
        print("value", probe.add(41).get(60))
        print("to stderr", file=sys.stderr)
        while not Path(sys.argv[1]).exists():
            time.sleep(0.01)
print("ends")
sys.exit(3)
"""
STUBBORN = """
import signal, time
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, _: print("heard", number))
print("up")
while True:
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GRID_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for run in DetachedRun.all():  # of a test that failed
        run.stop()


def grid(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "grid", *words], capture_output=True, text=True, timeout=120)


def printed(run: DetachedRun) -> str:
    return "".join(run.part(number).read_text() for number in run.parts())


def test_a_script_goes_on_when_its_shell_is_killed_and_is_followed_to_its_end(place: Path) -> None:
    (place / "fit.py").write_text(FIT)
    shell = f"{sys.executable} -m grid run --detach --local 1 fit.py go 'a b'; echo started; read forever"
    with subprocess.Popen(
        ["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "fit\n"
        assert session.stdout.readline() == "started\n"
        os.killpg(session.pid, signal.SIGHUP)
        os.killpg(session.pid, signal.SIGKILL)
    run = DetachedRun.called("fit")
    wait_until(lambda: "to stderr" in printed(run), "the script")
    (one,) = json.loads(grid("runs", "--json").stdout)
    assert (one["name"], one["running"], one["status"], one["words"]) == ("fit", True, None, ["fit.py", "go", "a b"])
    with pytest.raises(SessionError, match="a run 'fit' lives"):
        runs.detach("fit", "fit.py", ["fit.py"], os.environ)
    assert free_name("/x/fit.py") == "fit-2"
    # who looks may stop looking
    with subprocess.Popen(
        [sys.executable, "-m", "grid", "follow", "fit"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as looking:
        assert looking.stdout is not None and looking.stderr is not None
        assert looking.stdout.readline() == "begins go a b\n"
        looking.send_signal(signal.SIGINT)
        assert "fit runs on: grid follow fit" in looking.stderr.read()
        assert looking.wait(60) == 130
    (place / "go").touch()
    done = grid("follow", "fit")
    assert done.stdout == "begins go a b\nvalue 41\nto stderr\nends\n"
    assert done.returncode == 3 and "fit: failed (exit status 3)" in done.stderr
    assert grid("follow", "--now", "fit").stdout == done.stdout
    assert "failed (exit status 3)" in grid("runs").stdout
    assert grid("end", "fit").stdout == "ended fit\n"
    gone = grid("follow", "fit")
    assert gone.returncode == 1 and "there is no run 'fit'" in gone.stderr


def test_end_lets_the_script_end_its_grid(place: Path) -> None:
    (place / "fit.py").write_text(FIT)
    assert grid("run", "--detach", "--name", "lab-1", "--local", "1", "fit.py", "never").stdout == "lab-1\n"
    run = DetachedRun.called("lab-1")
    wait_until(lambda: "to stderr" in printed(run), "the script")
    assert json.loads(grid("end", "--json", "lab-1").stdout) == {"ended": "lab-1", "unreachable": {}}
    assert not run.path.exists()  # and no process of the grid is left: the fixture of all tests looks


def test_a_script_that_ignores_everything_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SIGNALS", ((signal.SIGTERM, 0.3), (signal.SIGTERM, 0.3), (signal.SIGTERM, 30.0)))
    (place / "stubborn.py").write_text(STUBBORN)
    (place / "json.py").write_text("raise SystemExit('the wrong json')")  # of no interest to who watches
    run = runs.detach("stubborn", "stubborn.py", ["stubborn.py"], os.environ)
    wait_until(lambda: printed(run) == "up\n", "the script")
    (place / "json.py").unlink()
    assert run.stop() and run.end()["status"] == 128 + signal.SIGKILL  # type: ignore[index]
    assert printed(run) == "up\nheard 2\nheard 15\n"
    assert grid("follow", "stubborn").returncode == 128 + signal.SIGKILL


def test_what_can_not_be_is_named(place: Path) -> None:
    (place / "fit.py").write_text("print('x')")
    for words, said, status in (
        (("run", "--name", "x", "fit.py"), "say --detach as well", 2),
        (("run", "--detach", "--name", "../x", "fit.py"), "--name: a session's name has letters", 2),
        (("run", "--detach", "absent.py"), "does not exist", 2),
        (("follow", "nobody"), "there is no run 'nobody'", 1),
    ):
        done = grid(*words)
        assert said in done.stderr and done.returncode == status, done.stderr
    assert DetachedRun.all() == [] and free_name("/a/__ b$.py") == "b" and free_name("-.py") == "run"


def test_one_that_was_killed_with_its_machine_has_no_status(place: Path) -> None:
    run = DetachedRun("dead")
    run.path.mkdir(mode=0o700)
    (run.path / "run.json").write_text(json.dumps({"name": "dead", "began": 1.0, "script": "x.py"}))
    assert run.end() is not None and run.end()["status"] is None and run.stop()  # type: ignore[index]
    assert grid("follow", "dead").returncode == 1 and "killed with the one who watched" in grid("runs").stdout


def test_runs_that_ended_make_room_for_new_ones(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ENDED", 3)
    (place / "x.py").write_text("")
    for number in range(5):
        run = runs.detach(f"n{number}", "x.py", ["x.py"], os.environ)
        wait_until(lambda run=run: run.end() is not None, "its end")
    assert [run.name for run in DetachedRun.all()] == ["n2", "n3", "n4"]


@given(
    pieces=st.lists(st.binary(max_size=70), max_size=20), looks=st.lists(st.integers(0, 3), min_size=20, max_size=20)
)
def test_what_is_read_while_it_is_written_is_all_of_it_or_says_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], looks: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (runs, watchman):
            patch.setattr(module, "PART_BYTES", 16)
            patch.setattr(module, "PARTS", 3)
        patch.setenv("GRID_RUNS", str(tmp_path_factory.mktemp("runs")))
        run, lives = DetachedRun("x"), True
        run.path.mkdir(mode=0o700)
        patch.setattr(DetachedRun, "is_running", lambda _: lives)
        parts, reader, seen = watchman.Parts(run.path), output_of(run), b""
        for piece, often in zip(pieces, looks, strict=False):
            parts.write(piece)
            for _ in range(often):
                seen += next(reader)
        lives = False
        seen += b"".join(reader)
        if parts._file is not None:
            parts._file.close()
    written = b"".join(pieces)
    place = 0
    for number, text in enumerate(re.split(rb"\[grid: (\d+) bytes are not kept\]\n", seen)):
        if number % 2:
            place += int(text)
        else:
            assert written[place : place + len(text)] == text
            place += len(text)
    assert place == len(written)
    if len(written) <= 32 or all(often == 3 for often in looks):
        assert seen == written
