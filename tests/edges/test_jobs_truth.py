"""Jobs tell the truth, whatever a service says: in this process, by socket and by HTTP, on SQLite and PostgreSQL."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid.jobs import (
    Job,
    JobFailed,
    JobManager,
    ServerProxy,
    Service,
    ServiceHandler,
    Store,
    ThreadEngine,
    open_service,
    remote_service,
)
from grid.jobs.host.request import Request
from grid.jobs.line.door import SocketServer
from grid.web.server import WebServer
from tests.edges.test_jobs import QUICK
from tests.lab.postgres import Postgres, postgres  # noqa: F401 - a fixture

LIMIT_S = 30.0
EXAMPLES = int(os.environ.get("GRID_TEST_EXAMPLES", "8"))
SAID: dict[str, Any] = {}
"""What services of this process shall say: generated values can't be sent to them by a wire under test."""


class Says(Service):
    """Says `SAID[word]` through the hook that is named, then returns 7."""

    version = "1"

    def prepare(self, request: Request) -> None:
        self.value = SAID[request.word]

    def progress(self) -> Any:
        return self.value if self.request.hook == "progress" else (1, 2, "steps")

    def run(self, handler: ServiceHandler) -> Any:
        hook = self.request.hook
        handler.ready()
        if hook == "improved":
            handler.improved(self.value)
        elif hook == "log":
            handler.log(self.value)
        elif hook == "level":
            handler.log("text", self.value)
        elif hook == "keep":
            handler.keep("name", self.value)
        elif hook == "name":
            handler.keep(self.value, "data")
        elif hook == "raise":
            raise self.value
        elif hook == "stop":
            handler.stop(self.value)
        elif hook == "result":
            return self.value
        handler.ready()
        return 7


HOOKS = ("progress", "improved", "log", "level", "keep", "name", "raise", "stop", "result")


class Odd(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return self.value
        raise ValueError("no text to be had")


class Unreadable:
    def tolist(self) -> Any:
        raise OSError("can't be read")


@pytest.fixture(params=["process-sqlite", "socket-postgresql", "http-sqlite", "http-postgresql"])
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProxy]:
    door, _, kind = request.param.partition("-")
    monkeypatch.setenv("GRID_LOGINS", str(tmp_path / "logins.json"))
    where = str(tmp_path / "store")
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        where = server.database()
    store = Store(where, tmp_path / "folders") if kind == "postgresql" else Store(where)
    with JobManager(store, ThreadEngine(workers=3, at_once=4), QUICK) as manager:
        for cls in (Says, Waits):
            manager.register(cls)
        close: Callable[[], None] = lambda: None  # noqa: E731
        if door == "http":
            web = WebServer(manager, tokens=None)
            close, url = web.close, web.url
            service = remote_service(url, user="mara")
        else:
            line = SocketServer(manager, name=f"truth-{os.getpid()}")
            close = line.close
            service = remote_service(f"truth-{os.getpid()}", user="mara")
        try:
            yield service
        finally:
            service.close()
            close()


