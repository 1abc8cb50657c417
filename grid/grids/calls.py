"""Many calls at once: over items, on all servers of a service, and as other libraries know calls.

Lives here: `map`, `executor`, `pool`, calls of groups and what they return.
Elsewhere:  the work of a map (`services/mapping.py`), a group (`services/service.py`), executor, pool (`grid/compat/`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from grid.limits import checked_timeout
from grid.services.mapping import MapResult, map_over
from grid.services.result import Result
from grid.wire.signals import came_by_signal

if TYPE_CHECKING:
    from grid.compat.crew import Publishes
    from grid.compat.executor import GridExecutor
    from grid.compat.pool import GridPool
    from grid.services.proxy import Proxy
    from grid.services.server import Server
    from grid.services.service import Service
    from grid.services.table import Services

    class OfGrid(Publishes, Protocol):
        """The grid, as far as its calls know it."""

        servers: Mapping[str, list[Server]]
        _services: Services

        def _service(self, service_id: str) -> Service: ...


class ServiceCalls:
    """See the module. All of it is offered by the grid under the same names."""

    def __init__(self, grid: OfGrid) -> None:
        self._grid = grid

    def map(
        self,
        service_id: str,
        method: str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
        retries: int = 0,
        servers: int | None = None,
        ahead: int = 100_000,
        pack: int | None = None,
    ) -> MapResult:
        """Call `method` for each item, on as many servers as are free, and iterate over the values in order.

        Items travel in packs whose size follows the time that a call takes, so that tiny calls cost little. A server
        is given to others that wait after a quarter of a second. Every item has its own outcome.

        Args:
            iterables: Items, one argument each; several iterables give one argument each and end with the shortest.
                They are read by another thread, not further than needed, and may be endless.
            method: Its name; `"__call__"` where the instance itself is a function.
            timeout: Seconds that each `next` may wait; None: as long as it takes.
            return_exceptions: Give an item's error in place of its value, instead of raising it.
            retries: How often an item is tried again when its server died with it; items of such a pack then go one by
                one. With 0 they fail: some may have run.
            servers: Use this many servers at most.
            ahead: Values that wait to be fetched, at most; the map stands still then.
            pack: Items of each pack, instead of finding it out.
        Raises:
            UnknownService, ServiceError: No such service or method; no iterable.
            ValueError: A bound that is not positive.
        """
        work = map_over(
            self._grid._service(service_id),
            method,
            iterables,
            retries=retries,
            servers=servers,
            ahead=ahead,
            pack=pack,
        )
        return MapResult(work, timeout=timeout, return_exceptions=return_exceptions)

    def executor(
        self,
        sid_or_callable: str | Callable[..., Any] | None = None,
        *,
        retries: int = 0,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
    ) -> GridExecutor:
        """A `concurrent.futures.Executor` over this grid: functions by value, shipped once to each server.

        Args:
            sid_or_callable: A service: names of its methods can be submitted, too. A callable: it is published, and
                withdrawn by `shutdown`; calls of it carry arguments only.
            retries: How often a call is made again when its server died with it. That server is replaced in any case.
            initializer: Called with `initargs` on each server, before its first call of this executor.
        Raises:
            UnknownService: No such service. PublishError: No host brought up a server.
        """
        from grid.compat.executor import GridExecutor

        return GridExecutor(self._grid, sid_or_callable, retries=retries, initializer=initializer, initargs=initargs)

    def pool(
        self, *, retries: int = 0, initializer: Callable[..., Any] | None = None, initargs: Iterable[Any] = ()
    ) -> GridPool:
        """A `multiprocessing.Pool` over this grid, for `pool=` and `workers=pool.map` of other libraries.

        Args:
            retries: How often an item is tried again when its server died with it. That server is replaced in any case.
            initializer: Called with `initargs` on each server, before its first call of this pool.
        Raises:
            PublishError: No host brought up a server.
        """
        from grid.compat.pool import GridPool

        return GridPool(self._grid, retries=retries, initializer=initializer, initargs=initargs)

    def size(self, service_id: str) -> int:
        """How many live servers a service has."""
        return len(self._grid.servers[service_id])

    def broadcast(self, service_id: str, method: str, /, *args: Any, **kw: Any) -> list[Result]:
        """Call `method` on every live server of the service, in server order; returns their Results without waiting.

        The servers are reserved as a group at the first group call (waiting for those that others have) and stay ours
        until `release_all`.

        Args:
            timeout: Seconds to wait for the group; None waits for ever. A method that has a parameter of that name
                gets it instead: use `with g.group(service_id, timeout)` for such.
        Raises:
            AcquireTimeout: Not all became free in time; the message names their holders.
            ServiceError: This thread has one of the servers itself, so that it would wait for ever.
        """
        timeout = None
        if "timeout" in kw and not self._takes(service_id, method, "timeout"):
            timeout = kw.pop("timeout")
        return [proxy._call(method, args, kw) for proxy in self._grid._service(service_id).hold_group(timeout)]

    def _takes(self, service_id: str, method: str, parameter: str) -> bool:
        """Whether a method of the published instance takes this parameter, by name or among any keywords."""
        try:
            taken = inspect.signature(getattr(self._grid._service(service_id).instance, method)).parameters
            return parameter in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())
        except (AttributeError, TypeError, ValueError):
            return False

    def scatter(
        self,
        service_id: str,
        method: str,
        arglist: Sequence[Any],
        kwlist: Sequence[Mapping[str, Any]] | None = None,
        *,
        cycle: bool = False,
        timeout: float | None = None,
    ) -> list[Result]:
        """Element i of `arglist` goes to server i.

        A list or tuple is spread as positional arguments; anything else, text, bytes, dicts and arrays among them, is
        the single argument. Fewer elements than servers: the first servers are used.

        Args:
            kwlist: Keyword arguments, one mapping for each element.
            cycle: With more elements than servers, begin again at the first instead of refusing.
            timeout: Seconds to wait for the group; None waits for ever.
        Raises:
            ServiceError: More elements than servers, or `kwlist` of another length; this thread has a server itself.
            AcquireTimeout: Not all became free in time; the message names their holders.
        """
        return self._grid._service(service_id).scatter(method, list(arglist), kwlist, cycle=cycle, timeout=timeout)

    def gather(
        self, results: Sequence[Result], timeout: float | None = None, *, return_exceptions: bool = False
    ) -> list[Any]:
        """Wait for all and return their values in the order given.

        Args:
            timeout: Seconds for the whole.
            return_exceptions: Return exceptions in place of values, instead of raising the first after all are done.
        Raises:
            TimeoutError: Not all were done in time; none of them is cancelled by that.
        """
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        first: BaseException | None = None
        for result in results:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                values.append(result.get(remaining))
            except Exception as exc:
                if not result.done() or came_by_signal(exc):
                    raise
                first = first or exc
                values.append(exc)
        if first is not None and not return_exceptions:
            raise first
        return values

    def release_all(self, service_id: str | None = None) -> None:
        """Release every server that group calls hold (of one service, or of all). Harmless if there are none."""
        for service in [self._grid._service(service_id)] if service_id is not None else self._grid._services.all():
            service.release_group()

    @contextmanager
    def group(self, service_id: str, timeout: float | None = None) -> Iterator[list[Proxy]]:
        """Have all live servers of a service as a group; released at the end."""
        with self._grid._service(service_id).in_group(timeout) as proxies:
            yield proxies
