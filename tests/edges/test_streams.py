"""Methods that yield: values one by one, in time, and what is lost with a server or a proxy."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from grid import AcquireTimeout, CallTimeout, GridError, LocalGrid, Released, ServerLost


class Sampler:
    """Counts what it made."""

    def __init__(self) -> None:
        self.made, self.ended = 0, 0

    def sample(self, upto: int, gate: str = "", fails: bool = False, dies: bool = False) -> Iterator[int]:
        """Numbers; at 3 it waits for a file, if one is named."""
        try:
            for number in range(upto):
                while gate and number == 3 and not os.path.exists(gate):
                    time.sleep(0.005)
                self.made += 1
                yield number
            if fails:
                raise ValueError("no more")
            if dies:
                while gate and not os.path.exists(gate):
                    time.sleep(0.005)
                os._exit(3)
            return "all"
        finally:
            self.ended += 1

    def arrays(self, count: int, size: int) -> Iterator[numpy.ndarray]:
        """Large values."""
        for number in range(count):
            yield numpy.full(size, number, dtype=float)

    def odd(self) -> Iterator[Any]:
        """The third can't travel."""
        yield 1
        yield 2
        yield (each for each in ())
        yield 4

    def zipped(self) -> Any:
        """No generator, but it can be iterated over."""
        return zip("ab", (1, 2), strict=True)

    async def asynchronous(self) -> Any:
        """Another kind."""
        yield 1

    def told(self) -> tuple[int, int]:
        """How many it made, how many generators have ended."""
        return self.made, self.ended


@pytest.fixture(scope="module")
def g() -> Iterator[LocalGrid]:
    with LocalGrid(1, output=None) as made:
        made.publish(Sampler())  # starts its agent
        yield made


@pytest.fixture
def proxy(g: LocalGrid) -> Iterator[Any]:
    service = g.publish(Sampler(), republish=True)
    with g.acquire_service(service) as made:
        yield made
    g.terminate(service)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.mark.row("A09")
def test_a_method_that_yields_gives_its_values_as_they_come(proxy: Any, tmp_path: Path) -> None:
    stream = proxy.sample(6, str(tmp_path / "gate"))
    assert [next(stream) for _ in range(3)] == [0, 1, 2], "they are here, and the generator still waits"
    with pytest.raises(CallTimeout):
        stream.next(0.01)
    (tmp_path / "gate").touch()
    assert list(stream) == [3, 4, 5] and stream.closed and stream.returned == "all"
    assert next(stream, None) is None and list(stream) == []
    assert proxy.sample(1000).get() == list(range(1000))
    assert [float(each[0]) for each in proxy.arrays(5, 200_000)] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert sum(each.sum() for each in proxy.stream("arrays", ahead=1)(3, 10)) == 30.0


@pytest.mark.row("A09")
def test_a_server_makes_as_many_values_ahead_as_it_may_and_no_more(proxy: Any) -> None:
    with proxy.stream("sample", ahead=4)(10**9) as stream:
        assert next(stream) == 0
        made, _ = proxy.told().get()
        assert 1 <= made <= 5, "four ahead of the one that was taken"
        assert [next(stream) for _ in range(100)] == list(range(1, 101))
        assert proxy.told().get()[0] <= 105
    assert proxy.told().get()[1] == 1, "its `finally` has run"
    stream.close()
    assert list(stream) == []


@pytest.mark.row("A09")
def test_an_error_comes_behind_the_values_before_it(proxy: Any) -> None:
    values = []
    with pytest.raises(ValueError, match="no more") as caught:
        for value in proxy.sample(20, fails=True):
            values.append(value)
    assert values == list(range(20)) and "in sample" in str(caught.value.__cause__)
    stream = proxy.odd()
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(GridError, match="generator"):
        next(stream)
    assert list(stream) == []
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        proxy.sample().get()
    with pytest.raises(TypeError, match="is an asynchronous generator"):
        proxy.stream("asynchronous")().get()
    assert proxy.stream("zipped")().get() == [("a", 1), ("b", 2)]
    with pytest.raises(ValueError, match="ahead must be at least 1"):
        proxy.stream("sample", ahead=0)


@pytest.mark.row("A09", "E02")
def test_a_lost_server_is_told_behind_the_values_that_had_arrived(g: LocalGrid, tmp_path: Path) -> None:
    with g.acquire_service(g.publish(Sampler(), republish=True, restarts=0)) as proxy:
        values = []
        with pytest.raises(ServerLost):
            for value in proxy.stream("sample", ahead=3)(3, dies=True, gate=str(tmp_path / "gate")):
                values.append(value)
                if value == 2:
                    (tmp_path / "gate").touch()
        assert values == [0, 1, 2]


@pytest.mark.row("A09", "G05")
def test_a_server_is_kept_for_its_streams_and_free_after_them(g: LocalGrid) -> None:
    service = g.publish(Sampler(), republish=True)
    proxy = g.acquire_service(service)
    stream = proxy.sample(10**9)
    g.release_service(proxy)
    with pytest.raises(Released):
        proxy.sample(1)
    assert [next(stream) for _ in range(50)] == list(range(50))
    with pytest.raises(AcquireTimeout):
        g.acquire_service(service, timeout=0.05)
    stream.close()
    with g.acquire_service(service, timeout=60) as proxy:
        assert proxy.told().get()[1] == 1
        stream = proxy.sample(10**9)
        next(stream)
        del stream  # nobody can want more
        gc.collect()
        until(lambda: proxy.told().get()[1] == 2)
    g.terminate(service)


@pytest.mark.row("A09")
def test_streams_in_asyncio_and_a_wait_that_is_cancelled_loses_nothing(proxy: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def run() -> list[int]:
        stream = proxy.sample(200, str(gate))
        values = [await stream.__anext__() for _ in range(3)]
        waiting = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(0.02)
        waiting.cancel()
        gate.touch()
        async for value in stream:
            values.append(value)
        return values

    assert asyncio.run(run()) == list(range(200))


@pytest.mark.row("A09")
def test_two_threads_share_a_stream_and_another_may_close_it(proxy: Any, tmp_path: Path) -> None:
    stream, found = proxy.sample(500), list[list[int]]()
    threads = [threading.Thread(target=lambda: found.append(list(stream))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found[0] + found[1]) == list(range(500))
    assert all(each == sorted(each) for each in found)
    stream = proxy.sample(10, str(tmp_path / "gate"))
    values: list[int] = []
    thread = threading.Thread(target=lambda: values.extend(stream))
    thread.start()
    until(lambda: len(values) == 3)
    stream.close()
    (tmp_path / "gate").touch()
    thread.join(60)
    assert not thread.is_alive() and values == [0, 1, 2]
