"""A grid as a `multiprocessing.Pool`, for whatever takes one (`pool=`, `workers=pool.map`).

    with g.pool() as pool:
        energies = pool.map(energy, poses)

Items travel in packs whose size follows the time that a call takes, where no `chunksize` says otherwise. The processes
are the grid's servers: they go on when the pool ends.

Lives here: the interface, with the errors of `multiprocessing`. Elsewhere: the work (`work`).
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.pool
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.compat.crew import Function, Publishes, check_handed, crew_of, initializer_of
from grid.compat.errors import PoolTraceback, told
from grid.compat.quick import MissingValue, small_map
from grid.compat.work import FunctionMap, PooledCalls
from grid.errors import CallTimeout
from grid.services.handing import NoValue
from grid.services.mapping import MapResult

if TYPE_CHECKING:
    from typing_extensions import Self

    _Pool = object  # what it says of its arguments and values is less than is true here
else:
    _Pool = multiprocessing.pool.Pool

logger = logging.getLogger(__name__)

_AHEAD = 100_000
"""Values of `imap` that wait to be fetched, at most."""

_SMALL = 100_000
"""Items of a map that may be a small one; of more no list is made."""

WITHDRAWN_S = 2.0
"""`terminate` waits no longer than this for hosts to tell that they have taken work back."""

_TimeUp: type[Exception] = multiprocessing.TimeoutError

_Callback = Callable[[Any], Any]


class GridPool(_Pool):
    """See the module; made by `AbstractGrid.pool`, which tells the arguments.

    It is a `multiprocessing.pool.Pool` for those who ask (Dask does), and uses nothing of that class.
    """

    def __init__(
        self,
        grid: Publishes,
        *,
        retries: int = 0,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        self._state = "NEW"
        check_handed(grid, retries)
        self._initializer = initializer_of(initializer, initargs)
        self._crew = crew_of(grid)
        self._retries = retries
        self._calls = PooledCalls(self._crew.service, self._crew, retries, self._initializer)
        self._maps: weakref.WeakSet[FunctionMap] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._state = "RUN"

    @property
    def _processes(self) -> int:
        """How many servers there are when all hosts are up; samplers look at it."""
        return self._crew.size

    size = _processes

    @property
    def _pool(self) -> list[int]:
        """One entry for each server: dask counts them."""
        return list(range(self._processes))

    # what schwimmbad's pools have, and programs ask that were written for MPI: here is always the master

    rank = 0
    comm = None

    def is_master(self) -> bool:
        """Whether this process hands out the work: yes."""
        return True

    def is_worker(self) -> bool:
        """Whether this process is given work by the pool: no."""
        return False

    def wait(self, *_: Any, **__: Any) -> None:
        """For MPI programs, where workers wait in it. Here it returns at once."""

    @staticmethod
    def enabled() -> bool:
        """Whether such a pool can be had."""
        return True

    def _map(
        self,
        function: Callable[..., Any] | Function,
        items: Iterable[Any],
        *,
        star: bool = False,
        chunksize: int | None = None,
        ahead: int | None = None,
        then: Callable[[FunctionMap], None] | None = None,
    ) -> FunctionMap:
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        with self._lock:
            self._check_running()
            bounds = {} if ahead is None else {"ahead": ahead}
            work = FunctionMap(
                self._crew,
                function,
                items,
                star=star,
                pack=chunksize,
                whole_packs=chunksize is not None,
                retries=self._retries,
                initializer=self._initializer,
                then=then,
                **bounds,
            )
            self._maps.add(work)
        return work

    def _check_running(self) -> None:
        if self._state != "RUN":
            raise ValueError("Pool not running")

    # -- one call --------------------------------------------------------------------------------------------------

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> Any:
        """`func(*args, **kwds)` on a server; waits for it."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: _Callback | None = None,
        error_callback: _Callback | None = None,
    ) -> AsyncResult:
        """The same without waiting. Call-backs run in a thread of the pool's, and must not wait for other results."""
        with self._lock:
            self._check_running()
            outcome = AsyncResult(callback, error_callback)
            outcome._work = self._calls
            future = self._calls.run(func, tuple(args), dict(kwds or {}))
        future.add_done_callback(outcome._take)
        return outcome

    # -- many ------------------------------------------------------------------------------------------------------

    def map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        callback: _Callback | None = None,
    ) -> list[Any]:
        """Values of all items, as a list; raises the error of the first that failed.

        Args:
            callback: Called with each value, after all have arrived; as in schwimmbad's pools.
        """
        values = self._everything(func, iterable, chunksize, star=False)
        if callback is not None:
            for value in values:
                callback(value)
        return values

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """The same, each item spread as arguments."""
        return self._everything(func, iterable, chunksize, star=True)

    def _everything(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, *, star: bool
    ) -> list[Any]:
        items = _sized(iterable)
        if chunksize is None and self._initializer is None and len(items) <= _SMALL:
            return self._at_once(func, items if isinstance(items, (list, tuple)) else list(items), star=star)
        return self._wait_for(self._map(func, items, star=star, chunksize=chunksize))

    def _wait_for(self, work: FunctionMap) -> list[Any]:
        try:
            return MapResult(work, timeout=None, return_exceptions=False).get()
        except KeyboardInterrupt:  # wherever it came: nobody holds the map who could withdraw it
            work.cancel()
            raise
        except Exception as exc:
            error = told(exc, PoolTraceback)
            raise error from error.__cause__

    def _at_once(self, func: Callable[..., Any], items: Sequence[Any], *, star: bool) -> list[Any]:
        """The caller's own thread makes a small map; what it can't do, and any other map, is made in the usual way."""
        with self._lock:
            self._check_running()
        function = self._crew.take(func)
        try:
            outcomes = small_map(self._crew, function, items, star=star)
            if outcomes is None:
                return self._wait_for(self._map(self._crew.share(function), items, star=star))
            left = [at for at, outcome in enumerate(outcomes) if type(outcome) is MissingValue]
            if left:
                self._once_more(function, items, outcomes, left, star=star)
        finally:
            self._crew.give_back(function)
        for outcome in outcomes:
            if type(outcome) is NoValue:
                error = told(outcome.error, PoolTraceback)
                raise error from error.__cause__
        return outcomes

    def _once_more(
        self, function: Function, items: Sequence[Any], outcomes: list[Any], left: Sequence[int], *, star: bool
    ) -> None:
        """Items whose server died run again where that is allowed, those that were not sent run in any case."""
        again = [at for at in left if outcomes[at].lost is None or self._retries > 0]
        for at in set(left).difference(again):
            outcomes[at] = NoValue(outcomes[at].lost)
        if again:
            work = self._map(self._crew.share(function), [items[at] for at in again], star=star, chunksize=1)
            values = MapResult(work, timeout=None, return_exceptions=False)
            for at in again:
                try:
                    outcomes[at] = next(values)
                except Exception as exc:
                    outcomes[at] = NoValue(exc)

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: _Callback | None = None,
        error_callback: _Callback | None = None,
    ) -> AsyncResult:
        """`map` without waiting."""
        return self._later(func, iterable, chunksize, callback, error_callback, star=False)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: _Callback | None = None,
        error_callback: _Callback | None = None,
    ) -> AsyncResult:
        """`starmap` without waiting."""
        return self._later(func, iterable, chunksize, callback, error_callback, star=True)

    def _later(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: _Callback | None,
        error_callback: _Callback | None,
        *,
        star: bool,
    ) -> AsyncResult:
        outcome = AsyncResult(callback, error_callback)
        outcome._work = self._map(func, _sized(iterable), star=star, chunksize=chunksize, then=outcome._take_map)
        return outcome

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> IMap:
        """Values in the order of the items, as they come. A failed item raises; the iteration can go on after it."""
        return IMap(self._map(func, iterable, chunksize=chunksize, ahead=_AHEAD))

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> UnorderedIMap:
        """The same, the first to be done first."""
        return UnorderedIMap(self._map(func, iterable, chunksize=chunksize, ahead=_AHEAD))

    # -- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more work; present work is finished."""
        with self._lock:
            if self._state == "RUN":
                self._state = "CLOSE"
        self._calls.close()

    def terminate(self) -> None:
        """Take no more work, withdraw what has not begun, and end the calls that run: their servers are replaced.

        When it returns, nothing begins any more on hosts that answer within `WITHDRAWN_S`. On a grid of another engine
        (`DaskGrid`) calls that run are finished, and their values dropped.
        """
        with self._lock:
            self._state = "TERMINATE"
            maps = list(self._maps)
        self._calls.end_running()
        ending = [work for work in maps if not work.ended]
        for work in ending:
            work.end_running()
        limit = time.monotonic() + WITHDRAWN_S
        self._calls.wait_withdrawn(WITHDRAWN_S)
        for work in ending:
            work.wait_withdrawn(max(0.0, limit - time.monotonic()))

    def join(self) -> None:
        """Wait until all work is done; after `close` or `terminate`."""
        if self._state == "RUN":
            raise ValueError("Pool is still running")
        self._calls.join()
        for work in list(self._maps):
            work.join()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __del__(self) -> None:
        """Nothing: the servers are the grid's."""

    def __repr__(self) -> str:
        return f"<GridPool state={self._state} pool_size={self._processes}>"


