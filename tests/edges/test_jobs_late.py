"""What comes late: requests before their service, monitors after the first messages, conditions on what was said."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import (
    Job,
    JobCancelled,
    JobManager,
    JobState,
    Message,
    Monitor,
    Request,
    ServerProxy,
    Service,
    ServiceHandler,
    Store,
    ThreadEngine,
    UnknownJobService,
    remote_service,
)
from grid.jobs.client.context import make_service
from grid.jobs.line.door import SocketServer
from grid.web.server import WebServer
from tests.edges.test_jobs import QUICK, until

LIMIT_S = 60.0


class Gate(Service):
    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        while not Path(self.request.path).exists():
            handler.ready()
            time.sleep(0.005)
        if self.request.data.get("fail"):
            raise ValueError("no")
        return 1


class Talks(Service):
    """Says much and quickly, then waits for a file."""

    version = "1"

    def progress(self) -> Any:
        return (3, 10, "steps")

    def run(self, handler: ServiceHandler) -> Any:
        for number in range(20):
            handler.log(f"line {number}")
        handler.improved({"rss": 1.0})
        handler.keep("name.txt", "text")
        handler.ready()
        while not Path(self.request.path).exists():
            handler.ready()
            time.sleep(0.005)
        handler.log("the last line")
        return 1


SOURCE = """
from grid.jobs import Request, Service

class Filled(Request):
    def queue(self, context):
        self.output = context.job + ".out"

class Late(Service):
    version = "1"
    request_class = Filled

    def run(self, handler):
        return [self.request.value, self.request.output]
