"""`grid serve` and `grid jobs`, `graph`, `credits` as a user types them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import ServerProxy, remote_service
from tests.edges.jobs_services import Fail, Square, Steps, Writes

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


def grid(*words: str, status: int = 0, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "grid", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Serving:
    def __init__(self, store: Path, *options: str) -> None:
        command = [sys.executable, "-m", "grid", "serve", "tests.edges.jobs_services", "--local", "2", "--name", "t"]
        self.process = subprocess.Popen(
            [*command, "--store", str(store), *options],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stderr is not None
        self.first = self.process.stderr.readline()
        assert self.first.startswith("job server 't' at "), self.first + self.process.stderr.read()

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "s")
    yield serving
    if serving.process.poll() is None:
        serving.end()


@pytest.fixture
def service(serving: Serving) -> Iterator[ServerProxy]:
    with remote_service("t", user="mara") as service:
        yield service
    service.close()


@pytest.mark.row("D04", "P21", "P12", "P10", "J04")
def test_jobs_are_listed_shown_waited_for_fetched_and_removed(service: ServerProxy, tmp_path: Path) -> None:
    job, writer = Square.submit(values=[1, 2], tags=["name=pair"]), Writes.submit(text="hello")
    bad = Fail.submit(after=writer)
    last = Square.submit(value=3, after=bad)
    assert grid("jobs", "wait", job.id, writer.id, "--server", "t").splitlines() == ["[1, 4]", '{"lines": 1}']
    assert "on purpose" in grid("jobs", "wait", bad.id, status=1, GRID_JOBS="t")
    listed = json.loads(grid("jobs", "list", "--json", "--server", "t"))
    assert [(each["id"], each["state"]) for each in listed] == [
        (job.id, "complete"),
        (writer.id, "complete"),
        (bad.id, "error"),
        (last.id, "cancelled"),
    ]
    table = grid("jobs", "list", "--tag", "name=pair", "--server", "t").splitlines()
    assert len(table) == 2 and re.match(rf"{job.id}\s+complete\s+Square", table[1])
    shown = json.loads(grid("jobs", "show", last.id, "--json", "--server", "t"))
    assert bad.id in shown["explain"] and shown["data"] == {"value": 3}
    shown = grid("jobs", "show", bad.id, "--server", "t")
    assert "on purpose" in shown and re.search(r"^created     \d{4}-\d\d-\d\d ", shown, re.M)
    grid("jobs", "fetch", writer.id, "-o", str(tmp_path / "r.json"), "--server", "t")
    assert json.loads((tmp_path / "r.json").read_text())["data"]["filename"] == writer.filename
    tree = grid("graph", "--server", "t").splitlines()
    assert tree[1].startswith(writer.id) and tree[2].startswith(f"  {bad.id}") and tree[3].startswith(f"    {last.id}")
    assert f'"{bad.id}" -> "{last.id}"' in grid("graph", "--dot", "--server", "t")
    assert json.loads(grid("credits", "--json", "--server", "t", "--user", "mara"))["user"] == "mara"
    grid("jobs", "archive", job.id, "--server", "t")
    assert job.id not in grid("jobs", "list", "--server", "t")
    answer = json.loads(grid("jobs", "delete", bad.id, last.id, "--json", "--server", "t"))
    assert answer == {"deleted": [bad.id, last.id], "failed": {}}
    assert "no job 'job-99'" in grid("jobs", "delete", "job-99", "--server", "t", status=1)


@pytest.mark.row("D04", "P13", "P14", "V14", "V19")
def test_a_job_is_followed_steered_and_aborted(service: ServerProxy) -> None:
    job = Steps.submit()
    grid("jobs", "control", job.id, "SetK", "k=70000", "--server", "t")
    assert json.loads(grid("jobs", "control", job.id, "GetK", "--ask", "--server", "t")) >= 0
    tail = subprocess.Popen(
        [sys.executable, "-m", "grid", "jobs", "tail", job.id, "--json", "--server", "t"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert tail.stdout is not None
    assert json.loads(tail.stdout.readline())["kind"] == "Join"
    while json.loads(tail.stdout.readline())["kind"] != "Improved":
        pass
    grid("jobs", "abort", job.id, "--reason", "seen enough", "--server", "t")
    rest, _ = tail.communicate(timeout=LIMIT_S)
    last = json.loads(rest.splitlines()[-1])
    assert (last["kind"], last["reason"]) == ("Aborted", "seen enough") and tail.returncode == 1
    assert "NAME=VALUE" in grid("jobs", "control", job.id, "SetK", "k", "--server", "t", status=2)
    other = Steps.submit()
    assert "is active after" in grid("jobs", "wait", other.id, "--timeout", "1", "--server", "t", status=1)
    other.abort()


@pytest.mark.row("D04", "T15")
def test_a_job_is_submitted_by_hand(service: ServerProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_JOBS", "t")
    job = grid("jobs", "submit", "Square", "values=[1,2,3]", "--tag", "by=hand").strip()
    assert json.loads(grid("jobs", "wait", job)) == [1, 4, 9]
    said = json.loads(grid("jobs", "submit", "tests.edges.jobs_services.Square", "value=7", "--after", job, "--json"))
    assert said["service"].endswith(".Square") and service.job(said["job"]).wait(LIMIT_S) == 49
    grid("jobs", "fetch", said["job"], "-o", str(tmp_path / "again.json"))
    again = grid("jobs", "submit", "--request", str(tmp_path / "again.json")).strip()
    assert service.job(again).wait(LIMIT_S) == 49
    assert "by=hand" in json.loads(grid("jobs", "show", job, "--json"))["tags"]
    for words, why in (
        (["Sqare"], "the server has no service 'Sqare'"),
        (["Square", "values"], "'values' is not NAME=VALUE"),
        ([], "name a SERVICE with values, or --request FILE"),
        (["Square", "--version", "99"], "99"),
    ):
        assert why in grid("jobs", "submit", *words, status=2 if "99" not in words else 1)


@pytest.mark.row("D04", "P14")
def test_a_paused_job_is_shown_as_paused(service: ServerProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_JOBS", "t")
    job = Steps.submit(n=1_000_000)
    until(lambda: job.state == "active")
    grid("jobs", "control", job.id, "Pause")
    until(lambda: job.status["paused"])
    assert f"{job.id}  paused" in grid("jobs", "list")
    assert "is active and paused" in grid("jobs", "show", job.id)
    grid("jobs", "control", job.id, "Resume")
    until(lambda: not job.status["paused"])
    assert f"{job.id}  active" in grid("jobs", "list")
    job.abort()


@pytest.mark.row("V17", "T15")
def test_a_message_that_nobody_takes_is_told(service: ServerProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_JOBS", "t")
    job = Steps.submit(n=1_000_000)
    until(lambda: job.state == "active")
    said = grid("jobs", "control", job.id, "NoSuchThing", "--ask", status=1)
    assert "Steps has no on_ready_no_such_thing: the message NoSuchThing was dropped" in said
    until(lambda: "NoSuchThing was dropped" in grid("jobs", "log", job.id))
    job.abort()


@pytest.mark.row("T15")
def test_the_time_that_a_wait_was_given_is_the_time_that_it_tells(
    service: ServerProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_JOBS", "t")
    job = Steps.submit(n=1_000_000)
    until(lambda: job.state == "active")
    assert f"job {job.id} is active after 0.5 s" in grid("jobs", "wait", job.id, "--timeout", "0.5", status=1)
    job.abort()


@pytest.mark.row("T15")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("class A:\n  def f(self)\n    pass\n", "SyntaxError: expected ':' ("),
        ("import os\n\nos.no_such_name\n", "AttributeError: module 'os' has no attribute 'no_such_name' ("),
    ],
)
def test_a_faulty_module_of_services_is_told_in_a_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "faulty.py").write_text(text)
    said = grid("serve", str(tmp_path / "faulty.py"), "--local", "1", "--store", str(tmp_path / "s"), status=2)
    assert why in said and "Traceback" not in said
    assert f"{tmp_path}/faulty.py, line {2 if 'Syntax' in why else 3})" in said


@pytest.mark.row("D04", "J16")
def test_on_a_terminal_there_are_live_tables_and_bars(service: ServerProxy) -> None:
    job = Steps.submit(n=300)
    seen = terminal(["jobs", "list", "--watch", "--server", "t"], until=f"{job.id}.*Steps")
    assert re.search(r"\d+ of 300 steps", seen)
    seen = terminal(["jobs", "wait", job.id, "--server", "t"], until=r"\"k\": 300")
    assert "complete" in seen


def terminal(words: list[str], until: str) -> str:
    """What a command shows on a terminal until a pattern comes; then it is interrupted."""
    fd, other_end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "grid", *words],
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "xterm"},
    )
    os.close(other_end)
    seen, end = "", time.monotonic() + LIMIT_S
    try:
        while not re.search(until, seen, re.S):
            assert time.monotonic() < end, seen
            if select.select([fd], [], [], 1.0)[0]:
                try:
                    seen += os.read(fd, 65536).decode(errors="replace")
                except OSError:  # it has ended
                    break
        child.send_signal(signal.SIGINT)
        drain(fd)
        child.wait(LIMIT_S)
    finally:
        os.close(fd)
        if child.poll() is None:
            child.kill()
            child.wait()
    assert re.search(until, seen, re.S), seen
    return seen


def drain(fd: int) -> None:
    """Read to the end: one who can't write can't end."""
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass  # the other end is closed


@pytest.mark.row("D04", "J19", "P01")
def test_a_server_is_stopped_and_the_next_goes_on(serving: Serving, tmp_path: Path) -> None:
    again = grid("serve", "--local", "1", "--name", "t", "--store", str(tmp_path / "s"), status=1)
    assert "in use by another job manager" in again
    with remote_service("t") as service:
        job = Steps.submit(n=300, pause=0.02)
        assert len([message for message, _ in zip(job.messages(LIMIT_S), range(4), strict=False)]) == 4
    service.close()
    assert "stopping" in serving.end(signal.SIGINT)
    assert "no job server is called 't'" in grid("jobs", "list", "--server", "t", status=1)
    second = Serving(tmp_path / "s")
    try:
        result: Any = json.loads(grid("jobs", "wait", job.id, "--server", "t"))
    finally:
        second.end()
    assert result == {"k": 300, "restored": True, "attempt": 2}


@pytest.mark.row("D04")
def test_what_can_not_be_served_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert "no service class" in grid("serve", str(tmp_path / "empty.py"), status=2)
    assert "can't be imported" in grid("serve", "no.such.module", status=2)
    assert "no file" in grid("serve", "absent.py", status=2)
    token = grid("serve", "--add-user", "mara", "--store", str(tmp_path / "s")).strip()
    assert len(token) > 30


@pytest.mark.row("P19", "D02")
def test_grid_can_be_imported_without_what_jobs_need() -> None:
    code = (
        "import sys\n"
        "for name in ('sqlalchemy', 'alembic', 'psycopg', 'rich'): sys.modules[name] = None\n"
        "import grid, grid.jobs\n"
        "from grid.jobs import Service, Request, IsCompleted, Depends, AbortService\n"
        "print(len(grid.jobs.__all__))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=LIMIT_S)
    assert done.returncode == 0 and int(done.stdout) > 40, done.stderr
    client = "import sys, grid.jobs.line.client, grid.jobs.client.joblist, grid.cli.jobs; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", client], text=True, cwd=ROOT, timeout=LIMIT_S).split()
    assert not {"sqlalchemy", "alembic"} & set(loaded)  # a client needs no database
