"""What the tests of the page stand on: a job server with its page, a visitor, and words for what is seen.

Lives here: `Scene`, the fixtures `scene`, `guarded` and `visit`.
Elsewhere:  the browser (`tests/lab/browser.py`), services that jobs run (`page_services.py`), tests (`test_page*.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from grid.jobs import JobManager, JobState, Server, ServerProxy, Settings, Store, ThreadEngine
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges import jobs_services, page_services
from tests.edges.page_services import gates
from tests.lab.browser import Visit

LIMIT_S = 30.0
QUICK = Settings(tick_s=0.05, abort_grace_s=5.0, suspend_s=5.0)


class Scene:
    """A manager with its web server, on a port that stays the same over restarts, and a user who submits."""

    def __init__(self, place: Path, *, tokens: bool = False, at_once: int = 6) -> None:
        self.manager = JobManager(Store(place), ThreadEngine(4, at_once), QUICK)
        self.tokens = Tokens(self.manager.store.directory) if tokens else None
        self.web: WebServer | None = None
        self.port = 0

    def __enter__(self) -> Scene:
        self.manager.start()
        for cls in (*jobs_services.ALL, *page_services.ALL):
            self.manager.register(cls)
        self.serve()
        self.service = ServerProxy(Server(self.manager), "mara")
        self.service.set_tags([])
        return self

    def serve(self) -> None:
        self.web = WebServer(self.manager, ("127.0.0.1", self.port), tokens=self.tokens)
        self.port = self.web.port

    def silence(self) -> None:
        assert self.web is not None
        self.web.close()

    def __exit__(self, *_: object) -> None:
        for gate in gates.values():
            gate.set()
        for record in list(self.manager.records.values()):
            if record.state is JobState.ACTIVE:
                self.manager.abort(record.id, "the test is over", 0.5)
        self.service.close()
        self.silence()
        self.manager.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def submit(self, cls: Any, name: str = "", tags: tuple[str, ...] = (), owner: str = "mara", **data: Any) -> Any:
        options = {key: data.pop(key) for key in ("after", "when", "priority") if key in data}
        named = [f"name={name}"] if name else []
        service = self.service if owner == "mara" else ServerProxy(Server(self.manager), owner)
        if owner != "mara":
            service.set_tags([])
        return service.submit(cls.request(**data), tags=[*named, *tags], **options)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    gates.clear()
    gates["never"] = threading.Event()
    with Scene(tmp_path / "s") as scene:
        yield scene


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Scene]:
    """The same with tokens."""
    gates.clear()
    gates["never"] = threading.Event()
    with Scene(tmp_path / "s", tokens=True) as scene:
        yield scene


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """A visitor; the page must have asked nobody but its server, and the browser had nothing to complain of."""
    with Visit(browser) as visit:
        yield visit
        origins = {urlsplit(url).netloc.partition(":")[0] for url in visit.requests if not url.startswith("data:")}
        assert origins <= {"127.0.0.1"}, visit.requests
        assert visit.complaints == []


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def row(page: Any, text: str) -> Any:
    return page.locator("#rows tr:not(.spacer):visible", has_text=text)


def state(page: Any, text: str, wanted: str) -> Any:
    """The cell with the state of a row, once it is that."""
    return row(page, text).locator(f".state.{wanted}")


def names(page: Any) -> list[str]:
    return list(page.locator("#rows tr:not(.spacer):visible .name").all_inner_texts())


def see(page: Any, test: str, *arguments: Any) -> None:
    """Wait until a JavaScript expression is true."""
    page.wait_for_function(test, arg=arguments[0] if arguments else None)
