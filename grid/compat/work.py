"""Work for servers: a function over many items, and single calls that are futures of the standard kind.

Both are maps underneath: one thread that hands out to whichever servers are free, lets others have them when its turn
is over, takes back what waits behind a long call. What differs is the source of items and where outcomes go.

Lives here: `FunctionMap` (packs of items), `Calls` (one call, one future).
Elsewhere:  the map itself (`services/mapping.py`), functions on servers (`crew`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from grid.compat.crew import Crew, Function
from grid.errors import GridError, ServerLost
from grid.services.mapping import MapWork, _Failed, _Holder, _Pack
from grid.services.packing import Packing

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.result import Result

EVERYTHING = sys.maxsize
"""Of results that may wait to be fetched."""
_LINGER_S = 0.5
"""The thread for single calls stays so long without any."""
_AHEAD_S = 0.02
_MOST_AHEAD = 64
"""Calls that a server is given at once: what it does in 20 ms, and not more than this many."""


class FunctionMap(MapWork):
    """A map of a function that is shipped to each server at its first pack.

    Args:
        then: Called in the map's thread with the map, once all is done or it failed.
    """

    def __init__(
        self,
        crew: Crew,
        function: Callable[..., Any],
        items: Iterable[Any],
        *,
        star: bool,
        retries: int = 0,
        ahead: int = EVERYTHING,
        pack: int | None = None,
        then: Callable[[FunctionMap], None] | None = None,
    ) -> None:
        packing = Packing(fixed=pack)
        self._crew, self._function, self._then = crew, crew.take(function), then
        super().__init__(
            crew.grid,
            crew.grid._service(crew.service_id),
            self._function.name,
            items,
            star=star,
            retries=retries,
            servers=None,
            ahead=ahead,
            packing=packing,
        )

    @property
    def name(self) -> str:
        return self._function.title

    def _keep(self, item: Any, error: BaseException) -> None:
        if self.grid.keeper is not None:
            args = tuple(item) if self.star else (item,)
            self.grid.keeper.keep(self._function.function, None, args, {}, error)

    def _send(self, holder: _Holder, pack: _Pack) -> None:
        self._crew.ship(self._function, holder.proxy)
        super()._send(holder, pack)

    def _back(self, holder: _Holder, result: Result) -> None:
        refused = self._crew.refusal(self._function, holder.proxy._server)
        if refused is not None and not isinstance(refused, ServerLost):
            raise refused
        super()._back(holder, result)

    def _end(self) -> None:
        super()._end()
        self._crew.give_back(self._function)
        if self._then is not None:
            self._then(self)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is under way or left; False after `timeout` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: self.ended, timeout)


class Call:
    """One call: the function (or the name of a method), its arguments, and who waits."""

    __slots__ = ("args", "function", "future", "kwargs", "method")

    def __init__(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], function: Function | None) -> None:
        self.method, self.args, self.kwargs, self.function = method, args, kwargs, function
        self.future: Future[Any] = Future()


class Calls:
    """Single calls on the servers of one service, first come, first served. A thread runs while there are any.

    Args:
        crew: Whose functions `function` of calls are; None where methods of the instance itself are called.
        retries: How often a call is made again when its server died with it.
    """

    def __init__(self, grid: AbstractGrid, service_id: str, crew: Crew | None = None, retries: int = 0) -> None:
        self.grid, self.service_id, self.crew, self.retries = grid, service_id, crew, retries
        self.lock = threading.Condition()
        self.waiting: deque[Call] = deque()
        self.open = 0  # calls that are not done
        self.mean_s: float | None = None
        self.closed = False
        self._worker: _Worker | None = None

    def make(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Call a method of the instance."""
        return self._enter(Call(method, args, kwargs, None))

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Call a function, which is shipped where it is needed first."""
        assert self.crew is not None
        try:
            taken = self.crew.take(function)
        except GridError as exc:  # it can't travel: that is the future's news, as with process pools
            future: Future[Any] = Future()
            future.set_exception(exc)
            return future
        return self._enter(Call(taken.name, args, kwargs, taken))

    def _enter(self, call: Call) -> Future[Any]:
        self.grid._check_usable()
        with self.lock:
            self.open += 1
            self.waiting.append(call)
            worker = self._worker
            if worker is None or worker.is_over:
                self._worker = _Worker(self)
            elif len(self.waiting) == 1:
                worker.poke()
        return call.future

    def cancel_waiting(self) -> None:
        """Withdraw all calls that have not been sent."""
        with self.lock:
            calls = list(self.waiting)
            self.waiting.clear()
        for call in calls:
            call.future.cancel()
            call.future.set_running_or_notify_cancel()
            self.done(call)

    def close(self) -> None:
        """No more calls will come: the thread ends with the last one."""
        with self.lock:
            self.closed = True
            if self._worker is not None:
                self._worker.poke()

    def done(self, call: Call) -> None:
        """A call is over, whichever way."""
        if call.function is not None and self.crew is not None:
            self.crew.give_back(call.function)
        with self.lock:
            self.open -= 1
            if not self.open:
                self.lock.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no call is waiting or under way; False after `timeout` seconds."""
        with self.lock:
            return self.lock.wait_for(lambda: not self.open, timeout)