class Waits(Service):
    """Waits for a file."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        while not Path(self.request.path).exists():
            handler.ready()
            time.sleep(0.005)
        return 1


def say(service: ServerProxy, hook: str, value: Any) -> Job:
    word = f"w{len(SAID)}"
    SAID[word] = Odd(value) if hook == "raise" else value
    return service.submit(Says.request(hook=hook, word=word))


def read_at_every_door(service: ServerProxy, job: Job) -> dict[str, Any]:
    """All that can be asked about a job that has ended, and the list. Over HTTP each answer is JSON in UTF-8."""
    summary = next(each for each in service.summaries() if each["id"] == job.id)
    status = service.status(job.id)
    assert status["state"] == summary["state"]
    detail = service.calls.fetch(job.id)
    json.dumps([summary, status, detail], allow_nan=False).encode()
    for kind in ("Log", "Improved"):
        json.dumps(service.calls.history(job.id, kind), allow_nan=False)
    last = [message.kind for message in job.messages(LIMIT_S)][-1]
    assert last == {"complete": "Completed", "error": "Error"}[status["state"]]
    assert job.request == Says.request(hook=job.request.hook, word=job.request.word)
    for name, size in job.files().items():
        assert len(job.read(name)) == size
    return detail


def end(service: ServerProxy, job: Job) -> str:
    with suppress(JobFailed):
        job.wait(LIMIT_S)
    return str(read_at_every_door(service, job)["state"])


ODD_VALUES = {
    "infinity": float("inf"),
    "no number": float("nan"),
    "name that is no UTF-8": os.fsdecode(b"caf\xe9.txt"),
    "integer of 5,000 digits": 10**5000,
    "control characters": "a\x00b\x1b[31mc\x85\u2028",
    "deep": functools.reduce(lambda inner, _: [inner], range(50), "x"),
    "too deep": functools.reduce(lambda inner, _: [inner], range(90), "x"),
    "set": {1},
    "number as key": {1: 2},
    "unreadable": Unreadable(),
    "many": list(range(100_000)),
}


@pytest.mark.row("T01")
@pytest.mark.parametrize("hook", HOOKS)
def test_whatever_a_service_says_its_job_ends_and_everybody_else_is_untouched(service: ServerProxy, hook: str) -> None:
    other = say(service, "result", "fine")
    jobs = {name: say(service, hook, value) for name, value in ODD_VALUES.items()}
    states = {name: end(service, job) for name, job in jobs.items()}
    assert other.wait(LIMIT_S) == "fine"
    details = {name: service.calls.fetch(job.id) for name, job in jobs.items()}
    for name, state in states.items():
        assert (state == "error") == bool(details[name]["error"]), name
        assert "\x1b" not in details[name]["error"] and len(details[name]["error"]) < 70_000
    if hook in ("progress", "log", "level"):  # for people to look at: no reason to lose a result
        assert set(states.values()) == {"complete"}
    elif hook in ("raise", "stop", "name"):
        assert set(states.values()) == {"error"}
    elif hook in ("improved", "result"):
        refused = {name for name, state in states.items() if state == "error"}
        assert refused == {"too deep", "set", "number as key", "unreadable"}
        what = {"improved": "the partial result", "result": "the result"}[hook]
        assert all(what in details[name]["error"] for name in refused), details
        value = jobs["name that is no UTF-8"].best if hook == "improved" else jobs["name that is no UTF-8"].wait(1)
        assert os.fsencode(value) == b"caf\xe9.txt"
        value = jobs["integer of 5,000 digits"].best if hook == "improved" else jobs["integer of 5,000 digits"].wait(1)
        assert value == 10**5000


@pytest.mark.row("T01")
def test_a_progress_that_is_no_number_is_not_shown_and_the_log_says_why(service: ServerProxy) -> None:
    job = say(service, "progress", (float("inf"), 10, "steps"))
    assert job.wait(LIMIT_S) == 7 and service.status(job.id)["progress"] is None
    lines = [line["text"] for line in service.calls.history(job.id)]
    assert len(lines) == 1 and "progress() gave k = inf" in lines[0]


@pytest.mark.row("T01")
def test_a_file_of_a_job_is_bytes_or_text_under_a_plain_name_or_its_job_says_why(service: ServerProxy) -> None:
    for hook, value, why in (
        ("keep", 10, r"keep\('name', ...\) was given a int. Give bytes, or text"),
        ("name", "../x", r"'../x' can't be a name of a file"),
    ):
        with pytest.raises(JobFailed, match=why):
            say(service, hook, value).wait(LIMIT_S)


@pytest.mark.row("T01")
def test_what_can_not_be_stored_ends_its_own_job_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall behind the checks at the job: here they let everything through."""
    monkeypatch.setattr("grid.jobs.host.runner.to_plain", lambda value, *_: value)
    with open_service(tmp_path / "store", engine=ThreadEngine(2, 3), settings=QUICK, services=[Says]) as service:
        result, best = say(service, "result", float("nan")), say(service, "improved", "\ud800")
        for job in (result, best):
            with pytest.raises(JobFailed, match=r"could not be kept|can't be stored"):
                job.wait(LIMIT_S)
        assert say(service, "result", 1).wait(LIMIT_S) == 1
        assert len(service.summaries()) == 3


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=50)
    | st.text(st.characters(codec=None), max_size=20)
    | st.text(st.characters(codec=None, categories=("Cs", "Cc")), max_size=20)
    | st.integers(min_value=10**300, max_value=10**4500)
    | st.sampled_from([{1, 2}, object(), 1j, Unreadable(), dict, {"$float": "x"}, {"$bytes": 3}])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=5) | st.integers(), inner, max_size=4)
        | st.tuples(inner, inner, inner)
    ),
    max_leaves=12,
)


@pytest.mark.row("T02")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(said=st.lists(st.tuples(st.sampled_from(HOOKS), VALUES), min_size=8, max_size=12))
def test_generated_values_through_every_hook_are_read_at_every_door(
    service: ServerProxy, said: list[tuple[str, Any]]
) -> None:
    jobs = [say(service, hook, value) for hook, value in said]
    assert {end(service, job) for job in jobs} <= {"complete", "error"}
    service.delete(jobs)
