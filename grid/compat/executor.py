"""A grid as a `concurrent.futures.Executor`.

    with g.executor() as executor:
        futures = [executor.submit(energy, pose) for pose in poses]
        for future in as_completed(futures):
            print(future.result())

Futures are of the standard kind: `wait`, `as_completed`, `asyncio.wrap_future` and `loop.run_in_executor` take them.

Lives here: the interface. Elsewhere: who makes the calls (`work`), which server has which function (`crew`).
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.compat.crew import RESTARTS, Crew, Publishes, check_handed, crew_of, initializer_of
from grid.compat.errors import told
from grid.compat.work import EVERYTHING, FunctionMap, PooledCalls
from grid.errors import ServiceError
from grid.services.mapping import MapResult, MapWork, map_over
from grid.services.unfinished import Source, wait_for

if TYPE_CHECKING:
    from grid.services.service import Service


_TELL_SOON_S = 3.0
"""After an error the user waits for an end and not for results."""
_STILL = (
    "{} has ended the block of this executor, which waits for calls that it was given: %s. Ctrl-C withdraws those that "
    "have not begun, and ends those that run; shutdown(cancel_futures=True) within the block does the first alone"
)


class GridExecutor(ProcessPoolExecutor):
    """See the module; made by `AbstractGrid.executor`, which tells the arguments.

    It is a `ProcessPoolExecutor` for those who ask (adaptive does, to learn how many workers there are), and uses
    nothing of that class. What has been submitted is finished before the grid ends, also where nobody waits for it.
    """

    def __init__(
        self,
        grid: Publishes,
        target: str | Callable[..., Any] | None = None,
        *,
        retries: int = 0,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        check_handed(grid, retries)
        self._grid, self._retries = grid, retries
        self._init = initializer_of(initializer, initargs)
        self._target: object = None
        self._ours: str | None = None  # a service that ends with us
        self._service: Service | None = None
        if target is not None and self._init is not None:
            raise ValueError("an initializer is for functions; what a service needs its instance can do itself")
        if isinstance(target, str):
            self._service = grid._service(target)
        elif target is not None:
            if not callable(target):
                raise TypeError(f"an executor is for a service id or a callable, not for {target!r:.100}")
            before = set(grid.servers)
            service_id = grid._publish_lasting(target, RESTARTS)
            self._target, self._service = target, grid._service(service_id)
            self._ours = service_id if service_id not in before else None
        self._lock = threading.Lock()
        self._closed = False
        self._functions: PooledCalls | None = None
        self._methods: PooledCalls | None = None
        if self._service is not None:
            self._methods = self._finished(PooledCalls(self._service, None, retries))
        self._maps: weakref.WeakSet[MapWork] = weakref.WeakSet()
        self._crew: Crew | None = None if self._service is not None else crew_of(grid)

    def _finished(self, calls: PooledCalls) -> PooledCalls:
        self._grid.unfinished.add(calls)
        return calls

    @property
    def _max_workers(self) -> int:
        return max(1, self._grid.n_hosts)

    @property
    def _broken(self) -> bool:  # type: ignore[override]
        return self._functions is not None and self._functions.broken is not None

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._grid._ending.exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _crew_now(self) -> Crew:
        if self._crew is None:
            self._crew = crew_of(self._grid)
        return self._crew

    def submit(self, fn: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have `fn(*args, **kwargs)` run on a server that is free; returns at once.

        Args:
            fn: A function, by value if it must be. With a service: also the name of a method of its instance; with a
                callable: also that callable itself, which its servers hold already.
        Raises:
            RuntimeError: After `shutdown`, and (GridStopped) after the grid was terminated.
            BrokenExecutor: The initializer failed on a server.
            ServiceError: A name, and this executor has no service, or its instance no such method.
        """
        with self._lock:
            self._open()
            if isinstance(fn, str):
                return self._named().make(self._method(fn), args, kwargs)
            if self._methods is not None and fn is self._target:
                return self._methods.make("@call", args, kwargs)
            if self._functions is None:
                crew = self._crew_now()
                self._functions = self._finished(PooledCalls(crew.service, crew, self._retries, self._init))
            return self._functions.run(fn, args, kwargs)

    def _named(self) -> PooledCalls:
        if self._methods is None:
            raise ServiceError(
                "this executor runs functions", service_id="(none)", hint="Pass a function, or make g.executor(sid)"
            )
        return self._methods

    def _method(self, name: str) -> str:
        assert self._service is not None
        self._service.check_method(name)
        return "@call" if name == "__call__" else name

    def map(
        self,
        fn: Callable[..., Any] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Values of `fn` for the items, in their order.

        The iterables are read at once, unless `buffersize` is given. The first error ends the iteration, and what has
        not begun is withdrawn. Without `buffersize` all calls are made, also where nobody iterates.

        Args:
            timeout: Seconds from now on for the whole.
            chunksize: Items that travel together; None: found out, so that tiny calls cost little.
            buffersize: Values that wait to be fetched, at most; the iterables may then be endless.
        Raises:
            TimeoutError: While iterating, when time is up. RuntimeError: After `shutdown`.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        if not iterables:
            return iter(())
        deadline = None if timeout is None else time.monotonic() + timeout
        ahead = EVERYTHING if buffersize is None else buffersize
        sources: list[Iterable[Any]] = list(iterables)
        if buffersize is None:
            sources = [list(each) if len(iterables) == 1 or _is_sized(each) else each for each in iterables]
        with self._lock:
            self._open()
            if isinstance(fn, str) or (self._methods is not None and fn is self._target):
                if self._service is None:
                    self._named()
                assert self._service is not None
                service = self._grid._service(self._service.service_id)
                name = fn if isinstance(fn, str) else "__call__"
                work = map_over(service, name, sources, ahead=ahead, pack=chunksize, retries=self._retries)
                values = MapResult(work, timeout=None, return_exceptions=False)
            else:
                star = len(sources) > 1
                items: Iterable[Any] = zip(*sources, strict=False) if star else sources[0]
                if star and buffersize is None:
                    items = list(items)
                work = FunctionMap(
                    self._crew_now(),
                    fn,
                    items,
                    star=star,
                    ahead=ahead,
                    pack=chunksize,
                    retries=self._retries,
                    initializer=self._init,
                )
                if buffersize is None:
                    work.goes_on = True
                    self._grid.unfinished.add(work)
                values = MapResult(work, timeout=None, return_exceptions=False)
            self._maps.add(work)
        return _values(values, deadline)

    def _queues(self) -> list[PooledCalls]:
        return [queue for queue in (self._functions, self._methods) if queue is not None]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. The servers stay: they are the grid's.

        Args:
            wait: Return when all that was submitted is done.
            cancel_futures: Withdraw what has not been sent to a server.
        """
        with self._lock:
            self._closed = True
            maps = list(self._maps)
        queues = self._queues()
        if cancel_futures:
            for queue in queues:
                queue.cancel_waiting()
            for work in maps:
                work.cancel()
        for queue in queues:
            queue.close()
        if wait:
            sources: list[Source] = [*queues, *maps]
            for source in sources:
                source.join()
            if self._ours is not None and not self._grid.ishalted() and self._ours in self._grid.servers:
                self._grid.terminate(self._ours)
                self._ours = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what was submitted, also after an error, as the executors of the standard library do.

        Unlike them it says so then. Ctrl-C while it waits withdraws what has not begun, and ends calls that run.
        """
        try:
            if kind is not None:
                self.shutdown(wait=False)
                wait_for([*self._queues(), *self._maps], _STILL.format(kind.__name__), _TELL_SOON_S)
            self.shutdown()
        except BaseException:
            self.terminate_workers()
            raise

    def terminate_workers(self) -> None:
        """Take no more work, withdraw what has not begun, and end calls of functions that run."""
        self.shutdown(wait=False, cancel_futures=True)
        if self._functions is not None:
            self._functions.end_running()
        for work in list(self._maps):
            if isinstance(work, FunctionMap) and not work.ended:
                work.end_running()

    kill_workers = terminate_workers

    def __repr__(self) -> str:
        what = "functions" if self._service is None else self._service.service_id
        return f"<GridExecutor of {what}{', shut down' if self._closed else ''}>"


def _is_sized(iterable: Iterable[Any]) -> bool:
    return hasattr(iterable, "__len__")


def _values(values: MapResult, deadline: float | None) -> Iterator[Any]:
    """A generator, so that the first error ends it, as with the executors of the standard library."""
    try:
        while True:
            if deadline is not None:
                values._timeout = max(0.0, deadline - time.monotonic())
            try:
                yield next(values)  # no name holds it: the caller has the last reference
            except StopIteration:
                return
    except GeneratorExit:
        raise
    except Exception as exc:
        error = told(exc)
        raise error from error.__cause__
    finally:
        values.cancel()