class _Worker(MapWork):
    """The thread that makes the calls; it ends when there have been none for a while."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._under_way: dict[int, Call] = {}
        self._busy_at = time.monotonic()
        self.is_over = False
        super().__init__(
            calls.grid,
            calls.grid._service(calls.service_id),
            "a function",
            (),
            star=False,
            retries=calls.retries,
            servers=None,
            ahead=EVERYTHING,
            packing=Packing(fixed=1),
        )

    def _complete(self) -> bool:
        calls = self._calls
        with calls.lock:
            if calls.open:
                self._busy_at = time.monotonic()
            elif calls.closed or time.monotonic() - self._busy_at > _LINGER_S:
                self.is_over = True
        return self.is_over

    def _is_full(self) -> bool:
        return not self._calls.waiting and not self._again

    def _next_pack(self, holder: _Holder) -> _Pack | None:
        if self._again:
            return self._again.popleft() if not holder.packs else None
        if holder.packs:
            mean_s = self._calls.mean_s
            ahead = 1 if mean_s is None else min(_MOST_AHEAD, int(_AHEAD_S / max(mean_s, 1e-6)))
            if len(holder.packs) >= ahead or not all(other.packs for other in self._holders):
                return None
        while True:
            try:
                call = self._calls.waiting.popleft()
            except IndexError:
                return None
            if call.future.set_running_or_notify_cancel():
                break
            self._calls.done(call)
        pack = _Pack(self._next, [call])
        self._under_way[self._next] = call
        self._next += 1
        return pack

    def _send(self, holder: _Holder, pack: _Pack) -> None:
        pack.sent = time.monotonic()
        (call,) = pack.items
        try:
            if call.function is not None and self._calls.crew is not None:
                self._calls.crew.ship(call.function, holder.proxy)
            result = holder.proxy._call(call.method, call.args, call.kwargs)
        except ServerLost as exc:
            self._lost(pack, exc)
            return
        except Exception as exc:
            self._arrive(pack.first, [_Failed(exc)])
            return
        holder.packs[result] = pack
        result.when_done(lambda done: self._news.put((self._back, (holder, done))))

    def _back(self, holder: _Holder, result: Result) -> None:
        pack = holder.packs.pop(result, None)
        self._refused = False
        if pack is None:
            return  # it was taken back
        (call,) = pack.items
        server = holder.proxy._server
        if server.trace is not None and call.function is not None:
            server.trace.label(server.name, result.call, call.function.title)
        outcome: Any
        try:
            outcome = result.get(0)
        except ServerLost as exc:
            self._lost(pack, exc)
            return
        except (Exception, CancelledError) as exc:
            refused = None
            if call.function is not None and self._calls.crew is not None:
                refused = self._calls.crew.refusal(call.function, holder.proxy._server)
            outcome = _Failed(refused or exc)
            if self.grid.keeper is not None and call.function is not None:
                self.grid.keeper.keep(call.function.function, None, call.args, call.kwargs, outcome.error)
        mean_s = self._calls.mean_s
        self._calls.mean_s = result.seconds if mean_s is None else 0.8 * mean_s + 0.2 * result.seconds
        self._arrive(pack.first, [outcome])

    def _arrive(self, first: int, outcomes: list[Any]) -> None:
        call = self._under_way.pop(first)
        (outcome,) = outcomes
        self.arrived += 1
        self.fetched += 1
        _settle(call, outcome)
        self._calls.done(call)

    def _fail(self, error: BaseException) -> None:
        """The grid or all servers are gone: nobody waits in vain."""
        super()._fail(error)
        with self._calls.lock:
            self.is_over = True
            calls = [*self._under_way.values(), *self._calls.waiting]
            running = set(self._under_way.values())
            self._under_way.clear()
            self._calls.waiting.clear()
        for call in calls:
            if call in running or call.future.set_running_or_notify_cancel():
                _settle(call, _Failed(error))
            self._calls.done(call)


def _settle(call: Call, outcome: Any) -> None:
    if type(outcome) is _Failed:
        call.future.set_exception(outcome.error)
    else:
        call.future.set_result(outcome)