def _sized(iterable: Any) -> Any:
    return iterable if hasattr(iterable, "__len__") else list(iterable)


class AsyncResult:
    """A result that will come, as `multiprocessing.pool.AsyncResult`."""

    def __init__(self, callback: _Callback | None, error_callback: _Callback | None) -> None:
        self._callback, self._error_callback = callback, error_callback
        self._event = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self._work: FunctionMap | PooledCalls | None = None  # what it waits for; dropped once it is there

    def ready(self) -> bool:
        """Whether it has arrived."""
        return self._event.is_set()

    def successful(self) -> bool:
        """Whether it has arrived without an error. Raises ValueError before it has arrived."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait for it, for `timeout` seconds at most."""
        self._event.wait(timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Wait and return the value, or raise its error; `multiprocessing.TimeoutError` when time is up."""
        self.wait(timeout)
        if not self.ready():
            work = self._work
            raise _TimeUp(f"not ready after {timeout or 0:g} s" + (f": {work.why()}" if work is not None else ""))
        if self._error is not None:
            raise self._error
        return self._value

    def _set(self, value: Any, error: BaseException | None) -> None:
        error = None if error is None else told(error, PoolTraceback)
        self._value, self._error = value, error
        callback, what = (self._callback, value) if error is None else (self._error_callback, error)
        try:
            if callback is not None:
                callback(what)
        except Exception:
            logger.exception("a call-back of a pool failed")
        finally:
            self._work = None
            self._event.set()

    def _take(self, future: Future[Any]) -> None:
        if future.cancelled():
            self._set(None, CancelledError("the pool was terminated"))
        else:
            error = future.exception()
            self._set(None if error is not None else future.result(), error)

    def _take_map(self, work: FunctionMap) -> None:
        try:
            value = MapResult(work, timeout=None, return_exceptions=False).get(0)
        except BaseException as exc:
            self._set(None, exc)
        else:
            self._set(value, None)


class IMap(Iterator[Any]):
    """Values in the order of the items."""

    def __init__(self, work: FunctionMap) -> None:
        self._values = MapResult(work, timeout=None, return_exceptions=False)

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next value; `multiprocessing.TimeoutError` after `timeout` seconds, and it can be asked again."""
        self._values._timeout = timeout
        at = self._values._at
        try:
            return next(self._values)
        except CallTimeout as exc:
            if self._values._at > at:
                raise  # a call's own
            raise _TimeUp(str(exc)) from None
        except StopIteration:
            raise
        except Exception as exc:
            error = told(exc, PoolTraceback)
            raise error from error.__cause__


class UnorderedIMap(Iterator[Any]):
    """Values as they come."""

    def __init__(self, work: FunctionMap) -> None:
        self._work = work
        self._keeps = MapResult(work, timeout=None, return_exceptions=False)  # dropping it ends the map
        self._current: deque[Any] = deque()

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The value of an item that is done; `multiprocessing.TimeoutError` after `timeout` seconds."""
        if self._current:
            outcome = self._current.popleft()
            if type(outcome) is NoValue:
                error = told(outcome.error, PoolTraceback)
                raise error from error.__cause__
            return outcome
        deadline = None if timeout is None else time.monotonic() + timeout
        work = self._work
        with work.changed:
            while not work.outcomes:
                if work.failure is not None:
                    raise told(work.failure, PoolTraceback)
                if work.ended:
                    raise StopIteration
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise _TimeUp(work.why())
                work.wait(left)
            first = next(iter(work.outcomes))
            outcomes = work.outcomes.pop(first)
            work.fetched += len(outcomes)
        work.handing.poke()
        self._current = deque(outcomes)
        return self.next(timeout)
