"""A map over a service: items in, values out in the order of the items, packed so that tiny calls cost next to nothing.

    for energy in g.map(service_id, "energy", configurations):
        ...

One thread hands packs of items to as many servers as are free; a pack is one call. It gives a server back when others
wait for it and its turn is over, so that a long map starves nobody. Each item has its own outcome: an error in one item
leaves the others alone.

Lives here: handing out, collecting, retries, cancelling, bounds.
Elsewhere:  the size of a pack (`packing`), running one (`kernel/serve.py`), queues of servers (`service`).
"""

from __future__ import annotations

import logging
import reprlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from grid.errors import CallTimeout, GridError, SerialisationError, ServerLost, ServiceError
from grid.services import html
from grid.services.awaiting import Awaitable, Changed
from grid.services.hold import Waiter
from grid.services.packing import Packing
from grid.wire import raised
from grid.wire.signals import came_by_signal

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.service import Service

logger = logging.getLogger(__name__)

TURN_S = 0.25
"""A map keeps a server for so long before it gives it to others that wait."""
_STUCK_S = 0.25
"""What waits for so long behind another pack is taken back, for a server that has nothing to do."""
_MOMENT_S = 0.1
"""Calls that run when they are to be ended may still end by themselves for so long."""
_LOOK_S = 1.0
"""The thread looks up this often, whatever happens."""
_TELL_S = 10.0
"""A map that stands still because nobody fetches its results says so after this."""


class _Pack:
    """Items that go together: `first` is the number of the first, `tries` how often they were lost before."""

    __slots__ = ("first", "items", "sent", "tries")

    def __init__(self, first: int, items: list[Any], tries: int = 0) -> None:
        self.first, self.items, self.tries = first, items, tries
        self.sent = 0.0


