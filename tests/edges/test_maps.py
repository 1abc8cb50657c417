"""Maps over a service: order, errors, fairness, losses, bounds."""

from __future__ import annotations

import gc
import io
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid, progress_bar
from grid.errors import GridStopped, NoServers, RemoteError, ServerLost, ServiceError, UnknownService


class Worker:
    """What the maps below are made of."""

    def __init__(self) -> None:
        self.seen = 0

    def square(self, value: float) -> float:
        self.seen += 1
        if value == 13:
            raise ValueError("unlucky")
        return value * value

    def add(self, one: int, other: int) -> int:
        return one + other

    def wait_for(self, path: str) -> str:
        deadline = time.monotonic() + 30
        while not os.path.exists(path):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return path

    def nap(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def lock(self, value: int) -> Any:
        return threading.Lock() if value == 3 else value

    def die_of(self, item: tuple[int, str]) -> int:
        value, once = item
        if value == 5 and not os.path.exists(once):
            Path(once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    def calls(self) -> int:
        return self.seen

    def echo(self, value: int) -> int:
        return value


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as g:
        g.publish([])  # the agent stays from test to test
        yield g


@pytest.fixture
def sid(grid: LocalGrid) -> Iterator[str]:
    service_id = grid.publish(Worker())
    yield service_id
    grid.terminate(service_id)


def until(condition: Callable[[], bool], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


@pytest.mark.row("G14", "G45")
def test_values_come_in_the_order_of_the_items(grid: LocalGrid, sid: str) -> None:
    assert list(grid.map(sid, "square", range(20, 3000))) == [n * n for n in range(20, 3000)]
    assert grid.map(sid, "square", []).get(10) == []
    assert list(grid.map(sid, "add", range(5), [10, 20, 30])) == [10, 21, 32]
    assert list(grid.map(sid, "add", itertools.count(), [1, 2], pack=7)) == [1, 3]
    until(lambda: grid.queues[sid].qsize() == 2)  # all servers are back


@pytest.mark.row("G45")
def test_a_function_is_mapped_by_its_call(grid: LocalGrid) -> None:
    sid = grid.publish(lambda value: value + 1)
    assert list(grid.map(sid, "__call__", [1, 2])) == [2, 3]
    grid.terminate(sid)


@pytest.mark.row("G45")
def test_items_are_read_no_further_than_needed(grid: LocalGrid, sid: str) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for n in itertools.count(100):
            read.append(n)
            yield n

    values = grid.map(sid, "square", items(), ahead=50, pack=5)
    assert list(itertools.islice(values, 10)) == [(n + 100) ** 2 for n in range(10)]
    until(lambda: grid.queues[sid].qsize() == 2)  # it stands still, and keeps no server
    assert len(read) <= 10 + 50 + 4 * 5
    assert list(itertools.islice(values, 90)) == [(n + 100) ** 2 for n in range(10, 100)], "and it goes on"


@pytest.mark.row("G47")
def test_an_error_stays_with_its_item(grid: LocalGrid, sid: str) -> None:
    values = grid.map(sid, "square", [12, 13, 14], pack=3)
    assert next(values) == 144
    with pytest.raises(ValueError, match="unlucky") as caught:
        next(values)
    assert "in square" in str(caught.value.__cause__)
    assert next(values) == 196
    with pytest.raises(StopIteration):
        next(values)
    with pytest.raises(ValueError, match="unlucky"):
        grid.map(sid, "square", range(100)).get(20)
    good, bad = grid.map(sid, "square", [1, 13], return_exceptions=True)
    assert good == 1 and isinstance(bad, ValueError)


@pytest.mark.row("G43", "G47")
def test_what_cannot_travel_spoils_only_its_own_item(grid: LocalGrid, sid: str) -> None:
    there = list(grid.map(sid, "square", [2, threading.Lock(), 3], pack=3, return_exceptions=True))
    assert there[0] == 4 and isinstance(there[1], (TypeError, RemoteError)) and there[2] == 9
    (*_, generator), fine = grid.map(sid, "lock", [3, 4], pack=2, return_exceptions=True), 4
    assert generator == fine


@pytest.mark.row("G45")
def test_the_first_to_be_done_can_come_first(grid: LocalGrid, sid: str, tmp_path: Path) -> None:
    late = str(tmp_path / "late")
    values = grid.map(sid, "wait_for", [late, os.devnull, os.devnull]).unordered()
    assert sorted([next(values), next(values)]) == [(1, os.devnull), (2, os.devnull)]
    Path(late).touch()
    assert list(values) == [(0, late)]


@pytest.mark.row("G10", "G13")
def test_a_long_map_lets_others_have_servers(grid: LocalGrid, sid: str) -> None:
    values = grid.map(sid, "nap", [0.02] * 400)
    next(values)
    with grid.acquire_service(sid, timeout=20) as proxy:
        proxy.square(2).get(20)
    assert not values.done(), "it did not wait for the end of the map"
    with grid.group(sid, timeout=20) as everyone:
        assert len(everyone) == 2
    values.cancel()
    until(values.done)


@pytest.mark.row("G10")
def test_a_map_takes_no_more_servers_than_allowed(grid: LocalGrid, sid: str) -> None:
    assert len(set(grid.map(sid, "nap", [0.01] * 30, servers=1))) == 1
    assert len(set(grid.map(sid, "nap", [0.05] * 30))) == 2


@pytest.mark.row("G45")
def test_a_map_can_be_cancelled_or_dropped(grid: LocalGrid, sid: str) -> None:
    values = grid.map(sid, "nap", itertools.repeat(0.01))
    next(values)
    values.cancel()
    with pytest.raises(CancelledError):
        while True:
            next(values)
    until(values.done)
    dropped = grid.map(sid, "nap", itertools.repeat(0.01))
    next(dropped)
    del dropped
    gc.collect()
    until(lambda: grid.queues[sid].qsize() == 2)
    until(lambda: not any(thread.name == "grid-map" for thread in threading.enumerate()))


@pytest.mark.row("G46")
def test_a_map_that_is_not_ready_says_what_it_waits_for(grid: LocalGrid, sid: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    values = grid.map(sid, "wait_for", [str(go)], timeout=0.05)
    with pytest.raises(TimeoutError, match=r"item 0 .*wait_for"):
        until(lambda: bool(next(values)))
    with pytest.raises(TimeoutError):
        values.get(0.05)
    go.touch()
    assert values.get(20) == [str(go)]
    with grid.group(sid):
        starved = grid.map(sid, "square", [1], timeout=0.05)
        with pytest.raises(TimeoutError, match="no server is free"):
            next(starved)
    assert starved.get(20) == [1]


@pytest.mark.row("G48")
def test_items_that_die_with_their_server_fail_or_are_tried_again(tmp_path: Path) -> None:
    items = [(value, str(tmp_path / "once")) for value in range(10)]
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Worker(), restarts=4)
        assert sorted(value for _, value in g.map(sid, "die_of", items, retries=1).unordered()) == list(range(10))
        items = [(value, str(tmp_path / "again")) for value in range(10)]
        values = list(g.map(sid, "die_of", items, pack=1, return_exceptions=True))
        lost = [value for value in values if isinstance(value, ServerLost)]
        assert lost and [value for value in values if not isinstance(value, ServerLost)], values
        assert "SIGKILL" in str(lost[0])


@pytest.mark.row("G12", "G24")
def test_a_map_ends_with_its_service_and_its_grid() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Worker())
        values = g.map(sid, "nap", itertools.repeat(0.01))
        next(values)
        g.terminate(sid)
        with pytest.raises((NoServers, ServerLost, UnknownService)):
            until(lambda: next(values) == "never")
        values = g.map(g.publish(Worker()), "nap", itertools.repeat(0.01))
        next(values)
    with pytest.raises((GridStopped, NoServers, ServerLost)):
        until(lambda: next(values) == "never")


@pytest.mark.row("G12")
def test_nonsense_is_refused_at_once(grid: LocalGrid, sid: str) -> None:
    with pytest.raises(UnknownService):
        grid.map("nothing.0", "square", [1])
    with pytest.raises(ServiceError, match="no method"):
        grid.map(sid, "cube", [1])
    with pytest.raises(ServiceError, match="nothing to map"):
        grid.map(sid, "square")
    for bad in ({"pack": 0}, {"ahead": 0}, {"servers": 0}, {"retries": -1}):
        with pytest.raises(ValueError, match=r"that small|more than 0"):
            grid.map(sid, "square", [1], **bad)  # type: ignore[arg-type]


@pytest.mark.row("G47")
def test_an_iterable_that_raises_ends_the_map_with_its_error(grid: LocalGrid, sid: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("the file was cut")

    with pytest.raises(RuntimeError, match="the file was cut"):
        grid.map(sid, "square", items()).get(20)
    until(lambda: grid.queues[sid].qsize() == 2)


@pytest.mark.row("G14", "G67")
def test_a_quick_reply_does_not_wait_for_the_slow_call_behind_it(grid: LocalGrid, sid: str, tmp_path: Path) -> None:
    """Replies to calls that came in one batch go back together, but not at the price of time."""
    with grid.acquire_service(sid) as proxy:
        for _ in range(3):
            quick = [proxy.square(n + 100) for n in range(300)]
            slow = proxy.wait_for(str(tmp_path / "go"))
            behind = proxy.square(2)
            assert [result.get(20) for result in quick][-1] == 399**2, "while the slow call runs"
            assert not slow.done() and not behind.done()
            (tmp_path / "go").touch()
            assert slow.get(20) and behind.get(20) == 4
            (tmp_path / "go").unlink()


@pytest.mark.row("G14", "G67")
def test_calls_that_nobody_waits_for_run_all_the_same(grid: LocalGrid, sid: str) -> None:
    """Small calls of a burst wait for each other in an outbox, but not for somebody who waits."""
    seen: list[int] = []
    with grid.acquire_service(sid) as proxy:
        for n in range(333):
            proxy.square(n + 100).add_done_callback(lambda result: seen.append(result.result()))
        until(lambda: len(seen) == 333)
    # in no order: where a result has arrived already, its call-back runs at once, before those that wait for their turn
    assert sorted(seen) == [(n + 100) ** 2 for n in range(333)]


@pytest.mark.row("G45")
def test_a_bar_shows_how_far_a_map_is(grid: LocalGrid, sid: str) -> None:
    screen = io.StringIO()
    assert list(progress_bar(grid.map(sid, "echo", range(300)), file=screen, always=True)) == list(range(300))
    assert "echo" in screen.getvalue() and "300/300" in screen.getvalue()
    with grid.acquire_service(sid) as proxy:
        results = [proxy.echo(n) for n in range(3)]
        screen = io.StringIO()
        bar = progress_bar(iter(results), 7, label="three", file=screen, always=True)
        assert [result.get(30) for result in bar] == [0, 1, 2]
        assert "three" in screen.getvalue() and "3/7" in screen.getvalue()
    quiet = io.StringIO()
    assert list(progress_bar([1, 2], file=quiet)) == [1, 2] and quiet.getvalue() == ""
    unknown = io.StringIO()
    stopped = progress_bar(grid.map(sid, "echo", iter(range(50))), file=unknown, always=True)
    assert next(stopped) == 0
    stopped.close()  # type: ignore[attr-defined]
    assert "1/" in unknown.getvalue()
