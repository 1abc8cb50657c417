"""A map over a service: items in, values out in the order of the items, packed so that tiny calls cost next to nothing.

    for energy in g.map(service_id, "energy", configurations):
        ...

A pack of items is one call. Each item has its own outcome: an error in one item leaves the others alone.

Lives here: `MapWork`: reading items, collecting outcomes, bounds; `MapResult`, which the caller has.
Elsewhere:  the thread that hands packs out (`handing`), their size (`packing`), running one (`kernel/serve.py`).
"""

from __future__ import annotations

import logging
import reprlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from grid.errors import CallTimeout, GridError, SerialisationError, ServerLost, ServiceError
from grid.services import html
from grid.services.awaiting import Awaitable, Changed
from grid.services.handing import LOOK_S, Handing, ItemPack, NoValue
from grid.services.packing import Packing
from grid.wire import raised
from grid.wire.signals import came_by_signal

if TYPE_CHECKING:
    from grid.hooks import Hook
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.server import Server
    from grid.services.service import Service

logger = logging.getLogger(__name__)

_TELL_S = 10.0
"""A map that stands still because nobody fetches its results says so after this."""


class MapWork:
    """The work of one map, a supply of packs. It knows no `MapResult`, so that dropping that one ends it."""

    def __init__(
        self,
        service: Service,
        method: str,
        items: Iterable[Any],
        *,
        star: bool,
        retries: int,
        servers: int | None,
        ahead: int,
        packing: Packing,
    ) -> None:
        self.service, self.method, self.star = service, method, star
        self.retries, self.ahead, self.packing = retries, ahead, packing
        self._items = iter(items)
        length = getattr(items, "__len__", None)
        self.total: int | None = length() if length is not None else None
        self._next = 0  # the number of the next item
        self._exhausted = False
        self._stopped_by: BaseException | None = None  # what reading the items raised: told when those before are done
        self._full_since: float | None = None
        # what the consumer sees, under `changed`
        self.changed = Changed()
        self.outcomes: dict[int, list[Any]] = {}  # number of the first item -> outcomes
        self.arrived = 0
        self.fetched = 0
        self.failure: BaseException | None = None  # why no more will come
        self.ended = False
        self.goes_on = False
        """Whether it is finished although nobody holds its result any more."""
        self.handing = Handing(service, self, servers)
        self.handing.start()

    @property
    def name(self) -> str:
        """The name of the function or method, for people."""
        return self.method

    # -- the supply, in the thread that hands out ------------------------------------------------------------------

    def is_done(self, cancelled: bool) -> bool:
        """See `Supply.is_done`."""
        return cancelled or self._exhausted

    def is_dry(self) -> bool:
        """See `Supply.is_dry`."""
        return self._exhausted or self._is_full()

    def _is_full(self) -> bool:
        if self.arrived - self.fetched < self.ahead:
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = time.monotonic()
        return True

    def take(self, under_way: int, servers: int, all_busy: bool) -> ItemPack | None:
        """See `Supply.take`."""
        left = None if self.total is None else self.total - self._next
        size = self.packing.take(servers, left)
        if self.is_dry() or under_way >= self.packing.ahead(size):
            return None
        if under_way and not all_busy:
            return None  # others have nothing to do yet
        items = self._read_items(size)
        if not items:
            return None
        pack = ItemPack(self._next, items)
        self._next += len(items)
        return pack

    def _read_items(self, size: int) -> list[Any]:
        """So many, if there are."""
        items: list[Any] = []
        try:
            for item in self._items:
                items.append(item)
                if len(items) >= size:
                    return items
            self._exhausted = True
        except BaseException as exc:
            self._exhausted, self._stopped_by = True, exc
        return items

    def prepare(self, proxy: Proxy) -> None:
        """See `Supply.prepare`."""

    def send(self, proxy: Proxy, pack: ItemPack) -> Result:
        """See `Supply.send`."""
        return proxy._server.submit("@map", (self.method, pack.items, self.star), {}, proxy)

    def refused(self, pack: ItemPack, error: BaseException) -> list[ItemPack]:
        """See `Supply.refused`."""
        if not isinstance(error, SerialisationError):
            raise error
        if len(pack.items) > 1:
            return pack.singles(pack.tries)  # one of them is to blame
        self.arrive(pack, [NoValue(error)])
        return []

    def check(self, server: Server) -> None:
        """See `Supply.check`."""

    def read(self, pack: ItemPack, result: Result) -> list[Any]:
        """See `Supply.read`."""
        try:
            outcomes = unpacked(result.get(0), result._where())
        except ServerLost:
            raise
        except Exception as exc:
            if isinstance(exc, GridError) and self.service.has_ended():
                raise
            outcomes = [NoValue(exc)] * len(pack.items)
        if result.server.hooks:
            for item, outcome in zip(pack.items, outcomes, strict=True):
                if type(outcome) is NoValue:
                    self.tell_failure(result.server.hooks, item, outcome.error)
        self.packing.took(len(pack.items), result.seconds, time.monotonic() - pack.sent)
        return outcomes

    def tell_failure(self, hooks: Iterable[Hook], item: Any, error: BaseException) -> None:
        """An item failed."""
        target = self.service.instance
        for hook in hooks if target is not None else ():  # else the service has just been withdrawn
            hook.failed(target, self.method, tuple(item) if self.star else (item,), {}, error)

    def arrive(self, pack: ItemPack, outcomes: list[Any]) -> None:
        """See `Supply.arrive`."""
        with self.changed:
            self.outcomes[pack.first] = outcomes
            self.arrived += len(outcomes)
            self.changed.notify_all()

    def label(self, pack: ItemPack) -> str | None:
        """See `Supply.label`."""
        return f"{self.name} x {len(pack.items)}"

    def told(self, packs: list[ItemPack]) -> str:
        """See `Supply.told`."""
        if len(packs) == 1 and len(packs[0].items) == 1:
            item = reprlib.repr(packs[0].items[0])
            return f"item {packs[0].first} of the map of {self.name!r} ({item}) was"
        spans = [f"{pack.first} to {pack.first + len(pack.items) - 1}" for pack in packs if len(pack.items) > 1]
        spans += [str(pack.first) for pack in packs if len(pack.items) == 1]
        return f"items {', '.join(spans[:8])} of the map of {self.name!r} were"

    def look(self) -> None:
        """See `Supply.look`."""
        if self._full_since is not None and time.monotonic() - self._full_since >= _TELL_S:
            self._full_since = float("inf")  # said once
            logger.warning(
                "the map of %r on %s stands still: %d results wait and nobody fetches them; iterate over it, "
                "or raise `ahead`",
                self.method,
                self.service.service_id,
                self.arrived - self.fetched,
            )

    def fail(self, error: BaseException) -> None:
        """See `Supply.fail`."""
        with self.changed:
            self.failure = error
            self.changed.notify_all()

    def end(self) -> None:
        """See `Supply.end`."""
        with self.changed:
            self.failure = self.failure or self._stopped_by
            self.total = self._next if self.failure is None and not self.cancelled else self.total
            self.ended = True
            self.changed.notify_all()

    # -- for the consumer ------------------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether what had not begun was withdrawn."""
        return self.handing.cancelled

    def cancel(self) -> None:
        """Withdraw what has not begun."""
        self.handing.cancel()

    def end_running(self) -> None:
        """Withdraw what has not begun, and end the servers that run the rest."""
        self.handing.end_running()

    def wait_withdrawn(self, timeout: float) -> bool:
        """See `Handing.wait_withdrawn`."""
        return self.handing.wait_withdrawn(timeout)

    def left(self) -> list[str]:
        """Unfinished work, for `Unfinished`: this map."""
        return [] if self.ended else [f"a map of {self.name}"]

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is under way or left; False after `timeout` seconds."""
        with self.changed:
            return bool(self.changed.wait_for(lambda: self.ended, timeout))

    def wait(self, seconds: float | None) -> None:
        """With `changed` held: until something has changed. Ctrl-C meanwhile withdraws what has not begun.

        In a notebook the traceback keeps the map alive, so that nobody would drop it.
        """
        try:
            self.changed.wait(seconds)
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt) or came_by_signal(exc):
                self.cancel()
            raise

    def why(self) -> str:
        """The reason why it waits, in words."""
        with self.changed:
            return self.handing.why(self.arrived, self._next - self.arrived)


def unpacked(reply: tuple[list[Any], dict[int, tuple[bytes, str]]], where: str = "") -> list[Any]:
    """The outcomes of a pack: its values, with errors in their places. `where`: on which server and host it ran."""
    values, errors = reply
    for at, (data, text) in errors.items():
        values[at] = NoValue(raised.heard(data, text, where))
    return values


def map_over(
    service: Service,
    method: str,
    iterables: Sequence[Iterable[Any]],
    *,
    retries: int = 0,
    servers: int | None = None,
    ahead: int = 100_000,
    pack: int | None = None,
) -> MapWork:
    """A map of a method; arguments and errors as of `AbstractGrid.map`."""
    if not iterables:
        raise ServiceError(
            "map got nothing to map over", service_id=service.service_id, hint="Pass an iterable of items"
        )
    service.check_method(method)
    if retries < 0 or ahead < 1 or (servers is not None and servers < 1):
        raise ValueError(f"retries {retries!r}, ahead {ahead!r} and servers {servers!r} must not be that small")
    star = len(iterables) > 1
    items = Zipped(iterables) if star else iterables[0]
    return MapWork(
        service, method, items, star=star, retries=retries, servers=servers, ahead=ahead, packing=Packing(fixed=pack)
    )


class Zipped:
    """Several iterables side by side, up to the end of the shortest; knows its length if they do."""

    def __init__(self, iterables: Sequence[Iterable[Any]]) -> None:
        self._iterables = iterables
        lengths = [getattr(each, "__len__", None) for each in iterables]
        if None not in lengths:
            self.__len__ = lambda: min(length() for length in lengths if length is not None)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self._iterables, strict=False)


class MapResult(Awaitable, Iterator[Any]):
    """The values of a map, in the order of its items, as they come. Dropping it cancels what has not begun.

    In asyncio, `await` gives all of them as a list, and `async for` one by one.

    An item that failed raises its error where its value would be; the next `next` goes on with the item after it.
    """

    _mapping: MapWork

    def __init__(self, mapping: MapWork, *, timeout: float | None, return_exceptions: bool) -> None:
        self._mapping = mapping
        self._timeout = timeout
        self._return_exceptions = return_exceptions
        self._at = 0  # number of the next item to give
        self._current: deque[Any] = deque()  # a value is let go of when it is given, and not with its whole pack

    def __iter__(self) -> MapResult:
        return self

    def __next__(self) -> Any:
        if not self._current:
            outcomes = self._fetch(self._timeout)
            if outcomes is None:
                raise StopIteration
            self._current = deque(outcomes)
            return next(self)
        self._at += 1
        return self._value(self._current.popleft())

    def _is_ready(self) -> bool:
        mapping = self._mapping
        here = bool(self._current) or self._at in mapping.outcomes
        return here or mapping.ended or mapping.failure is not None

    def _value(self, outcome: Any) -> Any:
        if type(outcome) is NoValue:
            if self._return_exceptions:
                return outcome.error
            raise outcome.error
        return outcome

    def _fetch(self, timeout: float | None) -> list[Any] | None:
        """The outcomes that come next; None at the end."""
        mapping = self._mapping
        deadline = None if timeout is None else time.monotonic() + timeout
        with mapping.changed:
            while self._at not in mapping.outcomes:
                if mapping.failure is not None:
                    raise mapping.failure
                if mapping.ended:
                    if mapping.cancelled and (mapping.total is None or self._at < mapping.total):
                        raise CancelledError("the map was cancelled")
                    return None
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    raise CallTimeout(
                        f"item {self._at} of the map of {mapping.method!r} is not ready after {timeout:g} s: "
                        f"{mapping.why()}",
                        hint="The map goes on; ask again, or cancel it",
                    )
                mapping.wait(remaining if remaining is not None else LOOK_S)
            outcomes = mapping.outcomes[self._at]
            was_full = mapping.arrived - mapping.fetched >= mapping.ahead
            mapping.fetched += len(outcomes)
            del mapping.outcomes[self._at]
        if was_full:
            mapping.handing.poke()
        return outcomes

    def get(self, timeout: float | None = None) -> list[Any]:
        """Wait for all that is left and return it as a list.

        Args:
            timeout: Seconds for the whole; None: as long as it takes.
        Raises:
            TimeoutError: Not all have arrived in time. Nothing is lost: ask again.
            The error of the first item that failed, unless the map was made with `return_exceptions`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        kept: list[Any] = list(self._current)
        self._current.clear()
        self._at += len(kept)
        try:
            while True:
                outcomes = self._fetch(None if deadline is None else max(0.0, deadline - time.monotonic()))
                if outcomes is None:
                    break
                self._at += len(outcomes)
                kept += outcomes
        except BaseException as exc:
            self._current = deque(kept)
            self._at -= len(kept)
            if isinstance(exc, KeyboardInterrupt):
                self.cancel()
            raise
        if not self._return_exceptions:
            for outcome in kept:
                if type(outcome) is NoValue:
                    raise outcome.error
            return kept
        return [self._value(outcome) for outcome in kept]

    def unordered(self) -> Iterator[tuple[int, Any]]:
        """Number and value of each item that is left, as they come; the value of a failed item is its error."""
        mapping = self._mapping
        while self._current:
            self._at += 1
            yield self._at - 1, _error_or_value(self._current.popleft())
        while True:
            with mapping.changed:
                while not mapping.outcomes:
                    if mapping.failure is not None:
                        raise mapping.failure
                    if mapping.ended:
                        return
                    mapping.wait(LOOK_S)
                first, outcomes = next(iter(mapping.outcomes.items()))
                del mapping.outcomes[first]
                mapping.fetched += len(outcomes)
            mapping.handing.poke()
            for at, outcome in enumerate(outcomes):
                yield first + at, _error_or_value(outcome)

    def cancel(self) -> None:
        """Withdraw items that have not begun; packs that run are finished. You can still fetch finished values."""
        self._mapping.cancel()

    def done(self) -> bool:
        """Whether no item is under way or left."""
        return self._mapping.ended

    @property
    def method(self) -> str:
        """The name of the method that is called."""
        return self._mapping.method

    @property
    def progress(self) -> tuple[int, int | None]:
        """(items done, items in all); the latter is None while that is not known."""
        return self._mapping.arrived, self._mapping.total

    def __del__(self) -> None:
        mapping = getattr(self, "_mapping", None)
        if mapping is not None and not mapping.ended and not mapping.goes_on:
            mapping.cancel()

    def _repr_html_(self) -> str:
        return html.bar(f"map of {self._mapping.method}", *self.progress)

    def __repr__(self) -> str:
        done, total = self.progress
        return f"<MapResult of {self._mapping.method}, {done} of {'?' if total is None else total} items done>"


def _error_or_value(outcome: Any) -> Any:
    return outcome.error if type(outcome) is NoValue else outcome
