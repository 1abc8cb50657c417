"""What arrives at a client: each message of a host is taken in once, in its turn, and goes where it belongs.

A reply goes to its call, an event to the grid's thread, a WELCOME has the outbox repeat what the host lacks. What was
begun and torn off (see `link`) is done again when the message comes again: `Peer.delivering`, `Peer.told`.

Lives here: what a message means to its process and its call.
Elsewhere:  who receives (`link`), numbers (`session`), layout (`frames`).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from grid.wire import codec
from grid.wire.frames import HEAD, REPLY, FrameError, Kind, split, unpack
from grid.wire.peer import Peer, Pending

logger = logging.getLogger(__name__)

_ACK_EVERY = 64


class Told(Protocol):
    """The link, which is told of news in the grid's thread."""

    on_event: Callable[[Peer, Any], None]
    on_welcome: Callable[[Peer], None]


class Arrivals:
    """See the module. The leader calls `take_in`.

    Args:
        peers: Processes by number; the link's own table.
        errand: Has something done by the grid's thread.
        hello: Asks a process where to go on.
    """

    def __init__(
        self,
        link: Told,
        peers: dict[int, Peer],
        clock: Callable[[], float],
        errand: Callable[[Callable[[], None]], None],
        hello: Callable[[Peer], None],
    ) -> None:
        self._link, self._peers, self._clock, self._errand, self._hello = link, peers, clock, errand, hello
        self.taken = 0
        """Messages taken in so far."""

    def take_in(self, data: bytes) -> bool:
        """One message from a host; the caller leads. True if its sender owes more replies."""
        if (peer := self._peers.get(int.from_bytes(data[4:8], "little"))) is not None:
            peer.session.tally.received += len(data)
        if data[:1] == _BATCH:
            more = False
            try:
                for message in split(data):
                    if message[:1] != _BATCH:
                        more = self._take_one(message)
            except FrameError as exc:
                logger.warning("a batch is dropped: %s", exc)
            return more
        return self._take_one(data)

    def _take_one(self, data: bytes) -> bool:
        try:
            kind, flags, buffers, number, seq, ack, call, seconds, length = _UNHEAD(data)
            if buffers or len(data) != _HEAD_SIZE + length:
                unpack(data)
        except (struct.error, FrameError) as exc:  # before it counts as received, so that it is repeated
            logger.warning("a message of %d bytes is dropped: %s", len(data), exc)
            return False
        self.taken += 1
        peer = self._peers.get(number)
        if peer is None:
            return False  # of a process that was dropped; or a WAKE
        session = peer.session
        if kind == REPLY and seq == session.received + 1:
            pending = peer.pending.get(call)
            if pending is None and peer.delivering is not None and peer.delivering.call == call:
                pending = peer.delivering  # the first time we were torn off
            if pending is not None:
                peer.delivering = pending
                peer.pending.pop(call, None)  # before it is done: a caller that sees it done finds its server idle
                pending.deliver(flags, seconds, data)
                if pending.batons:
                    hand_batons(pending)
            session.kept.pop(call, None)
            session.received = seq
            peer.delivering = None
        elif not self._take_other(peer, kind, seq, ack, data):
            return False
        if seq - session.acked >= _ACK_EVERY or len(data) > 65_536:
            self.acknowledge(peer)
        return bool(peer.pending)

    def _take_other(self, peer: Peer, kind: int, seq: int, ack: int, data: bytes) -> bool:
        """A message that is not the next reply; true if it is news."""
        session = peer.session
        if kind == Kind.WELCOME:
            if not peer.welcomed.is_set():
                self._errand(lambda: self._link.on_welcome(peer))
                peer.welcomed.set()
            with peer.lock:
                if peer.closed is None:
                    session.rewind(ack)
                    session.flush(peer.way)
            return False
        if not session.is_next(seq):
            if session.is_gap(seq):  # something was lost on the way: have it repeated
                now = self._clock()
                if now - peer.asked_at > 0.2:
                    self._hello(peer)
            return False
        if kind == Kind.EVENT:
            self._errand(partial(self._event, peer, seq, data))
        session.received = seq
        return True

    def acknowledge(self, peer: Peer) -> None:
        """Tell a process what has been received of it, unless a call that is just being sent does."""
        if not peer.lock.locked():
            with peer.lock:
                if peer.closed is None:
                    received = peer.session.received
                    peer.way.send(peer.session.acknowledgement())
                    peer.session.acked = received

    def _event(self, peer: Peer, number: int, data: bytes) -> None:
        """In the grid's thread, where no exception comes in between: each event once."""
        if number <= peer.told:
            return  # who took it in was torn off before it was noted, so it came again
        peer.told = number
        try:
            event = codec.loads(unpack(data).pickle)
        except Exception as exc:
            logger.warning("an event is dropped: %s", exc)
            return
        self._link.on_event(peer, event)


def hand_batons(pending: Pending) -> None:
    """Wake all that wait for it."""
    for baton in list(pending.batons or ()):
        try:
            baton.release()
        except RuntimeError:
            pass  # roused already


_BATCH = bytes([Kind.BATCH])
_UNHEAD = HEAD.unpack_from
_HEAD_SIZE = HEAD.size
