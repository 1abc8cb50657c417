"""A server that runs in one of our own kernels: calls go over its own link.

Lives here: `KernelServer`: one call out, what a call needs to have there first, what the server is doing.
Elsewhere:  the link (`wire/link.py`), the host's side (`kernel/serve.py`), its end (`grids/grid.py`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from grid.hosts import Host
from grid.services.result import Result
from grid.services.roster import State
from grid.services.server import Server
from grid.wire import codec
from grid.wire.codec import Dumped
from grid.wire.link import Link, Peer

if TYPE_CHECKING:
    from grid.services.proxy import Proxy


class Home(Protocol):
    """What a server needs of its host."""

    def prepare(self, dumped: Dumped, image: dict[str, Any]) -> bytes | None:
        """Have there what a message needs; an image of `__main__` that must go with it, if one must."""

    def withdraw(self, server: str, call: int) -> bool: ...
    def end(self, server: str, *, force: bool) -> None: ...
    def outage(self) -> float | None:
        """Seconds since the host became unreachable; None while it answers."""


class KernelServer(Server):
    """See the module."""

    peer: Peer
    link: Link

    def __init__(self, service_id: str, name: str, host: Host, home: Home, number: int) -> None:
        super().__init__(service_id, name, host)
        self.home = home
        self.number = number
        self.connected = False
        self.on_end: Callable[[], None] | None = None

    def attach(self, link: Link, peer: Peer, image: dict[str, Any]) -> None:
        """It is up and can be called."""
        self.link, self.peer = link, peer
        peer.image = image
        self.connected = True

    @property
    def idle(self) -> bool:
        return not self.connected or not self.peer.pending

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Proxy) -> Result:
        peer = self.peer
        dumped = codec.dumps((method, args, kwargs), f"an argument of {method!r}")
        image = None
        if dumped.main_names or dumped.by_value or b"\x93" in dumped.data:  # it refers to something by name
            image = self.home.prepare(dumped, peer.image)
        result = Result(self, proxy, method)
        self.link.call(peer, dumped, result, image)
        return result

    def oldest(self) -> Any:
        """The oldest call without an answer."""
        try:
            return next(iter(self.peer.pending.values()))
        except (StopIteration, RuntimeError, AttributeError):
            return None

    def withdraw(self, call: int) -> bool:
        """Take back a call that has not begun."""
        return self.home.withdraw(self.name, call)

    def end(self, *, force: bool = False) -> None:
        if self.connected:
            self.link.bye(self.peer)
        self.home.end(self.name, force=force or not self.connected)  # no word can reach one that is still starting

    def doing(self, about: Result | None = None) -> str:
        if self.state is State.STARTING:
            return "starting"
        if self.final_state is not None:
            return f"{self.final_state.value}: {self.reason}"
        outage = self.home.outage()
        if outage is not None:
            return f"its host has not answered for {outage:.1f} s"
        oldest = self.oldest()
        if oldest is None:
            return "acquired, no call under way" if self.state is State.BUSY else "free"
        others = len(self.peer.pending) - 1
        behind = f", {others} behind it" if others else ""
        text = f"running {getattr(oldest, 'method', 'a call')!r} for {time.monotonic() - oldest._made:.1f} s{behind}"
        if about is not None and about is not oldest:
            before = sum(1 for _ in itertools.takewhile(lambda r: r is not about, list(self.peer.pending.values())))
            return f"{before} calls before it; {text}"
        return text