class _Failed:
    """Stands for the value of an item that has none."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Holder:
    """A server that the map has."""

    __slots__ = ("had", "packs", "proxy", "since")

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.had: list[_Pack] | None = None  # what was there when it was lost: the first of them may have been done
        self.packs: dict[Result, _Pack] = {}
        self.since = time.monotonic()


class MapWork:
    """The work of one map; its thread holds this and not the `MapResult`, so that one which is dropped ends it."""

    _whole_packs = False
    """Whether a pack that reading the items cut short is left out, as `multiprocessing` does with its chunks."""

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
        self.retries, self.most, self.ahead, self.packing = retries, servers, ahead, packing
        self._items = iter(items)
        length = getattr(items, "__len__", None)
        self.total: int | None = length() if length is not None else None
        self._next = 0  # the number of the next item
        self._exhausted = False
        self._stopped_by: BaseException | None = None  # what reading the items raised: told when those before are done
        self._last_loss: BaseException | None = None
        self._again: deque[_Pack] = deque()  # lost with their server, to be tried once more
        self._news: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._holders: list[_Holder] = []
        self._waiter: Waiter | None = None
        self._refused = False  # no server is left, but packs are still under way
        self._full_since: float | None = None
        # what the consumer sees, under `changed`
        self.changed = Changed()
        self.outcomes: dict[int, list[Any]] = {}  # number of the first item -> outcomes
        self.arrivals: deque[int] = deque()  # the same numbers, as they came
        self.arrived = 0
        self.fetched = 0
        self.failure: BaseException | None = None  # why no more will come
        self.ended = False
        self.cancelled = False
        self._end_at: float | None = None  # when calls that run are ended with their servers
        self.goes_on = False
        """Whether it is finished although nobody holds its result any more."""
        threading.Thread(target=self._run, name="grid-map", daemon=True).start()

    @property
    def name(self) -> str:
        """What is called, as people know it."""
        return self.method

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._hand_out()
                if self._complete():
                    if self._stopped_by is not None:
                        raise self._stopped_by
                    return
                self._listen()
        except BaseException as exc:
            self._fail(exc)
        finally:
            self._end()

    def _complete(self) -> bool:
        if any(holder.packs for holder in self._holders):
            return False
        return self.cancelled or (self._exhausted and not self._again)

    def _listen(self) -> None:
        limit = _STUCK_S if any(len(h.packs) > 1 for h in self._holders) else _LOOK_S
        if self._end_at is not None:
            limit = max(0.001, self._end_at - time.monotonic())
        try:
            what, about = self._news.get(timeout=limit)
        except Empty:
            if self.service.has_ended():
                self.service.ground._check_usable()
            if self._full_since is not None and time.monotonic() - self._full_since >= _TELL_S:
                self._full_since = float("inf")  # said once
                logger.warning(
                    "the map of %r on %s stands still: %d results wait and nobody fetches them; iterate over it, "
                    "or raise `ahead`",
                    self.method,
                    self.service.service_id,
                    self.arrived - self.fetched,
                )
            return
        while True:
            what(*about)
            try:
                what, about = self._news.get_nowait()
            except Empty:
                return

    def cancel(self) -> None:
        """Withdraw what has not begun."""
        self.cancelled = True
        self.poke()

    def end_running(self) -> None:
        """Withdraw what has not begun, and end the servers that run the rest: others take their places.

        Calls that end within a moment do so: a new server costs more than that.
        """
        self._end_at = time.monotonic() + _MOMENT_S
        self.cancel()

    def poke(self) -> None:
        """Have the thread look: something was fetched, or the map was cancelled."""
        self._news.put((lambda: None, ()))

    def _hand_out(self) -> None:
        """Give packs to the servers that we have, ask for more servers, give back those that we need not."""
        if self.cancelled and self._end_at is not None and time.monotonic() >= self._end_at:
            self._end_at = None
            self.service.ground._end_at_once([holder.proxy._server for holder in self._holders if holder.packs])
        elif self.cancelled:
            for holder in self._holders:
                for result in reversed(list(holder.packs)):
                    result.cancel()
        self._take_back()
        for holder in sorted(self._holders, key=lambda holder: len(holder.packs)):
            if self._is_over(holder):
                if not holder.packs:
                    self._give_back(holder)
                continue
            while True:
                pack = self._next_pack(holder)
                if pack is None:
                    break
                self._send(holder, pack)
            if not holder.packs and (self.cancelled or self._exhausted or self._is_full() or self._others_wait()):
                self._give_back(holder)
        if self._waiter is None and not self._refused and self._wants_more():
            self._waiter = Waiter()
            self.service.ask(self._waiter, lambda waiter: self._news.put((self._granted, (waiter,))))

    def _take_back(self) -> None:
        """Items behind one that takes unexpectedly long can run elsewhere."""
        now = time.monotonic()
        for holder in self._holders:
            if len(holder.packs) < 2:
                continue
            first, *behind = holder.packs.items()
            if now - first[1].sent > _STUCK_S:
                for result, pack in behind:
                    if result.cancel():
                        del holder.packs[result]
                        self._again.append(pack)

    def _wants_more(self) -> bool:
        """Whether another server would be of use."""
        if self.cancelled or self._is_full() or (self._exhausted and not self._again):
            return False
        return self.most is None or len(self._holders) < self.most

    def _is_over(self, holder: _Holder) -> bool:
        """Its server is gone, or its turn is and others wait."""
        if holder.proxy._server.final_state is not None:
            return True
        return time.monotonic() - holder.since >= TURN_S and self._others_wait()

    def _others_wait(self) -> bool:
        ours = 1 if self._waiter is not None and not self._waiter.done_flag else 0
        return self.service.roster.waiting > ours

    def _granted(self, waiter: Waiter) -> None:
        if waiter is not self._waiter:
            return  # it was told twice
        self._waiter = None
        if waiter.granted is None:
            if not any(holder.packs for holder in self._holders):
                self.service.ground._check_usable()
                raise self.service.no_servers() from self._last_loss
            self._refused = True  # until the packs under way are back, and tell more
            return
        for server in waiter.granted:
            self._holders.append(_Holder(self.service.hand_out(server)))

    def _give_back(self, holder: _Holder) -> None:
        self._holders.remove(holder)
        self.service.release(holder.proxy)

    def _is_full(self) -> bool:
        if self.arrived - self.fetched < self.ahead:
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = time.monotonic()
        return True

    def _next_pack(self, holder: _Holder) -> _Pack | None:
        under_way = holder.packs
        if self.cancelled:
            return None
        if self._again:
            return self._again.popleft() if not under_way else None
        left = None if self.total is None else self.total - self._next
        size = self.packing.take(max(1, len(self._holders)), left)
        if self._exhausted or len(under_way) >= self.packing.ahead(size) or self._is_full():
            return None
        if under_way and not all(other.packs for other in self._holders):
            return None  # others have nothing to do yet
        items: list[Any] = []
        try:
            for item in self._items:
                items.append(item)
                if len(items) >= size:
                    break
            else:
                self._exhausted = True
        except BaseException as exc:
            self._exhausted, self._stopped_by = True, exc
            if self._whole_packs:
                items = []
        if not items:
            return None
        pack = _Pack(self._next, items)
        self._next += len(items)
        return pack

    def _send(self, holder: _Holder, pack: _Pack) -> None:
        pack.sent = time.monotonic()
        try:
            result = holder.proxy._server.submit("@map", (self.method, pack.items, self.star), {}, holder.proxy)
        except SerialisationError as exc:
            if len(pack.items) == 1:
                self._arrive(pack.first, [_Failed(exc)])
            else:  # one of them is to blame
                for at, item in enumerate(pack.items):
                    self._send(holder, _Pack(pack.first + at, [item], pack.tries))
            return
        except ServerLost as exc:
            self._lost(pack, exc)
            return
        holder.packs[result] = pack
        result.when_done(lambda done: self._news.put((self._back, (holder, done))))

    def _back(self, holder: _Holder, result: Result) -> None:
        pack = holder.packs.pop(result, None)
        self._refused = False
        if pack is None:
            return  # it was taken back
        server = holder.proxy._server
        if server.trace is not None:
            server.trace.label(server.name, result.call, f"{self.name} x {len(pack.items)}")
        try:
            outcomes = unpacked(result.get(0), result._where())
        except ServerLost as exc:
            self._lost(pack, self._with_items(exc, holder, pack))
            return
        except CancelledError as exc:
            outcomes = [_Failed(exc)] * len(pack.items)
        except GridError as exc:
            if self.service.has_ended():
                raise
            outcomes = [_Failed(exc)] * len(pack.items)
        except Exception as exc:
            outcomes = [_Failed(exc)] * len(pack.items)
        if self.service.ground.keeper is not None:
            for item, outcome in zip(pack.items, outcomes, strict=True):
                if type(outcome) is _Failed:
                    self._keep(item, outcome.error)
        self.packing.took(len(pack.items), result.seconds, time.monotonic() - pack.sent)
        self._arrive(pack.first, outcomes)

    def _keep(self, item: Any, error: BaseException) -> None:
        keeper, target = self.service.ground.keeper, self.service.instance
        if keeper is None or target is None:
            return  # the service has just been withdrawn
        keeper.keep(target, self.method, tuple(item) if self.star else (item,), {}, error)

    def _lost(self, pack: _Pack, error: BaseException) -> None:
        """Its server died: try again where that is allowed, one by one, so that a fatal item takes no others along."""
        self._last_loss = error
        if pack.tries < self.retries and not self.cancelled:
            for at, item in enumerate(pack.items):
                self._again.append(_Pack(pack.first + at, [item], pack.tries + 1))
        else:
            self._arrive(pack.first, [_Failed(error)] * len(pack.items))

    def _with_items(self, error: ServerLost, holder: _Holder, pack: _Pack) -> ServerLost:
        """The same loss, told with what the server had: who reads it looks for the item that kills."""
        if type(error) is not ServerLost:
            return error
        if holder.had is None:
            holder.had = [pack, *holder.packs.values()]
        return ServerLost(f"{error.what}; {self._told(holder.had)}", **error.facts)

    def _told(self, packs: list[_Pack]) -> str:
        """Packs in words."""
        tries = max(pack.tries for pack in packs)
        tried = f", in attempt {tries + 1}" if tries else ""
        if len(packs) == 1 and len(packs[0].items) == 1:
            item = reprlib.repr(packs[0].items[0])
            return f"item {packs[0].first} of the map of {self.name!r} ({item}) was there{tried}"
        spans = [f"{pack.first} to {pack.first + len(pack.items) - 1}" for pack in packs if len(pack.items) > 1]
        spans += [str(pack.first) for pack in packs if len(pack.items) == 1]
        return f"items {', '.join(spans[:8])} of the map of {self.name!r} were there{tried}"

    def _arrive(self, first: int, outcomes: list[Any]) -> None:
        with self.changed:
            self.outcomes[first] = outcomes
            self.arrivals.append(first)
            self.arrived += len(outcomes)
            self.changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self.changed:
            self.failure = error
            self.changed.notify_all()

    def _end(self) -> None:
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.told = None
            if self.service.give_up(waiter):
                self.service.give_back(waiter)
        for holder in self._holders:
            self.service.release(holder.proxy)
        with self.changed:
            self.total = self._next if self.failure is None and not self.cancelled else self.total
            self.ended = True
            self.changed.notify_all()

    # -- for the consumer ------------------------------------------------------------------------------------------

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

    def left(self) -> list[str]:
        """What is not done, for `Unfinished`: this map."""
        return [] if self.ended else [f"a map of {self.name}"]

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is under way or left; False after `timeout` seconds."""
        with self.changed:
            return bool(self.changed.wait_for(lambda: self.ended, timeout))

    def why(self) -> str:
        """What it waits for, in words."""
        with self.changed:
            if self._waiter is not None and not self._holders:
                return "no server is free. " + self.service.why_waiting()
            doing = "; ".join(f"{h.proxy._server.name}: {h.proxy._server.doing()}" for h in list(self._holders)[:8])
            return f"{self.arrived} items are done, {self._next - self.arrived} are under way. {doing}"


