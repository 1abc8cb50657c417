"""Work for servers: a function over many items, and single calls that are futures of the standard kind.

Both are supplies of one way to hand out (`services/handing.py`). What differs is where packs come from and where
outcomes go.

Lives here: `FunctionMap` (packs of items), `PooledCalls` (one call, one future).
Elsewhere:  maps of methods (`services/mapping.py`), functions on servers (`crew`).
"""

from __future__ import annotations

import concurrent.futures
import reprlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from grid.compat.crew import Crew, Function, Initializer
from grid.compat.errors import InitializerFailed, told
from grid.errors import CallTimeout, ServerLost
from grid.services.handing import Handing, ItemPack, NoValue
from grid.services.mapping import MapWork
from grid.services.packing import Packing

if TYPE_CHECKING:
    from grid.hooks import Hook
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.server import Server
    from grid.services.service import Service

EVERYTHING = sys.maxsize
"""Of results that may wait to be fetched."""
_LINGER_S = 0.5
"""The thread for single calls stays this long without any."""
_TIME_UP = (TimeoutError, concurrent.futures.TimeoutError)  # until Python 3.11 they are two classes
_AHEAD_S = 0.02
_MOST_AHEAD = 64
"""Calls that a server gets at once: those that take 20 ms, and not more than this many."""


class FunctionMap(MapWork):
    """A map of a function that is shipped to each server at its first pack.

    Args:
        whole_packs: A pack that an error of the iterable cut short is left out, as `multiprocessing` does.
        initializer: Has run on each server before its first pack.
        then: Called in the map's thread with the map, once all is done or it failed.
    """

    def __init__(
        self,
        crew: Crew,
        function: Callable[..., Any] | Function,
        items: Iterable[Any],
        *,
        star: bool,
        retries: int = 0,
        ahead: int = EVERYTHING,
        pack: int | None = None,
        whole_packs: bool = False,
        initializer: Initializer | None = None,
        then: Callable[[FunctionMap], None] | None = None,
    ) -> None:
        known = function if isinstance(function, Function) else crew.take(function)
        self._crew, self._function, self._then = crew, known, then
        self._whole_packs, self._initializer = whole_packs, initializer
        super().__init__(
            crew.service,
            known.name,
            items,
            star=star,
            retries=retries,
            servers=None,
            ahead=ahead,
            packing=Packing(fixed=pack, item_s=known.item_s, tried=known.tried),
        )

    @property
    def name(self) -> str:
        """What is called, as people know it."""
        return self._function.title

    def tell_failure(self, hooks: Iterable[Hook], item: Any, error: BaseException) -> None:
        """An item failed."""
        function = self._function.function
        for hook in hooks if function is not None else ():
            hook.failed(function, None, tuple(item) if self.star else (item,), {}, error)

    def _read_items(self, size: int) -> list[Any]:
        items = super()._read_items(size)
        return [] if self._whole_packs and self._stopped_by is not None else items

    def prepare(self, proxy: Proxy) -> None:
        """See `Supply.prepare`."""
        self._crew.prepare(self._initializer, proxy)
        self._crew.ship(self._function, proxy)

    def check(self, server: Server) -> None:
        """See `Supply.check`."""
        check_initializer(self._initializer, server)
        refused = self._crew.refusal(self._function, server)
        if refused is not None and not isinstance(refused, ServerLost):
            raise refused

    def read(self, pack: ItemPack, result: Result) -> list[Any]:
        """See `Supply.read`."""
        outcomes = super().read(pack, result)
        if not result.cancelled() and not result.exception(0):
            self._function.ran(len(pack.items), result.seconds)
        return outcomes

    def end(self) -> None:
        """See `Supply.end`."""
        self._function.item_s, self._function.tried = self.packing.item_s, self.packing.tried
        super().end()
        self._crew.give_back(self._function)
        if self._then is not None:
            self._then(self)


def check_initializer(initializer: Initializer | None, server: Server) -> None:
    """Raises InitializerFailed if it failed there."""
    failed = None if initializer is None else initializer.failure(server)
    if failed is not None:
        raise InitializerFailed(f"the initializer failed on server {server.name}: {failed!r}") from failed


class PooledCall:
    """One call: the function (or the name of a method), its arguments, and its future."""

    __slots__ = ("__weakref__", "args", "function", "future", "kwargs", "made", "method", "taken")

    def __init__(
        self, calls: PooledCalls, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any = None
    ) -> None:
        self.method, self.args, self.kwargs, self.function = method, args, kwargs, function
        self.taken: Function | None = None
        self.made = time.monotonic()
        self.future = CallFuture(calls, self.name)

    @property
    def name(self) -> str:
        """The name of the function or method, for people."""
        if self.function is None:
            return self.method
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __repr__(self) -> str:
        return f"{self.name}{reprlib.repr(self.args)}"


