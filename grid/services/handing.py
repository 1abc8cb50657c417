"""Handing out work: one thread gives packs to as many servers as are free, and takes in what comes of them.

    supply ──take──> pack ──send──> a server that we hold ──back──> outcomes ──arrive──> supply
                      ^                                      │
                      └──── its server died with it: again ──┘

A server goes back when others wait for it and its turn has ended, so that long work starves nobody. What waits behind
a pack that takes unexpectedly long is taken back for a server that has nothing to do.

Lives here: the thread, servers that we hold, packs under way, retries, cancelling, the end of calls that run.
Elsewhere:  what is to be done and where outcomes go (a `Supply`: `mapping`, `compat/work`), queues (`service`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from grid.errors import ConnectError, ServerLost
from grid.services.hold import Waiter

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.server import Server
    from grid.services.service import Service

TURN_S = 0.25
"""A server is kept for this long before it is given to others that wait."""
LOOK_S = 1.0
"""The thread looks up this often, whatever happens."""
_STUCK_S = 0.25
"""A pack that has waited this long behind another one is taken back, for a server that has nothing to do."""
_MOMENT_S = 0.1
"""Calls that run when they are to be ended may still end by themselves for this long."""


class ItemPack:
    """Items that go together: `first` is the number of the first, `tries` how often they were lost before.

    `sent`: when, monotonic. `recalled`: its server was asked to give it back.
    """

    __slots__ = ("first", "items", "recalled", "sent", "tries")

    def __init__(self, first: int, items: list[Any], tries: int = 0) -> None:
        self.first, self.items, self.tries = first, items, tries
        self.sent = 0.0
        self.recalled = False

    def singles(self, tries: int) -> list[ItemPack]:
        """Its items one by one."""
        return [ItemPack(self.first + at, [item], tries) for at, item in enumerate(self.items)]


class NoValue:
    """Stands for the value of an item that has none."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Supply(Protocol):
    """The work that is handed out. Only the thread that hands out calls these methods."""

    @property
    def name(self) -> str:
        """The name of the function or method, for people."""

    @property
    def retries(self) -> int:
        """How often an item is tried again when its server died with it."""

    def is_done(self, cancelled: bool) -> bool:
        """Whether nothing more will come. Asked again and again."""

    def is_dry(self) -> bool:
        """Whether there is nothing to take now."""

    def take(self, under_way: int, servers: int, all_busy: bool) -> ItemPack | None:
        """The next pack for a server that has `under_way` packs; None: it gets no more now.

        Args:
            servers: How many are at work. all_busy: None of them has nothing to do.
        """

    def prepare(self, proxy: Proxy) -> None:
        """Have on its server what packs need there. An error ends it all."""

    def send(self, proxy: Proxy, pack: ItemPack) -> Result:
        """Make the call of a pack."""

    def refused(self, pack: ItemPack, error: BaseException) -> list[ItemPack]:
        """It can't be sent: what to send in its place. Raises the error where it ends it all."""

    def check(self, server: Server) -> None:
        """A pack is back from there: raise what has failed there and ends it all."""

    def read(self, pack: ItemPack, result: Result) -> list[Any]:
        """The outcomes of its items, a `NoValue` for each that failed. Raises ServerLost."""

    def arrive(self, pack: ItemPack, outcomes: list[Any]) -> None:
        """Outcomes of a pack are here."""

    def label(self, pack: ItemPack) -> str | None:
        """The name that hooks get; None: that of its method."""

    def told(self, packs: list[ItemPack]) -> str:
        """The beginning of a sentence: that they were (there, when a server died)."""

    def look(self) -> None:
        """Nothing has happened for a while."""

    def fail(self, error: BaseException) -> None:
        """No more will come, because of this."""

    def end(self) -> None:
        """The thread ends."""


class _Holder:
    """A server that we have."""

    __slots__ = ("had", "packs", "proxy", "since")

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.had: list[ItemPack] | None = None  # its packs when it was lost: it may have done the first of them
        self.packs: dict[Result, ItemPack] = {}
        self.since = time.monotonic()

    @property
    def server(self) -> Server:
        return self.proxy._server


