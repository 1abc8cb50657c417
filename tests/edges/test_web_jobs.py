"""What jobs promise in one process they promise over HTTP: the tests of `test_jobs.py` that use a service."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.jobs import JobManager, ServerProxy, Store, ThreadEngine, remote_service
from grid.web.server import WebServer
from tests.edges import test_jobs
from tests.edges.jobs_services import ALL

ELSEWHERE = {
    "test_a_slow_listener_holds_up_nobody_and_is_told_what_it_missed": "of queues in one process; see test_web.py",
}

for _name, _test in vars(test_jobs).items():
    if _name.startswith("test_") and "service" in inspect.signature(_test).parameters and _name not in ELSEWHERE:
        globals()[_name] = _test  # collected here, with the fixture below


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProxy]:
    monkeypatch.setenv("GRID_LOGINS", str(tmp_path / "logins.json"))
    with JobManager(Store(tmp_path / "store"), ThreadEngine(workers=3, at_once=4), test_jobs.QUICK) as manager:
        for cls in ALL:
            manager.register(cls)
        web = WebServer(manager, tokens=None)
        try:
            service = remote_service(web.url, user="mara")
            # classes that a test defines are registered where the manager is; all else goes over HTTP
            service.calls.in_process, service.calls.manager = True, manager
            service.calls.register = manager.register
            try:
                with service:
                    yield service
            finally:
                service.close()
        finally:
            web.close()
