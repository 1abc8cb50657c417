"""Who is told what about jobs: which server a script finds, what it says when it ends, what wires and commands say."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid import LocalGrid
from grid.jobs import (
    JobManager,
    JobState,
    Message,
    RequestError,
    Server,
    ServerProxy,
    Service,
    ServiceHandler,
    Store,
    StoreError,
    ThreadEngine,
    make_service,
    open_service,
    remote_service,
)
from grid.jobs.client.context import default_service
from grid.jobs.line.door import SocketServer
from grid.web.server import WebServer
from tests.edges.test_jobs import QUICK, until
from tests.lab import MissingPart

LIMIT_S = 30.0
ESCAPES = "\x1b]0;owned\x07\x9b31m\u202etxt.exe\u2066"


class Says(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        handler.log(self.request.text)
        handler.improved(self.request.text)
        if self.request.data.get("fail"):
            raise ValueError(self.request.text)
        return self.request.text


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "store"), ThreadEngine(2, 2), QUICK) as manager:
        manager.register(Says)
        yield manager


@pytest.mark.row("T08")
def test_scripts_find_the_server_that_commands_find(
    manager: JobManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRID_JOBS", raising=False)
    monkeypatch.setenv("GRID_JOBS_DIR", str(tmp_path / "store"))  # as `grid serve` uses: no second manager has a place
    served = SocketServer(manager, name="default")
    try:
        assert Says.submit(text="by the script").wait(LIMIT_S) == "by the script"
        found = default_service()
        listed = subprocess.run(
            [sys.executable, "-m", "grid", "jobs", "list", "--json", "--user", found.user],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "GRID_JOBS"},
        )
        assert "by the script" in listed.stdout, listed.stderr
        found.close()
    finally:
        served.close()


SCRIPT = """
from grid.jobs import Service, local_service

class Slow(Service):
    version = "1"
    def run(self, handler):
        while True:
            handler.ready()

if __name__ == "__main__":
    from grid import LocalGrid
    from grid.jobs import make_service
    with LocalGrid(1, output=None) as g:
        service = make_service({store!r}, g)
        with service:
            {submit}
        service.close()
"""


@pytest.mark.row("T08")
@pytest.mark.parametrize(
    "submit, said",
    [
        ("Slow.submit()", "grid: 1 job is not done (job-1), and this script's job server ends. The next script or "),
        ("[Slow.submit() for _ in range(7)]", "7 jobs are not done (job-1, job-2, job-3, job-4, job-5 and 2 more)"),
        ("pass", ""),
    ],
)
def test_a_script_that_ends_says_which_of_its_jobs_wait(tmp_path: Path, submit: str, said: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(store=str(tmp_path / "store"), submit=submit))
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stderr if said else "not done" not in ran.stderr


class Unspeakable(Message):
    """A message that can't be sent: a fault of the server, not its end."""

    def to_plain(self) -> dict[str, Any]:
        raise RequestError("this message can't be told", hint="It is a test")


@pytest.fixture(params=["socket", "http"])
def service(
    request: pytest.FixtureRequest, manager: JobManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ServerProxy]:
    monkeypatch.setenv("GRID_LOGINS", str(tmp_path / "logins.json"))
    server = SocketServer(manager, name="told") if request.param == "socket" else WebServer(manager, tokens=None)
    service = remote_service("told" if request.param == "socket" else server.url, user="mara")
    yield service
    service.close()
    server.close()


