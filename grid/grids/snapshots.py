"""Snapshots: the state of servers between their calls, kept here, from which others go on in the place of lost ones.

A snapshot is a call like any other: it runs behind the calls that were made before it, and has the effects of these and
of none after them. One that comes late never takes the place of a newer one.

Threads: whoever makes a call asks for one that is due by the number of calls; the watch for one that is due by time. A
helper takes the answer in, as a large one is fetched.

Lives here: `SnapshotRule` when one is due, `Snapshots` of one server, where one goes on whose host is lost, its state
            on the way there.
Elsewhere:  the state itself (`kernel/saving.py`), who takes a lost server's place (`publishing.py`), moves
            (`mover.py`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grid.arguments import check_number
from grid.errors import GridError
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.kernel.saving import Saved
from grid.services.result import Reply
from grid.wire import codec
from grid.wire.edited import as_they_are
from grid.wire.mentions import modules_in

if TYPE_CHECKING:
    from grid.services.kernel_server import KernelServer
    from grid.wire.link import Peer

logger = logging.getLogger(__name__)

_UNDER_WAY = 16
"""Snapshots of one server that were asked for and are not here, at most: calls may be made faster than they run."""


@dataclass(frozen=True)
class SnapshotRule:
    """When a snapshot of a server is due."""

    seconds: float | None = None
    calls: int | None = None

    def __bool__(self) -> bool:
        return self.seconds is not None or self.calls is not None

    def due_by_calls(self, calls: int) -> bool:
        """`calls`: how many were made since the last one was asked for."""
        return self.calls is not None and calls >= self.calls

    def due_by_time(self, calls: int, seconds: float) -> bool:
        """`seconds`: since the last one was asked for. Without a call there is nothing new."""
        return self.seconds is not None and calls > 0 and seconds >= self.seconds


def rule_of(seconds: float | None, calls: int | None, restarts: int) -> SnapshotRule:
    """As somebody said it. Raises TypeError, ValueError."""
    check_number("snapshot_s", seconds, 0, float | int | None)
    check_number("snapshot_calls", calls, 1, int | None)
    if seconds is not None and not seconds > 0:
        raise ValueError(f"snapshot_s must be more than 0, not {seconds!r}")
    rule = SnapshotRule(seconds, calls)
    if rule and restarts < 1:
        raise ValueError("snapshots are for servers that are replaced: give restarts=, how often, as well")
    return rule


@dataclass(frozen=True)
class Snapshot:
    """The state of a server after call number `call` of the process that `peer` leads to."""

    digest: bytes
    saved: Saved
    image: dict[Any, Any]  # what the process had: names of `__main__`, editions of modules
    peer: Any
    call: int
    at: float  # monotonic


@dataclass
class SaidOnce:
    """Whether somebody has heard that snapshots of a service fail."""

    once: bool = False


@dataclass
class Snapshots:
    """Of one server. `last`: the latest that is here, or the one that its process began with."""

    fleet: Fleet
    server: KernelServer
    rule: SnapshotRule
    told: SaidOnce
    last: Snapshot | None = None
    _blob: tuple[Home, str] | None = None  # the state that its process begins with, on its host
    _asked: tuple[Any, int, float] = (None, 0, 0.0)  # peer, number and time of the one that was asked for last
    _replies: list[Reply[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- when ------------------------------------------------------------------------------------------------------

    def called(self) -> None:
        """A call was made just now, by any thread."""
        if self.rule.due_by_calls(self._calls_since(self.server.peer)):
            self._ask()

    def look(self, now: float) -> None:
        """In the watch's thread, now and then."""
        server = self.server
        if server.connected and server.final_state is None:
            peer = server.peer
            since = self._asked[2] if self._asked[0] is peer else 0.0
            if self.rule.due_by_time(self._calls_since(peer), now - since):
                self._ask()

    def _calls_since(self, peer: Peer) -> int:
        """How many calls were made since the last snapshot was asked for, or since that process began."""
        return int(peer.session.posted) - (self._asked[1] if self._asked[0] is peer else 0)

    def _ask(self) -> None:
        server, peer = self.server, self.server.peer
        self._replies = waiting = [reply for reply in self._replies if not reply.done_flag]
        if len(waiting) >= _UNDER_WAY or len(peer.pending) >= self.fleet.limits.in_flight:
            return
        known = self.last.digest if self.last is not None else b""
        reply: Reply[Any] = Reply(server.link)
        try:
            word = codec.dumps(("@snapshot", (known, int(self.fleet.limits.snapshot_bytes)), {}))
            call = server.link.call(peer, word, reply)
        except Exception as exc:  # it moves, or was lost: that is dealt with elsewhere
            logger.debug("server %s can't be asked for a snapshot: %s", server.name, exc)
            return
        self._asked = (peer, call, time.monotonic())
        self._replies = [*waiting, reply]
        reply.when_done(lambda _: self.fleet.in_thread("grid-snapshot", self._take, reply, peer, call))

    # -- what came -------------------------------------------------------------------------------------------------

    def _take(self, reply: Reply[Any], peer: Any, call: int) -> None:
        """Thread: one is here, or will not come."""
        try:
            digest, saved = reply.get(0)
        except Exception as exc:
            if self.server.final_state is None and not self.fleet.halted and not self.told.once:
                self.told.once = True
                logger.warning("there is no snapshot of server %s, which goes on without: %s", self.server.name, exc)
            return
        finally:
            self.server.free_if_idle()
        self.keep(digest, saved, peer, call, time.monotonic())

    def keep(self, digest: bytes, saved: Saved | None, peer: Any, call: int, now: float) -> None:
        """Have it in the place of the last one, if it is newer. `saved`: None where only its digest came."""
        with self._lock:
            last = self.last
            if last is not None and last.peer is peer and last.call >= call:
                return
            if saved is None:
                if last is None or last.digest != digest:
                    return  # the one that it is like was not the last
                saved = last.saved
            self.last = Snapshot(digest, saved, dict(peer.image), peer, call, now)

    def age_s(self) -> float | None:
        """How old the last snapshot is; None if there is none."""
        return None if self.last is None else time.monotonic() - self.last.at

    def words(self) -> str:
        """For the error of calls that were lost."""
        age = self.age_s()
        return "no snapshot of it was taken yet" if age is None else f"its last snapshot is {age:.1f} s old"

    # -- another server goes on from it ----------------------------------------------------------------------------

    def bring(self, home: Home, wishes: dict[str, Any]) -> dict[str, Any]:
        """Have the state on a host; returns what the server's kernel is told of it."""
        assert self.last is not None
        published, blob = bring_state(home, self.last.saved, dict(self.last.image), wishes)
        self._blob = (home, blob)
        return published

    def born(self, has: dict[Any, Any]) -> dict[Any, Any]:
        """The server's process has begun, with what a fresh one has; returns what it has in truth."""
        if self._blob is None or self.last is None:
            return has
        self.drop_blob()
        return {**self.last.image, **as_they_are()}

    def drop_blob(self) -> None:
        """The state on the host is needed no more."""
        if self._blob is not None and self._blob[0].up:
            with contextlib.suppress(GridError):
                self._blob[0].ask_later("drop", self._blob[1])


def bring_state(
    home: Home, saved: Saved, entries: dict[Any, Any], wishes: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Have a server's state on a host, with what it needs of `__main__`; what its kernel is told, and the blob."""
    data, buffers, modules = saved
    packed = home.needs.pack_image(entries) if entries else None
    home.needs.have_modules(modules_in(data) | set(modules) | (packed.modules if packed else set()))
    image = packed.parts if packed else ()
    parts = [memoryview(part) for part in (data, *buffers, *image)]
    blob = home.store().write(parts)
    published = {"blob": blob, "sizes": [len(part) for part in parts], "image": len(image), "warm": []}
    return {**published, **wishes, "moved": True}, blob


def home_for(origin: Home, room: Sequence[tuple[Home, int]], *, avoid: bool) -> Home | None:
    """Where a server goes on: where it was, or else on the host that has most room, though it may have none.

    Args:
        room: Homes that may have it, and for how many more servers.
        avoid: It could not be started where it was.
    """
    possible = [(home, free) for home, free in room if not home.gone]
    if origin.up and not avoid:
        return origin
    ranked = sorted(possible, key=lambda one: (one[0] is origin, not one[0].up, one[0].outage() is not None, -one[1]))
    return ranked[0][0] if ranked else None