class Handing:
    """See the module. `most`: this many servers at most."""

    def __init__(self, service: Service, supply: Supply, most: int | None = None) -> None:
        self.service, self._supply, self._most = service, supply, most
        self.cancelled = False
        self._again: deque[ItemPack] = deque()  # lost with their server, or taken back
        self._last_loss: BaseException | None = None
        self._news: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._holders: list[_Holder] = []
        self._waiter: Waiter | None = None
        self._refused = False  # no server is left, but packs are still under way
        self._doomed: list[Any] = []  # items that are to end, also where they run
        self._end_at: float | None = None  # when calls that run are ended with their servers
        self._asked: set[Result] = set()  # packs that we asked a host to give back, and have not heard of
        self._thread: threading.Thread | None = None
        self._withdrawn = threading.Event()  # after `cancel`: what has not begun never will

    def start(self) -> None:
        """Start the thread. It refers to the supply, and to no caller that waits for that."""
        self._thread = threading.Thread(target=self._run, name="grid-map", daemon=True)
        self._thread.start()

    # -- from any thread -------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Have the thread look: the supply has changed."""
        self._news.put((lambda: None, ()))

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

    def wait_withdrawn(self, timeout: float) -> bool:
        """After `cancel`: wait until all hosts have told that what has not begun never will.

        Args:
            timeout: In seconds: a host that is cut off tells nothing.
        """
        if threading.current_thread() is self._thread:
            return False  # a call-back of the user's, which runs here
        return self._withdrawn.wait(timeout)

    def end_item(self, item: Any) -> None:
        """Withdraw this item if it has not begun; else end the server that runs it: another takes its place."""
        self._news.put((self._doomed.append, (item,)))

    def why(self, done: int, under_way: int) -> str:
        """The reason why it waits, in words."""
        if self._waiter is not None and not self._holders:
            return "no server is free. " + self.service.why_waiting()
        doing = "; ".join(f"{holder.server.name}: {holder.server.doing()}" for holder in list(self._holders)[:8])
        return f"{done} items are done, {under_way} are under way. {doing}"

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._hand_out()
                done = self._supply.is_done(self.cancelled)
                if done and not self._again and not any(holder.packs for holder in self._holders):
                    return
                self._listen()
        except BaseException as exc:
            self._supply.fail(exc)
        finally:
            self._end()

    def _listen(self) -> None:
        limit = _STUCK_S if any(len(holder.packs) > 1 for holder in self._holders) else LOOK_S
        if self._end_at is not None:
            limit = max(0.001, self._end_at - time.monotonic())
        try:
            what, about = self._news.get(timeout=limit)
        except Empty:
            if self.service.has_ended():
                self.service.ground._check_usable()
            self._supply.look()
            return
        while True:
            what(*about)
            try:
                what, about = self._news.get_nowait()
            except Empty:
                return

    def _hand_out(self) -> None:
        """Give packs to the servers that we have, ask for more servers, give back those that we need not."""
        if self.cancelled:
            self._withdraw()
        else:
            self._take_back()
        if self._doomed:
            self._end_items()
        for holder in sorted(self._holders, key=lambda holder: len(holder.packs)):
            if self._is_over(holder):
                if not holder.packs:
                    self._give_back(holder)
                continue
            while (pack := self._next_pack(holder)) is not None:
                self._send(holder, pack)
            if not holder.packs and (self._is_dry() or self._others_wait()):
                self._give_back(holder)
        wanted = not self._is_dry() and (self._most is None or len(self._holders) < self._most)
        if wanted and self._waiter is None and not self._refused:
            self._waiter = Waiter()
            self.service.ask(self._waiter, lambda waiter: self._news.put((self._granted, (waiter,))))

    def _withdraw(self) -> None:
        """Packs that have not begun never will; packs that run are ended with their servers after a moment."""
        while self._again:
            pack = self._again.popleft()
            self._supply.arrive(pack, [NoValue(CancelledError())] * len(pack.items))
        if self._end_at is not None and time.monotonic() >= self._end_at:
            self._end_at = None
            self.service.ground._end_at_once([holder.server for holder in self._holders if holder.packs])
        else:
            for holder in self._holders:
                for result, pack in reversed(list(holder.packs.items())):
                    if not pack.recalled:
                        pack.recalled = True
                        self._ask_back(holder, result)
            if self._asked:
                return
        self._withdrawn.set()

    def _take_back(self) -> None:
        """Items behind one that takes unexpectedly long can run elsewhere."""
        now = time.monotonic()
        for holder in self._holders:
            if len(holder.packs) < 2:
                continue
            first, *behind = holder.packs.items()
            if now - first[1].sent > _STUCK_S:
                for result, pack in behind:
                    if not pack.recalled:  # a host that is cut off tells nothing, and others must not wait for it
                        pack.recalled = True
                        self._ask_back(holder, result)

    def _ask_back(self, holder: _Holder, result: Result) -> None:
        """Ask its host for a pack that has not begun."""
        self._asked.add(result)
        result.cancel_later(lambda withdrawn: self._news.put((self._taken_back, (holder, result, withdrawn))))

    def _taken_back(self, holder: _Holder, result: Result, withdrawn: bool) -> None:
        """Whether it will run there. A yes comes before the end of `result` does, see `Result.cancel_later`."""
        self._asked.discard(result)
        if not withdrawn or self.cancelled:
            return  # `_back` hears of it as well, and reads that it was cancelled
        pack = holder.packs.pop(result, None)
        if pack is not None and self._doomed and self._is_doomed(pack):
            self._arrive(pack, [NoValue(CancelledError())] * len(pack.items))
        elif pack is not None:
            self._again.append(pack)

    def _arrive(self, pack: ItemPack, outcomes: list[Any]) -> None:
        if self._doomed:
            self._doomed = [item for item in self._doomed if not any(each is item for each in pack.items)]
        self._supply.arrive(pack, outcomes)

    def _end_items(self) -> None:
        """End the servers that run what is to be ended, once nothing waits behind it there that has not begun."""
        for holder in self._holders:
            place = next((at for at, pack in enumerate(holder.packs.values()) if self._is_doomed(pack)), None)
            if place is None:
                continue
            packs = list(holder.packs.items())
            for result, pack in packs[max(1, place) :]:
                if not pack.recalled:
                    pack.recalled = True
                    self._ask_back(holder, result)
            if len(packs) == 1 and holder.server.final_state is None:
                self.service.ground._end_at_once([holder.server])

    def _is_doomed(self, pack: ItemPack) -> bool:
        return any(each is item for each in pack.items for item in self._doomed)

    def _is_dry(self) -> bool:
        return self.cancelled or (not self._again and self._supply.is_dry())

    def _next_pack(self, holder: _Holder) -> ItemPack | None:
        if self.cancelled:
            return None
        under_way = len(holder.packs)
        if self._doomed and any(map(self._is_doomed, holder.packs.values())):
            return None
        if self._again:
            return self._again.popleft() if not under_way else None
        all_busy = bool(under_way) and all(other.packs for other in self._holders)
        return self._supply.take(under_way, max(1, len(self._holders)), all_busy)

    def _is_over(self, holder: _Holder) -> bool:
        """Its server is lost, or its turn has ended and others wait."""
        if holder.server.final_state is not None:
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
        self._holders += [_Holder(self.service.hand_out(server)) for server in waiter.granted]

    def _give_back(self, holder: _Holder) -> None:
        self._holders.remove(holder)
        self.service.release(holder.proxy)

    def _send(self, holder: _Holder, pack: ItemPack) -> None:
        self._supply.prepare(holder.proxy)
        pack.sent, pack.recalled = time.monotonic(), False
        try:
            result = self._supply.send(holder.proxy, pack)
        except (ServerLost, ConnectError) as exc:  # or its host did not answer what must be known before
            self._lost(pack, exc)
        except BaseException as exc:
            for other in self._supply.refused(pack, exc):
                self._send(holder, other)
        else:
            holder.packs[result] = pack
            result.when_done(lambda done: self._news.put((self._back, (holder, done))))

    def _back(self, holder: _Holder, result: Result) -> None:
        self._refused = False
        self._asked.discard(result)
        if result not in holder.packs:
            return  # it was taken back
        server = holder.server
        self._supply.check(server)
        pack = holder.packs.pop(result)
        if pack.recalled and not self.cancelled and result.cancelled():
            self._again.append(pack)  # the server itself tells so, too, and was quicker than its agent
            return
        label = self._supply.label(pack) if server.hooks else None
        for hook in server.hooks if label is not None else ():
            hook.label(server.name, result.call, label or "")
        try:
            outcomes = self._supply.read(pack, result)
        except ServerLost as exc:
            self._lost(pack, self._with_items(exc, holder, pack))
        else:
            self._arrive(pack, outcomes)

    def _lost(self, pack: ItemPack, error: BaseException) -> None:
        """Its server died: try again where that is allowed, one by one, so that a fatal item takes no others along."""
        self._last_loss = error
        if pack.tries < self._supply.retries and not self.cancelled and not (self._doomed and self._is_doomed(pack)):
            self._again += pack.singles(pack.tries + 1)
        else:
            self._arrive(pack, [NoValue(error)] * len(pack.items))

    def _with_items(self, error: ServerLost, holder: _Holder, pack: ItemPack) -> ServerLost:
        """The same loss, with the items of the server: the reader looks for the item that kills."""
        if type(error) is not ServerLost:
            return error
        if holder.had is None:
            holder.had = [pack, *holder.packs.values()]
        tries = max(each.tries for each in holder.had)
        tried = f", in attempt {tries + 1}" if tries else ""
        return ServerLost(f"{error.what}; {self._supply.told(holder.had)} there{tried}", **error.facts)

    def _end(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.told = None
            if self.service.give_up(waiter):
                self.service.give_back(waiter)
        for holder in self._holders:
            self.service.release(holder.proxy)
        self._withdrawn.set()
        self._supply.end()