@pytest.mark.row("T09")
def test_a_call_whose_answer_can_not_be_sent_is_an_error_and_the_server_is_there(
    service: ServerProxy, manager: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    Says.submit(service=service, text="x").wait(LIMIT_S)
    monkeypatch.setattr("grid.jobs.record.JobRecord.summary", lambda self: {"state": float("nan"), "id": self.id})
    with pytest.raises(Exception) as told:
        service.summaries()
    assert "any more" not in str(told.value) and "broke" not in str(told.value)
    monkeypatch.undo()
    assert len(service.summaries()) == 1


@pytest.mark.row("T09")
def test_a_stream_that_the_server_can_not_go_on_with_is_told_as_its_error(manager: JobManager) -> None:
    server = SocketServer(manager, name="told")
    service = remote_service("told", user="mara")
    try:
        with service.listen("jobs") as listening:
            assert listening.get(LIMIT_S).kind == "Jobs"
            manager.streams.put("jobs", Unspeakable())
            for _ in range(2):  # and again for whoever asks again
                with pytest.raises(RequestError, match="this message can't be told"):
                    listening.get(LIMIT_S)
        assert service.summaries() == []
    finally:
        service.close()
        server.close()


@pytest.mark.row("T10")
@pytest.mark.parametrize("command", ["list", "show", "tail", "wait", "graph"])
@pytest.mark.parametrize("form", ["people", "json"])
def test_no_command_prints_control_characters_raw(manager: JobManager, command: str, form: str) -> None:
    served = SocketServer(manager, name="told")
    service = remote_service("told", user="mara")
    try:
        job = service.submit(Says.request(text=ESCAPES, fail=True), tags=["fine"])
        with pytest.raises(Exception, match="ValueError"):
            job.wait(LIMIT_S)
        words = {"list": ["list"], "graph": []}.get(command, [command, job.id])
        line = [sys.executable, "-m", "grid", *(["graph"] if command == "graph" else ["jobs", *words])]
        line += ["--server", "told", "--user", "mara", *(["--json"] if form == "json" else [])]
        ran = subprocess.run(line, capture_output=True, timeout=60, check=False)
        for stream in (ran.stdout, ran.stderr):
            text = stream.decode()
            assert not {char for char in text if not char.isprintable() and char not in "\n\t"}, (command, text)
        assert ran.stdout or command == "wait"
    finally:
        service.close()
        served.close()


MODULE = """
from grid.jobs import Service

class Tells(Service):
    version = "1"
    def run(self, handler):
        return {word!r}
"""


@pytest.mark.row("T11")
def test_jobs_of_a_service_whose_file_was_edited_wait_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "told_service.py"
    path.write_text(MODULE.format(word="old"))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("told_service")
    try:
        with open_service(tmp_path / "store", engine=ThreadEngine(1, 1), settings=QUICK) as service:
            assert module.Tells.submit().wait(LIMIT_S) == "old"
            path.write_text(MODULE.format(word="the new one"))
            job = module.Tells.submit()
            until(lambda: "was edited after" in job.status["reason"])
            assert job.state is JobState.PENDING and str(path) in job.status["reason"]
            assert "Start the job server again" in caplog.text
            path.write_text(MODULE.format(word="old"))  # undone
            assert job.wait(LIMIT_S) == "old"
            path.write_text(MODULE.format(word="newer"))
            again = module.Tells.submit()
            until(lambda: "was edited after" in again.status["reason"])
            monkeypatch.delitem(sys.modules, "told_service")
            importlib.invalidate_caches()
            service.register(importlib.import_module("told_service").Tells)  # loaded anew: it is what stands there
            assert again.wait(LIMIT_S) == "newer"
    finally:
        sys.modules.pop("told_service", None)


def chore(gate: str) -> None:
    while not Path(gate).exists():
        time.sleep(0.01)


class Slow(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        return handler.map(chore, [self.request.gate])


@pytest.mark.row("T12")
def test_a_slow_unit_is_named_with_its_age_and_its_host(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with LocalGrid(1, output=None) as grid:
        service = make_service(tmp_path / "store", grid, settings=QUICK)
        try:
            job = service.submit(Slow.request(gate=str(gate)))
            unit = until(lambda: service.status(job.id)["oldest_unit"])
            assert unit["job"] == job.id and unit["unit"] == 0 and unit["age"] >= 0 and unit["host"] == "localhost"
            shown = subprocess.run([sys.executable, "-m", "grid", "status"], capture_output=True, text=True, timeout=60)
            assert f"oldest unit: 0 of {job.id}, for " in shown.stdout and " on localhost (UnitWorker" in shown.stdout
            gate.write_text("")
            job.wait(LIMIT_S)
            assert service.status(job.id)["oldest_unit"] is None
        finally:
            service.close()


@pytest.mark.row("T15")
def test_a_store_that_can_not_be_one_is_a_named_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match=r"the store .*file is a file\. Name a directory"):
        Store(file)
    with pytest.raises(StoreError, match="can't be used: can't make the directory"):
        Store(file / "inside")
    with mounted_read_only(tmp_path / "sealed"), pytest.raises(StoreError, match=r"can't be (written to|used)"):
        Store(tmp_path / "sealed")


@pytest.mark.row("T15")
@pytest.mark.parametrize("inputs", ["abc", b"abc", {"a": 1}, 5])
def test_inputs_that_are_no_list_are_refused(manager: JobManager, inputs: Any) -> None:
    service = ServerProxy(Server(manager), "mara")
    with pytest.raises(RequestError, match=r"inputs is .*, which is no list of inputs"):
        service.submit(Says.request(text="x"), inputs=inputs)
    assert service.submit(Says.request(text="x"), inputs=(n for n in range(2))).wait(LIMIT_S) == ["x", "x"]


@pytest.mark.row("T15")
@pytest.mark.parametrize("value", [{"$float": "abc"}, {"$float": 1}, {"$bytes": "?"}, {"$int": "12"}, {"$text": 1}])
def test_a_value_that_can_not_be_read_is_the_askers_error(manager: JobManager, value: Any) -> None:
    with served_by_http(manager) as url:
        request = {"service": Says.name(), "version": "1", "data": {"text": value}}
        answer = httpx.post(f"{url}/api/v1/jobs", json={"request": request}, trust_env=False)
        assert answer.status_code == 422 and "can't be read" in answer.text, answer.text
        assert httpx.get(f"{url}/api/v1/jobs", trust_env=False).json()["total"] == 0


@contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    """A file system of its own that nobody can write to, root neither."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        raise MissingPart(f"no file system can be mounted here ({done.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def served_by_http(manager: JobManager) -> Iterator[str]:
    web = WebServer(manager, tokens=None)
    try:
        yield web.url
    finally:
        web.close()
