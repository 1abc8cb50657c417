"""One process on a host, as the client sees it; and what waits for its replies.

Lives here: the record. Its numbers and frames are its session's.
Elsewhere:  who sends to it and receives from it (`link`), what brings frames over (`carrier`).
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

from grid.wire import bulk
from grid.wire.carrier import Way
from grid.wire.keys import Keys
from grid.wire.session import Session


class Pending(Protocol):
    """What waits for a reply."""

    done_flag: bool
    call: int
    size: int
    batons: list[Any] | None

    def deliver(self, flags: int, seconds: float, data: bytes) -> None:
        """The reply. It may come twice, where an exception of the user's tore us out of the first time."""

    def fail(self, error: BaseException) -> None:
        """No reply will come, and why."""


class Moment:
    """Is never done: to wait for messages as such."""

    done_flag = False
    call = 0
    size = 0
    batons: list[Any] | None = None

    def deliver(self, flags: int, seconds: float, data: bytes) -> None:
        """Nobody replies to it."""

    def fail(self, error: BaseException) -> None:
        """Nor does it fail."""


class Peer:
    """See the module. `endpoints` are its inlet and its outlet."""

    __slots__ = (
        "asked_at",
        "beats",
        "blobs",
        "closed",
        "connected",
        "delivering",
        "dirty",
        "endpoints",
        "heard",
        "image",
        "keys",
        "lock",
        "number",
        "pending",
        "refuses",
        "session",
        "told",
        "way",
        "welcomed",
    )

    def __init__(self, number: int, way: Way, endpoints: tuple[str, str], epoch: int = 0) -> None:
        self.number = number
        self.way = way
        self.endpoints = endpoints
        self.lock = threading.Lock()  # owner of `way` and of the outbox
        self.session = Session(number, epoch)
        self.pending: dict[int, Pending] = {}  # calls without a reply, by number, in their order
        self.delivering: Pending | None = None  # its reply is here, and is not noted as received yet
        self.told = 0  # number of the last event that the grid's thread was given
        self.welcomed = threading.Event()  # it has answered at all
        self.connected = False  # as the carrier sees it
        self.asked_at = 0.0  # last HELLO, monotonic
        self.heard = 0  # replies seen at the last look of `Link.housekeep`
        self.beats = False  # it wants to hear from us every heartbeat, and gives us up when it does not
        self.blobs: bulk.Blobs | None = None
        self.keys: Keys | None = None
        self.image: dict[str, Any] = {}  # names of __main__ that it has, and what they were
        self.closed: BaseException | None = None
        self.dirty = False  # `Link._flush_all` will look at the outbox
        self.refuses: BaseException | None = None  # what new calls get: it is closed, or moves to another host

    def send(self, frame: bytes) -> None:
        """Send a message without a number, after what waits; the caller holds the lock."""
        self.session.flush(self.way)
        self.way.send(frame)
