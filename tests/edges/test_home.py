"""A grid as an executor, as a pool and in asyncio: held against the originals of the standard library."""

from __future__ import annotations

import asyncio
import concurrent.futures as futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest

from grid import GridStopped, Limits, LocalGrid, SerialisationError, ServerLost, ServiceError, UnknownService
from grid.compat.crew import KEPT, crew_of


def square(value: float) -> float:
    if value == 13:
        raise ValueError("unlucky")
    return value * value


def add(one: int, other: int, *, offset: int = 0) -> int:
    return one + other + offset


def process(_: object = None) -> int:
    return os.getpid()


def wait_for(path: str) -> str:
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return path


def say_and_wait_for(word: str, path: str) -> str:
    Path(word).touch()
    return wait_for(path)


def die_once(path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Model:
    """Can be published, submitted as a callable, and counts how often it is pickled."""

    pickled = 0

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __getstate__(self) -> dict[str, Any]:
        Model.pickled += 1
        return self.__dict__

    def __call__(self, value: int) -> int:
        return self.scale * value

    def times(self, value: int) -> int:
        return self.scale * value


class Spring:
    """Can be made here, and not on a server."""

    def __reduce__(self) -> Any:
        return _snap, ()

    def __call__(self, value: int) -> int:
        return value


def _snap() -> Spring:
    if "GRID_SERVER" in os.environ:
        raise RuntimeError("it snapped on the way")
    return Spring()


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as g:
        crew_of(g)
        yield g


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        executor.submit(int).result(30)
        yield executor


@pytest.fixture(autouse=True)
def calm(grid: LocalGrid, tidy: None) -> Iterator[None]:
    """Nothing is under way when a test ends: every server is free again."""
    yield
    if not grid.ishalted():
        until(lambda: all(grid.queues[sid].qsize() == len(grid.servers[sid]) for sid in grid.servers))
        until(lambda: not any(thread.name == "grid-map" for thread in threading.enumerate()))


def until(condition: Callable[[], bool], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def both(grid: LocalGrid, other: Executor, what: Callable[[Executor], Any]) -> tuple[Any, Any]:
    """What comes of it with a grid's executor, and with the standard one; errors as class and text."""

    def outcome(executor: Executor) -> Any:
        try:
            return what(executor)
        except Exception as exc:
            return type(exc), str(exc)

    with grid.executor() as executor:
        return outcome(executor), outcome(other)


@pytest.mark.row("G43", "G45")
@pytest.mark.parametrize(
    "what",
    [
        lambda e: e.submit(add, 1, 2, offset=3).result(20),
        lambda e: e.submit(pow, 2, 10).result(20),
        lambda e: e.submit(square, 13).result(20),
        lambda e: type(e.submit(square, 13).exception(20)),
        lambda e: sorted(f.result() for f in futures.as_completed([e.submit(square, n) for n in range(9)], 20)),
        lambda e: [len(s) for s in futures.wait([e.submit(square, n) for n in range(9)], 20)],
        lambda e: isinstance(e.submit(square, 1), futures.Future),
        lambda e: list(e.map(add, range(7), range(5), timeout=20)),
        lambda e: list(e.map(square, range(100), chunksize=7, timeout=20)),
        lambda e: list(e.map(square, [])),
        lambda e: list(e.map(square, [12, 13, 14], timeout=20)),
        lambda e: list(e.map(square, [1], chunksize=0)),
        lambda e: next(iter(e.map(time.sleep, [1.5], timeout=0.02))),
        lambda e: e.submit(partial(add, 1, offset=5), 2).result(20),
    ],
)
def test_an_executor_does_what_the_standard_one_does(
    grid: LocalGrid, processes: ProcessPoolExecutor, what: Callable[[Executor], Any]
) -> None:
    ours, theirs = both(grid, processes, what)
    if isinstance(theirs, tuple) and theirs and isinstance(theirs[0], type) and issubclass(theirs[0], TimeoutError):
        assert issubclass(ours[0], TimeoutError)
    else:
        assert ours == theirs


@pytest.mark.row("G43")
def test_functions_go_by_value_and_their_errors_come_with_a_traceback(grid: LocalGrid) -> None:
    offset = 5
    with grid.executor() as executor:
        assert executor.submit(lambda value: value + offset, 2).result(20) == 7
        assert list(executor.map(lambda a, b: a * b + offset, range(50), range(50))) == [n * n + 5 for n in range(50)]
        error = executor.submit(square, 13).exception(20)
        assert "in square" in str(error.__cause__)
        lock = threading.Lock()

        def locked() -> None:
            lock.acquire()

        generator = (n for n in range(3))
        with pytest.raises((SerialisationError, TypeError)):
            executor.submit(next, generator).result(20)


@pytest.mark.row("G43")
def test_a_function_is_shipped_once_to_each_server_and_again_when_it_has_changed(grid: LocalGrid) -> None:
    model = Model(2)
    with grid.pool() as pool:
        assert pool.map(model, range(1000), chunksize=10) == [2 * n for n in range(1000)]
        shipped = {server.name for server in next(reversed(crew_of(grid).functions._known.values())).on}
        assert 1 <= len(shipped) <= 2
        assert Model.pickled <= 1 + 2  # to know it, and to each server
        before = Model.pickled
        assert pool.map(model.times, range(100)) == [2 * n for n in range(100)]
        assert pool.map(model, range(1000), chunksize=10) == [2 * n for n in range(1000)]
        assert Model.pickled <= before + 2 + 3
        model.scale = 3
        assert pool.map(model, range(10)) == [3 * n for n in range(10)]
        assert pool.map(model.times, range(10)) == [3 * n for n in range(10)]


@pytest.mark.row("G43")
def test_functions_that_nobody_uses_any_more_are_forgotten(grid: LocalGrid) -> None:
    crew = crew_of(grid)
    with grid.executor() as executor:
        for round_ in range(2 * KEPT):
            assert executor.submit(lambda value, round_=round_: value + round_, 1).result(20) == 1 + round_
    assert len(crew.functions._known) <= KEPT + 1
    held = vars_of_servers(grid, crew.service_id)
    assert all(count <= KEPT + 2 for count in held), held


def vars_of_servers(grid: LocalGrid, service_id: str) -> list[int]:
    """How many functions each server holds, once it has been told what to forget."""
    with grid.executor() as executor:
        futures.wait([executor.submit(int) for _ in range(8)])
    counts = []
    with grid.group(service_id) as proxies:
        for proxy in proxies:
            counts.append(proxy._call("run", (_count, (), {}), {}).get(20))
    return counts


def _count() -> int:
    import gc

    (runner,) = [thing for thing in gc.get_objects() if type(thing).__name__ == "Runner"]
    return len(vars(runner))


@pytest.mark.row("G43")
def test_a_function_that_cannot_arrive_says_why_in_its_future_and_the_next_goes_on(grid: LocalGrid) -> None:
    with grid.executor() as executor, grid.pool() as pool:
        with pytest.raises(RuntimeError, match="snapped"):
            executor.submit(Spring(), 1).result(20)
        with pytest.raises(RuntimeError, match="snapped"):
            pool.map(Spring(), [1, 2, 3])
        assert executor.submit(square, 3).result(20) == 9


@pytest.mark.row("G13", "G44")
def test_an_executor_for_a_service_calls_its_methods(grid: LocalGrid) -> None:
    sid = grid.publish(Model(7))
    with grid.executor(sid) as executor:
        assert executor.submit("times", 6).result(20) == 42
        assert executor.submit("__call__", 6).result(20) == 42
        assert executor.submit(square, 6).result(20) == 36
        assert list(executor.map("times", range(5))) == [7 * n for n in range(5)]
        with pytest.raises(ServiceError, match="no method 'divide'"):
            executor.submit("divide", 6)
    assert sid in grid.servers, "it is not the executor's"
    grid.terminate(sid)
    with pytest.raises(UnknownService):
        grid.executor(sid)
    with grid.executor() as executor, pytest.raises(ServiceError, match="make g"):
        executor.submit("times", 6)
    with pytest.raises(TypeError, match="a service id or a callable"):
        grid.executor(3)  # type: ignore[arg-type]


@pytest.mark.row("G06", "G24")
def test_an_executor_for_a_callable_publishes_it_and_withdraws_it(grid: LocalGrid) -> None:
    model = Model(3)
    before = set(grid.servers)
    with grid.executor(model) as executor:
        (sid,) = set(grid.servers) - before
        assert executor.submit(model, 5).result(20) == 15
        assert list(executor.map(model, range(4))) == [0, 3, 6, 9]
        assert executor.submit("times", 5).result(20) == 15
    assert sid not in grid.servers


@pytest.mark.row("G45")
def test_a_future_that_waits_can_be_cancelled_and_shutdown_can_cancel_all(grid: LocalGrid, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    executor = grid.executor()
    running = [executor.submit(wait_for, gate) for _ in range(2)]
    until(lambda: all(future.running() for future in running))
    waiting = [executor.submit(square, n) for n in range(20)]
    assert waiting[3].cancel() and waiting[3].cancelled()
    assert not running[0].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.map(square, [1])
    Path(gate).touch()
    executor.shutdown()
    assert [future.result(0) for future in running] == [gate, gate]


@pytest.mark.row("G10", "G13")
def test_a_call_behind_a_long_one_goes_to_another_server(grid: LocalGrid, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with grid.executor() as executor:
        futures.wait([executor.submit(square, n) for n in range(200)])  # calls are known to be short
        long = executor.submit(wait_for, gate)
        short = [executor.submit(square, n) for n in range(200, 300)]
        assert [future.result(20) for future in short] == [n * n for n in range(200, 300)]
        assert not long.done()
        Path(gate).touch()


@pytest.mark.row("G48")
def test_a_call_whose_server_died_fails_or_is_made_again() -> None:
    with LocalGrid(2, output=None) as g:
        with g.executor() as executor:
            with pytest.raises(ServerLost):
                executor.submit(die, 1).result(20)
            assert executor.submit(square, 3).result(20) == 9


@pytest.mark.row("G48")
def test_what_died_with_its_server_is_tried_again_where_that_is_allowed(tmp_path: Path) -> None:
    with LocalGrid(3, output=None) as g:
        once = str(tmp_path / "once")
        with g.executor(retries=1) as executor:
            assert executor.submit(die_once, once).result(30) == once
        twice = str(tmp_path / "twice")
        with g.pool(retries=1) as pool:
            assert pool.map(die_once, [twice]) == [twice]


@pytest.mark.row("G23", "G24")
def test_after_the_end_of_the_grid_nobody_waits_in_vain(tmp_path: Path) -> None:
    with LocalGrid(1, output=None, limits=Limits(stop_s=0.5)) as g:
        executor, pool = g.executor(), g.pool()
        later = [executor.submit(wait_for, str(tmp_path / "never")) for _ in range(3)]
        until(lambda: later[0].running())
        g.terminate()  # leaving the `with` finishes them
    for future in later:
        assert future.exception(20) is not None
    with pytest.raises(GridStopped):
        executor.submit(square, 2)
    with pytest.raises(GridStopped):
        pool.map(square, [2])
    with pytest.raises(GridStopped):
        g.pool()


# -- pools ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> Iterator[Pool]:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        yield pool


@pytest.mark.row("G43", "G45")
@pytest.mark.parametrize(
    "what",
    [
        lambda p: p.map(square, range(50)),
        lambda p: p.map(square, iter(range(50)), 7),
        lambda p: p.map(square, [12, 13, 14]),
        lambda p: p.map(square, []),
        lambda p: p.starmap(add, [(1, 2), (3, 4)]),
        lambda p: list(p.imap(square, range(20))),
        lambda p: sorted(p.imap_unordered(square, range(20), chunksize=3)),
        lambda p: p.apply(add, (1, 2), {"offset": 5}),
        lambda p: p.apply(square, (13,)),
        lambda p: p.apply_async(square, (4,)).get(20),
        lambda p: p.map_async(square, range(5)).get(20),
        lambda p: p.map_async(square, [13]).get(20),
        lambda p: p.starmap_async(add, [(1, 2)]).get(20),
        lambda p: p.imap(square, [1], 0),
        lambda p: p.join(),
    ],
)
def test_a_pool_does_what_the_standard_one_does(grid: LocalGrid, theirs: Pool, what: Callable[[Any], Any]) -> None:
    assert_alike(grid, theirs, what)


@pytest.mark.row("G43", "G45")
@pytest.mark.parametrize(
    "what",
    [
        lambda p: p.apply_async(time.sleep, (1.5,)).get(0.01),
        lambda p: p.apply_async(time.sleep, (1.5,)).successful(),
        lambda p: p.imap(time.sleep, [1.5]).next(0.01),
    ],
)
def test_a_pool_that_ends_while_calls_run_does_what_the_standard_one_does(
    theirs: Pool, what: Callable[[Any], Any]
) -> None:
    with LocalGrid(1, output=None) as own:  # its server is replaced
        assert_alike(own, theirs, what)


def assert_alike(grid: LocalGrid, theirs: Pool, what: Callable[[Any], Any]) -> None:
    def outcome(pool: Any) -> Any:
        try:
            return what(pool)
        except Exception as exc:
            return type(exc)

    with grid.pool() as pool:
        assert outcome(pool) == outcome(theirs)


@pytest.mark.row("G47")
def test_an_iteration_goes_on_after_an_item_that_failed(grid: LocalGrid, theirs: Pool) -> None:
    def outcomes(values: Any) -> list[Any]:
        seen: list[Any] = []
        while True:
            try:
                seen.append(values.next(20))
            except StopIteration:
                return seen
            except ValueError as exc:
                seen.append(str(exc))

    with grid.pool() as pool:
        assert outcomes(pool.imap(square, range(11, 16))) == outcomes(theirs.imap(square, range(11, 16)))
        assert set(outcomes(pool.imap_unordered(square, range(11, 16)))) == {121, 144, "unlucky", 196, 225}


@pytest.mark.row("G45")
def test_call_backs_hear_of_values_and_errors(grid: LocalGrid) -> None:
    heard: list[Any] = []
    with grid.pool() as pool:
        one = pool.apply_async(square, (3,), callback=heard.append, error_callback=heard.append)
        one.wait(20)
        assert one.ready() and one.successful() and heard == [9]
        two = pool.map_async(square, [12, 13], callback=heard.append, error_callback=heard.append)
        two.wait(20)
        assert not two.successful() and isinstance(heard[1], ValueError)
        three = pool.starmap_async(add, [(1, 2)], callback=heard.append)
        three.wait(20)
        assert heard[2] == [3]


@pytest.mark.row("G24")
def test_a_closed_pool_takes_nothing_and_join_waits_for_the_rest(grid: LocalGrid, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    pool = grid.pool()
    assert pool._processes == 2
    late = pool.apply_async(wait_for, (gate,))
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.map(square, [1])
    with pytest.raises(ValueError, match="not running"), pool:
        pass
    Path(gate).touch()
    pool.join()
    assert late.get(0) == gate


@pytest.mark.row("G24")
def test_a_terminated_pool_withdraws_what_has_not_begun_and_ends_what_runs(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with LocalGrid(2, output=None) as own:
        with own.pool() as pool:
            running = [pool.apply_async(say_and_wait_for, (f"{tmp_path}/{n}", gate)) for n in range(2)]
            until(lambda: len(list(tmp_path.iterdir())) == 2)
            never = [pool.apply_async(square, (n,)) for n in range(4)]
            values = pool.imap(square, range(100))
        for outcome in never:
            with pytest.raises(futures.CancelledError):
                outcome.get(20)
        with pytest.raises(futures.CancelledError):
            next(values)
        for outcome in running:  # nobody has opened the gate
            with pytest.raises(BrokenProcessPool, match="ended"):
                outcome.get(20)
        pool.join()
        assert own.pool().map(square, range(5)) == [0, 1, 4, 9, 16]
        assert not own.failures


@pytest.mark.row("G45")
def test_endless_items_are_read_no_further_than_needed(grid: LocalGrid) -> None:
    def numbers() -> Iterator[int]:
        number = 100
        while True:
            yield number
            number += 1

    with grid.executor() as executor:
        values = executor.map(square, numbers(), buffersize=20)
        assert [next(values) for _ in range(50)] == [n * n for n in range(100, 150)]
        values.close()  # type: ignore[attr-defined]


@pytest.mark.row("G45")
def test_a_million_tiny_items_cost_little(grid: LocalGrid) -> None:
    items = range(100, 200_100)
    with grid.pool() as pool:
        pool.map(square, items)
        began = time.perf_counter()
        there = pool.map(square, items)
        spent = time.perf_counter() - began
    began = time.perf_counter()
    here = [square(item) for item in items]
    alone = time.perf_counter() - began
    assert there == here
    assert spent < 50 * alone, (spent, alone)  # 3.6 times on a quiet machine; one call each would take 500 times


# -- asyncio -------------------------------------------------------------------------------------------------------


@pytest.mark.row("G45", "G47")
def test_a_map_can_be_awaited_and_iterated_over_in_asyncio(grid: LocalGrid, tmp_path: Path) -> None:
    sid = grid.publish(square)
    gate = str(tmp_path / "gate")
    waits = grid.publish(wait_for)

    async def main() -> None:
        assert await grid.map(sid, "__call__", range(20, 40)) == [n * n for n in range(20, 40)]
        assert [value async for value in grid.map(sid, "__call__", range(5))] == [0, 1, 4, 9, 16]
        with pytest.raises(ValueError, match="unlucky"):
            await grid.map(sid, "__call__", [12, 13, 14])
        (*_, last) = await grid.map(sid, "__call__", [12, 13], return_exceptions=True)
        assert isinstance(last, ValueError)
        late = asyncio.ensure_future(collect(grid.map(waits, "__call__", [gate])))
        ticks = 0
        while not late.done():  # the loop goes on meanwhile
            await asyncio.sleep(0)
            ticks += 1
            if ticks == 50:
                Path(gate).touch()
        assert await late == [gate] and ticks >= 50
        cancelled = grid.map(sid, "__call__", range(10**9))
        assert await cancelled.__anext__() == 0
        cancelled.cancel()
        with pytest.raises(futures.CancelledError):
            await cancelled
        executor = grid.executor()
        loop = asyncio.get_running_loop()
        assert await asyncio.gather(*(loop.run_in_executor(executor, add, n, n) for n in range(5))) == [0, 2, 4, 6, 8]

    async def collect(values: Any) -> list[Any]:
        return await values

    asyncio.run(asyncio.wait_for(main(), 60))
    grid.terminate(sid)
    grid.terminate(waits)


@pytest.mark.row("G45")
def test_a_task_that_stops_waiting_for_a_map_leaves_nothing(grid: LocalGrid, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    waits = grid.publish(wait_for)

    async def main() -> None:
        values = grid.map(waits, "__call__", [gate, gate])
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(values.__anext__(), 0.05)
        assert not values._mapping.changed.watchers
        Path(gate).touch()
        assert await values == [gate, gate]

    asyncio.run(main())
    grid.terminate(waits)
