"""Many readers of one stream: all see each change, none is dropped or doubled, whatever the readers do."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import JobManager, Settings, Store, ThreadEngine
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import Square, Steps
from tests.edges.web_readers import Reader
from tests.lab.postgres import Postgres, postgres  # noqa: F401 - a fixture

LIMIT_S = 60.0
CHANGES = int(os.environ.get("GRID_SOAK_CHANGES", "20000"))


class NoPlaces(ThreadEngine):
    """Jobs stay in the queue."""

    def runner(self, timeout: float) -> None:
        threading.Event().wait(timeout)  # stands for waiting for a runner


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with JobManager(Store(tmp_path / "s"), NoPlaces(1, 1), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        manager.register(Steps)
        yield manager


def submission(n: int, after: str | None = None) -> dict[str, Any]:
    when = {"atom": "completed", "job": after} if after else None
    return {"request": Square.request(value=n).to_plain(), "when": when}


@pytest.mark.row("J11", "J14", "J15")
def test_two_hundred_streams_see_each_change(manager: JobManager) -> None:
    tokens = Tokens(manager.store.directory)
    web = WebServer(manager, tokens=tokens, limits=WebLimits(alive_s=0.1))
    token = tokens.create("mara")

    async def run() -> None:
        readers = [Reader(web.port, token, seed=n) for n in range(200)]
        end = asyncio.Event()
        tasks = [asyncio.ensure_future(reader.follow(end)) for reader in readers]
        await asyncio.wait_for(asyncio.gather(*(reader.ready.wait() for reader in readers)), LIMIT_S)
        assert web.site.hubs.count == 200
        loop = asyncio.get_running_loop()
        for n in range(5):
            (record,) = await loop.run_in_executor(None, manager.submit, "mara", [submission(n)])
            deadline = time.monotonic() + LIMIT_S
            while not all(record.id in reader.jobs for reader in readers):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.005)
        end.set()
        await asyncio.gather(*tasks)
        assert not [wrong for reader in readers for wrong in reader.wrong]
        assert {reader.changes for reader in readers} == {5}

    try:
        asyncio.run(run())
    finally:
        web.close()


def soak(manager: JobManager, changes: int, *, ring: int) -> list[Reader]:
    """So many changes, while readers of all kinds come, go and stall."""
    web = WebServer(manager, tokens=None, limits=WebLimits(ring=ring, alive_s=0.1))

    def change() -> None:
        made = 0
        while made < changes:
            (gate,) = manager.submit("mara", [submission(0)])
            manager.submit("mara", [submission(n, gate.id) for n in range(500)])
            manager.cancel(gate.id, "as planned")  # and 500 with it
            removed = [job for job, record in manager.records.items() if record.state.ended]
            if len(removed) > 3000:
                manager.delete(removed)
                made += len(removed)
            made += 1002

    async def run() -> list[Reader]:
        readers = [Reader(web.port, restless=n % 3 == 1, lazy=n % 3 == 2, seed=n) for n in range(9)]
        end = asyncio.Event()
        tasks = [asyncio.ensure_future(reader.follow(end)) for reader in readers]
        await asyncio.wait_for(asyncio.gather(*(reader.ready.wait() for reader in readers)), LIMIT_S)
        await asyncio.get_running_loop().run_in_executor(None, change)
        last = manager.streams.number("jobs")
        deadline = time.monotonic() + LIMIT_S
        while any(reader.number < last for reader in readers):
            assert time.monotonic() < deadline, [reader.number for reader in readers]
            await asyncio.sleep(0.02)
        end.set()
        await asyncio.gather(*tasks)
        return readers

    try:
        readers = asyncio.run(run())
    finally:
        web.close()
    there = {record.id: record.state.value for record in manager.records.values()}
    for reader in readers:
        assert not reader.wrong, reader.wrong[:3]
        assert {job: summary["state"] for job, summary in reader.jobs.items()} == there
    assert manager.streams.number("jobs") >= changes
    assert readers[0].changes >= changes * 0.9 or readers[0].headers > 1
    assert all(reader.connections > 1 for reader in readers[1::3])
    return readers


@pytest.mark.row("J14", "J15", "J18", "J16")
def test_no_change_is_dropped_or_doubled_while_readers_come_go_and_stall(manager: JobManager) -> None:
    readers = soak(manager, CHANGES, ring=10_000)
    assert sum(reader.changes for reader in readers) > CHANGES


@pytest.mark.row("J15", "J18")
def test_readers_that_fall_behind_begin_anew_and_are_right_again(manager: JobManager) -> None:
    readers = soak(manager, 4_000, ring=100)
    assert sum(reader.headers for reader in readers) > len(readers)


@pytest.mark.row("J14", "J15", "P02")
def test_the_same_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:  # noqa: F811 - the fixture
    store = Store(postgres.database(), tmp_path / "files")
    with JobManager(store, NoPlaces(1, 1), Settings(tick_s=0.05)) as manager:
        manager.register(Square)
        soak(manager, 3_000, ring=10_000)
