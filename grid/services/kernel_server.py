"""A server that runs in one of our own kernels: calls go over its own link.

Lives here: `KernelServer`: one call out, what it needs to have there first, values that stay there, what it is doing.
Elsewhere:  the link (`wire/link.py`), the host's side (`kernel/serve.py`), its end (`grids/grid.py`).
"""

from __future__ import annotations

import itertools
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from grid.errors import GridError
from grid.hosts import Host
from grid.services.result import NOBODY, Reply, Result
from grid.services.roster import State
from grid.services.server import Server
from grid.services.stack import Stack, read_threads
from grid.wire import codec
from grid.wire.codec import Dumped
from grid.wire.kept import KeptValue
from grid.wire.link import Link, Peer

if TYPE_CHECKING:
    from grid.services.server import Holder, Remote


class HomeOfServer(Protocol):
    """The part of its host that a server uses."""

    def prepare(self, dumped: Dumped, image: dict[str, Any]) -> bytes | None:
        """Have there what a message needs; an image of `__main__` that must go with it, if one must."""

    def bring(self, source: Any, blob: str, sizes: Sequence[int]) -> Callable[[], str]:
        """Begin to copy a blob of another home's host here; the function waits for it and gives its name here."""

    def forget(self, blob: str) -> None:
        """Remove a blob; without waiting, and without an error if the host is lost."""

    def withdraw(self, server: str, call: int) -> bool:
        """Take back a call that has not begun."""

    def withdraw_later(self, server: str, call: int, then: Callable[[bool], None]) -> None:
        """The same without waiting: `then(granted)` is called by a thread that must not wait."""

    def end(self, server: str, *, force: bool) -> None:
        """End its process."""

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Have its agent do something and return its answer."""

    ends_at: float | None
    """When its allocation ends, monotonic; None if it has no end."""

    def outage(self) -> float | None:
        """Seconds since the host became unreachable; None while it answers."""


_WHERE_S = 0.5
"""For the line in which a server is: a message about a time limit comes this much later at most."""


class Moving(Exception):
    """A call was made while its server moves to another host: it is kept and sent there."""


class KernelServer(Server):
    """See the module.

    It may move: `leave` has its state sent here after the calls that it has, later calls are kept, `settle` sends them
    to the process on another host that has that state. It keeps its name and its holder.
    """

    peer: Peer
    link: Link
    claims: Any = None
    """Where the grid is kept: who has calls remembered, see `keeping/claims`."""
    snapshots: Any = None
    """Where its service has them: its own, see `grids/snapshots`."""

    def __init__(self, service_id: str, name: str, host: Host, home: HomeOfServer, number: int) -> None:
        super().__init__(service_id, name, host)
        self.home = home
        self.number = number
        self.connected = False
        self._moving = threading.Lock()
        self._kept: list[tuple[Dumped, Result]] = []  # calls made while it moves, in order

    def attach(self, link: Link, peer: Peer, image: dict[str, Any]) -> None:
        """It is up and can be called."""
        self.link, self.peer = link, peer
        peer.image = image
        peer.session.tally = self.load.tally
        self.connected = True

    @property
    def idle(self) -> bool:
        """Whether no call is under way or kept."""
        return not self.connected or not (self.peer.pending or self._kept)

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Holder) -> Result:
        """See `Server.submit`."""
        return self._submit(codec.dumps_call(method, args, kwargs), method, args, kwargs, proxy)

    def written_down(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dumped:
        """A call that can be made more than once, for `submit_again`: with arguments as they are now."""
        call = codec.dumps_call(method, args, kwargs)
        own = [memoryview(bytes(buffer)) for buffer in call.buffers]
        return Dumped(call.data, own, call.by_value, call.main_names, call.modules)

    def submit_again(self, call: Dumped, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        """Make a call that was written down; no proxy hears of it."""
        return self._submit(call, method, args, kwargs, NOBODY)

    def _submit(
        self, dumped: Dumped, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Holder
    ) -> Result:
        peer = self.peer
        image = None
        if dumped.main_names or dumped.by_value or b"\x93" in dumped.data:  # it refers to something by name
            image = self.home.prepare(dumped, peer.image)
        result = Result(self, proxy, method)
        if image is not None:
            _carried(image, result)
        try:
            self.link.call(peer, dumped, result, image)
        except Moving:
            self._keep(dumped, result)
        else:
            self._claim(result, peer)
        if self.snapshots is not None:
            self.snapshots.called()
        if self.hooks and self.service is not None:
            for hook in self.hooks:
                hook.sent(result, self.service.instance, args, kwargs)
        return result

    def _claim(self, result: Result, peer: Peer) -> None:
        """It was sent: where the grid is kept, it is remembered from now on."""
        if self.claims is not None:
            result.claim = self.claims.claim(peer.number, result.call)

    # -- values that stay on their host ----------------------------------------------------------------------------

    def keep(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Holder) -> Result:
        """See `Server.keep`."""
        home = self.home
        result = self.submit("@keep", (method, args, kwargs), {}, proxy)
        result.method = method  # by which it is shown
        result.home = result.home or home  # another one where the call was kept while this server moved
        return result

    def receive(self, value: Remote, kept: KeptValue) -> Callable[[str, Holder], Result]:
        """See `Server.receive`."""
        home, peer = self.home, self.peer
        same = value.home is home
        bring = None if same else home.bring(value.home, kept.blob, kept.sizes)

        def call(method: str, proxy: Holder) -> Result:
            here = kept if bring is None else replace(kept, blob=bring())
            if proxy._hold.released:
                raise proxy._gone(method)
            dumped = Dumped(pickle.dumps(("@take", (method, here), {"drop": not same}), 5))
            image = home.prepare(kept.needs(), peer.image)
            result = Result(self, proxy, method)
            _carried(image, result)
            try:
                self.link.call(peer, dumped, result, image)
            except Moving:  # its blob stays behind, so the value goes along with the call
                return super(KernelServer, self).receive(value, kept)(method, proxy)
            if self.snapshots is not None:
                self.snapshots.called()
            self._claim(result, peer)
            return result

        return call

    # -- from one host to another ----------------------------------------------------------------------------------

    def leave(self, method: str, args: tuple[Any, ...], reply: Reply) -> None:
        """Make the last call to the present process; later calls are kept until `settle`."""
        self.link.call(self.peer, codec.dumps((method, args, {})), reply, then=Moving())

    def fetch_early(self, result: Result) -> None:
        """A large result waits on the host until somebody asks for it: have it here before host or grid ends."""
        if self.home.ends_at is not None or (self.service is not None and self.service.has_ended()):
            threading.Thread(target=result.exception, name="grid-fetch", daemon=True).start()

    def stay(self) -> None:
        """It does not move after all: the kept calls go to the present process."""
        with self._moving:
            self.peer.refuses = self.peer.closed
            self._send_kept()

    def settle(self, home: HomeOfServer, number: int, peer: Peer, image: dict[str, Any]) -> None:
        """Its state is in another process now: send there what was kept."""
        with self._moving:
            peer.image = image
            peer.session.tally = self.load.tally
            self.home, self.number, self.peer = home, number, peer
            self._send_kept()

    def fail_kept(self, error: BaseException) -> None:
        """It got lost on the way, and so did the calls that were kept."""
        with self._moving:
            kept, self._kept = self._kept, []
        for _, result in kept:
            result.fail(error)
            self.link.rouse(result)

    def _keep(self, dumped: Dumped, result: Result) -> None:
        with self._moving:
            if isinstance(self.peer.refuses, Moving):
                self._kept.append((dumped, result))
                return
            self._send(dumped, result)  # it has settled meanwhile

    def _send_kept(self) -> None:
        while self._kept:
            self._send(*self._kept[0])
            del self._kept[0]  # only now, so that it never looks idle in between

    def _send(self, dumped: Dumped, result: Result) -> None:
        result._blobs, result.home = self.peer.blobs, self.home
        try:
            image = self.home.prepare(dumped, self.peer.image)
            _carried(image, result)
            self.link.call(self.peer, dumped, result, image)
            self._claim(result, self.peer)
            if result.name is not None and self.claims is not None:  # it was named while it was kept
                self.link.flush()
                self.claims.name(result, result.name)
        except Exception as exc:
            result.fail(exc)
            self.link.rouse(result)

    @property
    def left_s(self) -> float | None:
        """Seconds until its allocation ends; None if it has no end."""
        return None if self.home.ends_at is None else self.home.ends_at - time.monotonic()

    def oldest(self) -> Any:
        """The oldest call without an answer."""
        try:
            return next(iter(self.peer.pending.values()))
        except (StopIteration, RuntimeError, AttributeError):
            return None

    def call_s(self) -> float | None:
        """Seconds since its oldest call without an answer was made; None if there is none."""
        oldest = self.oldest()
        return None if oldest is None else time.monotonic() - oldest._made

    def where(self, limit_s: float = _WHERE_S) -> str:
        """See `Server.where`."""
        if not self.connected or self.home.outage() is not None:
            return ""
        try:
            told = self.home.ask("stacks", [self.name], timeout=limit_s)
        except GridError:
            return ""  # the message that asks for it has other things to say
        one = next((one for one in told if one["name"] == self.name), {"text": "", "why": ""})
        at = Stack(self.name, "", None, read_threads(one["text"], server=True)).at
        return at or str(one["why"])

    def withdraw(self, call: int) -> bool:
        """Take back a call that has not begun."""
        return self.home.withdraw(self.name, call)

    def withdraw_later(self, call: int, then: Callable[[bool], None]) -> None:
        """The same without waiting: `then(granted)` is called by a thread that must not wait."""
        self.home.withdraw_later(self.name, call, then)

    def end(self, *, force: bool = False) -> None:
        """See `Server.end`."""
        if self.connected:
            self.link.bye(self.peer)
        self.home.end(self.name, force=force or not self.connected)  # no word can reach one that is still starting

    def doing(self, about: Result | None = None) -> str:
        """See `Server.doing`."""
        if self.state is State.STARTING:
            return "starting"
        if self.final_state is not None:
            return f"{self.final_state.value}: {self.reason}"
        if self.connected and isinstance(self.peer.refuses, Moving):
            return f"moving to another host, {len(self._kept)} calls wait for that"
        outage = self.home.outage()
        if outage is not None:
            return f"its host has not answered for {outage:.1f} s"
        oldest = self.oldest()
        if oldest is None:
            left = self.left_s
            ends = "" if left is None else f", its allocation ends in {left:.0f} s"
            return ("acquired, no call under way" if self.state is State.BUSY else "free") + ends
        others = len(self.peer.pending) - 1
        behind = f", {others} behind it" if others else ""
        text = f"running {getattr(oldest, 'method', 'a call')!r} for {time.monotonic() - oldest._made:.1f} s{behind}"
        if about is not None and about is not oldest:
            before = sum(1 for _ in itertools.takewhile(lambda r: r is not about, list(self.peer.pending.values())))
            return f"{before} calls before it; {text}"
        return text


def _carried(image: bytes | None, result: Result) -> None:
    """A large image stays on its host until the calls that mention it are answered."""
    tell = getattr(image, "carried_by", None)
    if tell is not None:
        tell(result)