def unpacked(reply: tuple[list[Any], dict[int, tuple[bytes, str]]], where: str = "") -> list[Any]:
    """The outcomes of a pack: its values, with errors in their places. `where`: on which server and host it ran."""
    values, errors = reply
    for at, (data, text) in errors.items():
        values[at] = _Failed(raised.heard(data, text, where))
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
        if type(outcome) is _Failed:
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
                mapping.wait(remaining if remaining is not None else _LOOK_S)
            outcomes = mapping.outcomes[self._at]
            was_full = mapping.arrived - mapping.fetched >= mapping.ahead
            mapping.fetched += len(outcomes)
            del mapping.outcomes[self._at]
        if was_full:
            mapping.poke()
        return outcomes

    def get(self, timeout: float | None = None) -> list[Any]:
        """Wait for all that is left and return it as a list.

        Args:
            timeout: Seconds for the whole; None: as long as it takes.
        Raises:
            TimeoutError: Not all are there in time. Nothing is lost: ask again.
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
                if type(outcome) is _Failed:
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
                    mapping.wait(_LOOK_S)
                first, outcomes = next(iter(mapping.outcomes.items()))
                del mapping.outcomes[first]
                mapping.fetched += len(outcomes)
            mapping.poke()
            for at, outcome in enumerate(outcomes):
                yield first + at, _error_or_value(outcome)

    def cancel(self) -> None:
        """Withdraw what has not begun; packs that run are finished. What is done can still be fetched."""
        self._mapping.cancel()

    def done(self) -> bool:
        """Whether no item is under way or left."""
        return self._mapping.ended

    @property
    def method(self) -> str:
        """What is called."""
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
    return outcome.error if type(outcome) is _Failed else outcome
