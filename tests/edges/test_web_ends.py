"""How streams over HTTP end: with the job, at once; with the token, also where something is said all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from grid.jobs import JobManager, Server, ServerProxy, Settings, Store, ThreadEngine
from grid.web.events import JobHub
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import ALL, Square, Steps

LIMIT_S = 30.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), ThreadEngine(2, 3), Settings(tick_s=0.05)) as manager:
        for cls in ALL:
            manager.register(cls)
        yield manager


class AtOnce:
    """An event loop that is quicker than any thread."""

    def call_soon_threadsafe(self, function: Any) -> None:
        function()


class Reader:
    """Notes what a reader that is woken finds."""

    def __init__(self, hub: JobHub) -> None:
        self.hub, self.found = hub, [hub.is_over]

    def set(self) -> None:
        self.found.append(self.hub.is_over)


@pytest.mark.row("J18", "R12")
def test_who_is_woken_by_the_last_message_of_a_job_finds_its_stream_over(manager: JobManager) -> None:
    service = ServerProxy(Server(manager), "mara")
    job = service.submit(Steps.request(n=20))
    hub = JobHub(manager, job.id, AtOnce(), 1000, 1 << 20)  # type: ignore[arg-type]
    hub.open()
    reader = Reader(hub)
    hub.readers.add(reader)  # type: ignore[arg-type]
    try:
        job.wait(LIMIT_S)
        entries = hub.since(hub._last - 1)
        assert entries is not None and entries[0].message.kind == "Completed"
        assert reader.found.count(True) == 1 and reader.found[-1] and not reader.found[0]
    finally:
        hub.close()
        service.close()


@pytest.mark.row("R13", "P25")
def test_a_revoked_token_ends_a_stream_that_is_never_silent(manager: JobManager) -> None:
    tokens = Tokens(manager.store.directory)
    token = tokens.create("mara", ["read"])
    web = WebServer(manager, tokens=tokens, limits=WebLimits(alive_s=0.3))
    service = ServerProxy(Server(manager), "mara")
    done = threading.Event()

    def talk() -> None:
        while not done.is_set():
            service.submit(Square.request(value=1)).wait(LIMIT_S)

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        headers = {"authorization": f"Bearer {token}"}
        with httpx.stream(
            "GET", f"{web.url}/api/v1/events", headers=headers, timeout=LIMIT_S, trust_env=False
        ) as answer:
            assert answer.status_code == 200
            begin = time.monotonic()
            for number, _ in enumerate(answer.iter_lines()):
                if number == 20:
                    tokens.revoke(token.split("_")[1])
                assert time.monotonic() - begin < LIMIT_S, "it goes on for ever"
    finally:
        done.set()
        talking.join()
        service.close()
        web.close()
