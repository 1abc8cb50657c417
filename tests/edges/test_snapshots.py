"""Servers that are lost come back with the state of their last snapshot."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid import Grid, Limits, LocalGrid, ServerLost
from grid.grids.choose import local_host
from grid.grids.home import Home

QUICK = Limits(heartbeat_s=0.4, lost_s=1.6, orphan_s=3.0, stop_s=1.0, snapshot_bytes=1_000_000)
RESTARTS = 50


class Tally:
    """Remembers each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.more: Any = None

    def add(self, number: int) -> list[int]:
        self.calls.append(number)
        return self.calls

    def read(self) -> tuple[int, list[int]]:
        return os.getpid(), self.calls

    def have(self, what: str) -> None:
        self.more = (n for n in ()) if what == "generator" else bytes(2_000_000) if what == "much" else None


@pytest.fixture(scope="module")
def g() -> Iterator[LocalGrid]:
    with LocalGrid(1, limits=QUICK, output=None) as grid:
        grid.terminate(grid.publish(Tally()))  # starts its agent
        yield grid


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def snapshots(g: LocalGrid, sid: str) -> Any:
    (server,) = [server for server in g._service(sid).servers.values() if server.final_state is None]
    return server.snapshots


def calls_until_killed(g: LocalGrid, sid: str, numbers: range) -> ServerLost:
    """Make calls, have the snapshots that are due come, and kill the server; what the next call raises."""
    with g.acquire_service(sid, timeout=20) as proxy:
        for number in numbers:
            proxy.add(number).get(10)
        pid, _ = proxy.read().get(10)
        until(lambda: all(reply.done_flag for reply in snapshots(g, sid)._replies))
        until(lambda: not any(thread.name == "grid-snapshot" for thread in threading.enumerate()))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerLost) as caught:
            while True:
                proxy.add(-1).get(10)
    return caught.value


@pytest.mark.row("Z08")
def test_a_killed_server_goes_on_from_its_last_snapshot_and_the_error_says_how_old_that_is(g: LocalGrid) -> None:
    sid = g.publish(Tally(), restarts=RESTARTS, snapshot_calls=4)
    lost = calls_until_killed(g, sid, range(6))
    assert lost.snapshot_age_s is not None and 0 <= lost.snapshot_age_s < 60
    assert "its last snapshot is " in str(lost)
    with g.acquire_service(sid, timeout=20) as proxy:
        assert proxy.read().get(10)[1] == [0, 1, 2, 3]
        proxy.add(7).get(10)
        assert proxy.read().get(10)[1] == [0, 1, 2, 3, 7]
    g.terminate(sid)


@pytest.mark.row("Z08")
def test_by_time_and_an_unchanged_state_is_not_sent_again(g: LocalGrid) -> None:
    sid = g.publish(Tally(), restarts=1, snapshot_s=0.01)
    with g.acquire_service(sid) as proxy:
        proxy.add(1).get(10)
        mine = snapshots(g, sid)
        until(lambda: mine.last is not None)
        first = mine.last
        proxy.read().get(10)
        until(lambda: mine.last.call > first.call)
        assert mine.last.saved is first.saved, "it was sent again"
        proxy.add(2).get(10)
        until(lambda: mine.last.saved is not first.saved)
    g.terminate(sid)


@pytest.mark.row("Z08")
def test_whatever_calls_and_kills_come_the_state_is_what_calls_before_the_last_snapshot_made(g: LocalGrid) -> None:
    rng = random.Random(22)
    sid = g.publish(Tally(), restarts=RESTARTS, snapshot_calls=3)
    expected: list[int] = []
    number = 0
    for _ in range(3):
        count = rng.randrange(9)
        made = [*expected, *range(number, number + count)]
        calls_until_killed(g, sid, range(number, number + count))
        number += count
        with g.acquire_service(sid, timeout=20) as proxy:
            state = proxy.read().get(10)[1]
        assert state == made[: len(state)], "not what the first calls made"
        assert len(state) >= len(made) - 3, "older than the last snapshot that was due"
        expected = state
    g.terminate(sid)


@pytest.mark.row("Z08")
@pytest.mark.parametrize(("what", "why"), [("generator", "generator"), ("much", "snapshot_bytes")])
def test_a_state_that_can_not_be_saved_is_said_once_and_the_server_goes_on(
    g: LocalGrid, caplog: pytest.LogCaptureFixture, what: str, why: str
) -> None:
    sid = g.publish(Tally(), restarts=1, snapshot_calls=1)
    with g.acquire_service(sid) as proxy, caplog.at_level(logging.WARNING):
        proxy.have(what).get(10)
        for number in range(5):
            assert len(proxy.add(number).get(10)) == number + 1
        until(lambda: [r for r in caplog.records if "no snapshot of server" in r.getMessage()])
        proxy.have("nothing").get(10)
        until(lambda: snapshots(g, sid).last is not None)
    (record,) = [record for record in caplog.records if "no snapshot of server" in record.getMessage()]
    assert why in record.getMessage()
    g.terminate(sid)


@pytest.mark.row("Z08")
def test_what_is_no_rule_is_refused(g: LocalGrid) -> None:
    wrong: list[dict[str, Any]] = [{"snapshot_s": -1.0}, {"snapshot_s": 0}, {"snapshot_calls": 0}]
    for words in wrong:
        with pytest.raises(ValueError, match="snapshot_"):
            g.publish(Tally(), restarts=1, **words)
    with pytest.raises(TypeError):
        g.publish(Tally(), restarts=1, snapshot_calls="many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="restarts="):
        g.publish(Tally(), snapshot_s=300)


@pytest.mark.row("Z08")
def test_a_server_that_is_lost_with_its_host_goes_on_at_another() -> None:
    hosts = [dataclasses.replace(local_host(1), env={"WHICH": word}) for word in ("one", "two")]
    with Grid(hosts, limits=QUICK, output=None, wait="all") as g:
        sid = g.publish(Tally(), restarts=2, snapshot_calls=2)
        proxies = [g.acquire_service(sid, timeout=20) for _ in range(2)]
        for proxy in proxies:
            for number in range(2):
                proxy.add(number).get(10)
        until(lambda: all(server.snapshots.last for server in g._service(sid).servers.values()))
        home: Home = proxies[0]._server.home
        other = proxies[1]._server.home
        os.kill(home.report["pid"], signal.SIGKILL)
        with pytest.raises(ServerLost, match="its last snapshot is"):
            while True:
                proxies[0].read().get(10)
        with g.acquire_service(sid, timeout=20) as proxy:
            assert proxy._server.home is other
            assert proxy.read().get(10)[1] == [0, 1]
        with contextlib.suppress(ServerLost):
            g.release_service(proxies[1])