"""


@pytest.fixture(params=["socket", "http"])
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProxy]:
    monkeypatch.setenv("GRID_LOGINS", str(tmp_path / "logins.json"))
    before = set(sys.modules)
    with JobManager(Store(tmp_path / "store"), ThreadEngine(2, 3), QUICK) as manager:
        for cls in (Gate, Talks):
            manager.register(cls)
        if request.param == "http":
            server: Any = WebServer(manager, tokens=None)
            service = remote_service(server.url, user="mara")
        else:
            server = SocketServer(manager, name="late")
            service = remote_service("late", user="mara")
        try:
            yield service
        finally:
            service.close()
            server.close()
    for name in set(sys.modules) - before:
        if name.startswith("grid_"):
            del sys.modules[name]


def wanted(name: str = "arriving.Late", version: str = "1") -> Request:
    request = Request(value=7)
    request.service, request.version = name, version
    return request


def module(tmp_path: Path, source: str = SOURCE) -> Path:
    path = tmp_path / "arriving.py"
    path.write_text(source)
    return path


# -- requests before their service ------------------------------------------------------------------------------------


def installed_after(service: ServerProxy, gate: Path, path: Path) -> Job:
    """An installation that waits for a gate: until then the service is not there."""
    waits = service.submit(Gate.request(path=str(gate)))
    return service.install_service(path, after=waits)


@pytest.mark.row("T13")
@pytest.mark.parametrize("named", [True, False], ids=["with a condition", "without"])
def test_a_request_may_come_before_its_service_is_installed(service: ServerProxy, tmp_path: Path, named: bool) -> None:
    gate = tmp_path / "gate"
    upload = installed_after(service, gate, module(tmp_path))
    job = service.submit(wanted(), when=upload.iscompleted if named else None)
    assert job.state is JobState.WAITING and upload.id in job.status["waits_for"]
    gate.write_text("")
    assert job.wait(LIMIT_S) == [7, f"{job.id}.out"]  # its request was filled in, too
    assert job.status["service"] == "mara/arriving.Late"
    assert service.submit(wanted()).wait(LIMIT_S)[0] == 7


@pytest.mark.row("T13")
def test_a_request_whose_service_is_not_in_what_was_installed_is_cancelled_and_says_what_is(
    service: ServerProxy, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    upload = installed_after(service, gate, module(tmp_path))
    job = service.submit(wanted("arriving.Other"))
    gate.write_text("")
    with pytest.raises(JobCancelled) as told:
        job.wait(LIMIT_S)
    assert f"{upload.id} installed arriving, which has no service arriving.Other 1, but " in told.value.reason
    assert "mara/arriving.Late 1" in told.value.reason


@pytest.mark.row("T13")
def test_a_request_whose_upload_fails_is_cancelled_with_that_reason(service: ServerProxy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    upload = installed_after(service, gate, module(tmp_path, f"import no_such_module_at_all\n{SOURCE}"))
    job = service.submit(wanted())
    gate.write_text("")
    with pytest.raises(JobCancelled, match=rf"job {upload.id} failed: .*no_such_module_at_all"):
        job.wait(LIMIT_S)


@pytest.mark.row("T13")
def test_a_request_for_a_service_that_nobody_installs_is_refused_at_once(service: ServerProxy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    installed_after(service, gate, module(tmp_path))
    with pytest.raises(UnknownJobService):
        service.submit(wanted("another_module.Late"))
    gate.write_text("")


# -- monitors and conditions ------------------------------------------------------------------------------------------


class Hears(Monitor):
    def __init__(self) -> None:
        self.heard: list[Message] = []

    def put(self, message: Message) -> None:
        self.heard.append(message)

    @property
    def kinds(self) -> list[str]:
        return [message.kind for message in self.heard if message.kind != "State"]

    @property
    def lines(self) -> list[str]:
        return [message.text for message in self.heard if message.kind == "Log"]


def check_all(heard: Hears) -> None:
    until(lambda: "Completed" in heard.kinds)
    kinds = heard.kinds
    assert kinds.count("Start") == 1 and kinds.count("Completed") == 1 and kinds[-1] == "Completed"
    assert heard.lines == [*(f"line {number}" for number in range(20)), "the last line"]
    assert kinds.index("Start") < kinds.index("Log") and {"Improved", "Kept", "Progress"} <= set(kinds)


@pytest.mark.row("T14")
def test_a_monitor_hears_everything_from_start_on(service: ServerProxy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.write_text("")
    for _ in range(5):  # it has mostly ended when the monitor comes
        heard = Hears()
        service.submit(Talks.request(path=str(gate)), heard).wait(LIMIT_S)
        check_all(heard)


@pytest.mark.row("T14")
def test_a_monitor_that_comes_late_hears_what_was_said(service: ServerProxy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = service.submit(Talks.request(path=str(gate)))
    until(lambda: job.files())
    heard = Hears()
    service.monitor(job, heard)
    until(lambda: "Kept" in heard.kinds)
    gate.write_text("")
    check_all(heard)


@pytest.mark.row("T14")
def test_a_condition_on_what_was_said_before_holds(service: ServerProxy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = service.submit(Talks.request(path=str(gate)))
    until(lambda: job.files())

    def after(condition: Any) -> Job:
        return service.submit(Gate.request(path=str(gate)), when=condition)

    made = [
        after(job.message("Log", "text == 'line 3'")),
        after(job.message("Start")),
        after(job.message("Kept", "name == 'name.txt'")),
        after(job.result("rss < 2")),
    ]
    never = after(job.message("Log", "text == 'nobody said that'"))
    for each in made:
        until(lambda each=each: each.state is not JobState.WAITING)
    assert never.state is JobState.WAITING
    gate.write_text("")
    with pytest.raises(JobCancelled, match="ended without such a message"):
        never.wait(LIMIT_S)
    again = after(job.message("Log", "text == 'the last line'"))  # the job has ended meanwhile
    assert again.wait(LIMIT_S) == 1


@pytest.mark.row("T14")
def test_in_this_process_and_after_a_restart_too(tmp_path: Path, make: Callable[..., ServerProxy]) -> None:
    gate = tmp_path / "gate"
    gate.write_text("")
    service = make()
    heard = Hears()
    job = service.submit(Talks.request(path=str(gate)), heard)
    job.wait(LIMIT_S)
    check_all(heard)
    service.close()
    service = make()
    later = service.submit(Gate.request(path=str(gate)), when=service.job(job.id).message("Log", "text == 'line 3'"))
    assert later.wait(LIMIT_S) == 1


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ServerProxy]]:
    made: list[ServerProxy] = []

    def open_it() -> ServerProxy:
        engine = ThreadEngine(2, 3)
        made.append(make_service(tmp_path / "s", engine=engine, settings=QUICK, user="mara", services=[Gate, Talks]))
        return made[-1]

    yield open_it
    for service in made:
        service.close()