class CallFuture(Future[Any]):
    """The standard future; only that running out of time says what it waited for."""

    def __init__(self, calls: PooledCalls, name: str) -> None:
        super().__init__()
        self._calls, self._name = calls, name

    def result(self, timeout: float | None = None) -> Any:
        """As `concurrent.futures.Future.result`."""
        try:
            return super().result(timeout)
        except _TIME_UP:
            if self.done():
                raise
            raise self._late(timeout) from None
        finally:
            self = None  # type: ignore[assignment]  # no cycle of traceback and future

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `concurrent.futures.Future.exception`."""
        try:
            return super().exception(timeout)
        except _TIME_UP:
            raise self._late(timeout) from None

    def _late(self, timeout: float | None) -> CallTimeout:
        state = "it runs" if self.running() else "it has not begun"
        return CallTimeout(
            f"the call of {self._name!r} is not done after {timeout or 0:g} s: {state}; {self._calls.why()}",
            hint="The call goes on",
        )


class PooledCalls:
    """Single calls on the servers of one service, first come, first served. A thread runs while there are any.

    Args:
        crew: Whose functions `function` of calls are; None where methods of the instance itself are called.
        retries: How often a call is made again when its server died with it.
        initializer: Has run on each server of the crew before its first call there.
    """

    name = "a function"

    def __init__(
        self,
        service: Service,
        crew: Crew | None = None,
        retries: int = 0,
        initializer: Initializer | None = None,
    ) -> None:
        self.service, self.crew, self.retries = service, crew, retries
        self.initializer = initializer
        self.lock = threading.Condition()
        self.waiting: deque[PooledCall] = deque()
        self.open = 0  # calls that are not done
        self.mean_s: float | None = None
        self.closed = False
        self.broken: BaseException | None = None
        self._handing: Handing | None = None  # while there are calls, and a moment longer
        self._busy_at = 0.0
        self._under_way: dict[int, PooledCall] = {}  # by the number of each
        self._begun = 0

    def make(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Call a method of the instance."""
        return self._enter(PooledCall(self, method, args, kwargs))

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Call a function. Nothing is pickled here: that it can't travel is the future's news."""
        assert self.crew is not None
        return self._enter(PooledCall(self, "run", args, kwargs, function))

    def _enter(self, call: PooledCall) -> Future[Any]:
        self.service.ground._check_usable()
        if self.broken is not None:
            raise self.broken
        with self.lock:
            self.open += 1
            self.waiting.append(call)
            if self._handing is None:
                self._busy_at = time.monotonic()
                self._handing = Handing(self.service, self)
                self._handing.start()
            elif len(self.waiting) == 1:
                self._handing.poke()
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

    def end_running(self) -> None:
        """Withdraw what has not begun, and end the servers that run the rest."""
        self.cancel_waiting()
        self.close()
        with self.lock:
            if self.open and self._handing is not None:
                self._handing.end_running()

    def wait_withdrawn(self, timeout: float) -> bool:
        """After `end_running`: see `Handing.wait_withdrawn`."""
        handing = self._handing
        return handing is None or not self.open or handing.wait_withdrawn(timeout)

    def close(self) -> None:
        """No more calls will come: the thread ends with the last one."""
        with self.lock:
            self.closed = True
            if self._handing is not None:
                self._handing.poke()

    def done(self, call: PooledCall) -> None:
        """A call has ended, whichever way."""
        if call.taken is not None and self.crew is not None:
            self.crew.give_back(call.taken)
        call.function = None
        with self.lock:
            self.open -= 1
            if not self.open:
                self.lock.notify_all()

    def left(self) -> list[str]:
        """Calls that are not done, by name."""
        with self.lock:
            return [call.name for call in [*self._under_way.values(), *self.waiting]][: self.open]

    def why(self) -> str:
        """What its calls wait for, in words."""
        with self.lock:
            handing, waiting, under_way = self._handing, len(self.waiting), len(self._under_way)
        doing = "" if handing is None else f". {handing.why(self._begun - under_way, under_way)}"
        return f"{waiting} calls wait for a server{doing}"

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no call is waiting or under way; False after `timeout` seconds."""
        with self.lock:
            return self.lock.wait_for(lambda: not self.open, timeout)

    # -- the supply, in the thread that hands out ------------------------------------------------------------------

    def is_done(self, cancelled: bool) -> bool:
        """See `Supply.is_done`."""
        with self.lock:
            if self.open:
                self._busy_at = time.monotonic()
                return False
            if not self.closed and time.monotonic() - self._busy_at <= _LINGER_S:
                return False
            self._handing = None
            return True

    def is_dry(self) -> bool:
        """See `Supply.is_dry`."""
        return not self.waiting

    def take(self, under_way: int, servers: int, all_busy: bool) -> ItemPack | None:
        """See `Supply.take`."""
        if under_way:
            ahead = 1 if self.mean_s is None else min(_MOST_AHEAD, int(_AHEAD_S / max(self.mean_s, 1e-6)))
            if under_way >= ahead or not all_busy:
                return None
        while True:
            try:
                call = self.waiting.popleft()
            except IndexError:
                return None
            if call.future.set_running_or_notify_cancel():
                break
            self.done(call)
        self._under_way[self._begun] = call
        self._begun += 1
        return ItemPack(self._begun - 1, [call])

    def prepare(self, proxy: Proxy) -> None:
        """With each call: what goes wrong there is that call's affair."""

    def send(self, proxy: Proxy, pack: ItemPack) -> Result:
        """See `Supply.send`."""
        crew, call = self.crew, pack.items[0]
        if crew is None:
            return proxy._call(call.method, call.args, call.kwargs)
        crew.prepare(self.initializer, proxy)
        if call.function is None:
            return proxy._call(call.method, call.args, call.kwargs)
        if call.taken is None:
            if crew.functions.is_new(call.function):
                return proxy._call("run", (call.function, call.args, call.kwargs), {})
            call.taken = crew.take(call.function, call.made)
        crew.ship(call.taken, proxy)
        return proxy._call(call.taken.name, call.args, call.kwargs)

    def refused(self, pack: ItemPack, error: BaseException) -> list[ItemPack]:
        """See `Supply.refused`."""
        self.arrive(pack, [NoValue(error)])  # whatever its own `__reduce__` raised: the other calls go on
        return []

    def check(self, server: Server) -> None:
        """See `Supply.check`."""
        check_initializer(self.initializer, server)

    def read(self, pack: ItemPack, result: Result) -> list[Any]:
        """See `Supply.read`."""
        call = pack.items[0]
        outcome: Any
        try:
            outcome = result.get(0)
        except ServerLost:
            raise
        except BaseException as exc:  # unpickling a value may even call `sys.exit`: that is one call's affair
            refused = None
            if call.taken is not None and self.crew is not None:
                refused = self.crew.refusal(call.taken, result.server)
            outcome = NoValue(refused or exc)
            for hook in result.server.hooks if call.function is not None else ():
                hook.failed(call.function, None, call.args, call.kwargs, outcome.error)
        self.mean_s = result.seconds if self.mean_s is None else 0.8 * self.mean_s + 0.2 * result.seconds
        return [outcome]

    def arrive(self, pack: ItemPack, outcomes: list[Any]) -> None:
        """See `Supply.arrive`."""
        with self.lock:
            call = self._under_way.pop(pack.first, None)
        if call is not None:  # else all have failed meanwhile
            _settle(call, outcomes[0])
            self.done(call)

    def label(self, pack: ItemPack) -> str | None:
        """See `Supply.label`."""
        call = pack.items[0]
        return None if call.function is None else str(call.name)

    def told(self, packs: list[ItemPack]) -> str:
        """See `Supply.told`."""
        calls = ", ".join(repr(pack.items[0]) for pack in packs[:4])
        return f"the call {calls} was" if len(packs) == 1 else f"the calls {calls} were"

    def look(self) -> None:
        """See `Supply.look`."""

    def fail(self, error: BaseException) -> None:
        """The grid has ended, or all servers are lost: nobody waits in vain."""
        with self.lock:
            self._handing = None
            if isinstance(error, InitializerFailed):
                self.broken = error
            running = list(self._under_way.values())
            calls = [*running, *self.waiting]
            self._under_way.clear()
            self.waiting.clear()
        for call in calls:
            if call in running or call.future.set_running_or_notify_cancel():
                _settle(call, NoValue(error))
            self.done(call)

    def end(self) -> None:
        """See `Supply.end`."""


def _settle(call: PooledCall, outcome: Any) -> None:
    if type(outcome) is NoValue:
        call.future.set_exception(told(outcome.error))
    else:
        call.future.set_result(outcome)
