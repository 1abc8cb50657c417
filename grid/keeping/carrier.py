"""A carrier that writes down what it carries: calls before they are sent, replies before anybody has them.

It stands around another carrier, so that neither links nor sessions know of it, and a grid that is not kept pays
nothing. A batch is one record, as it is one message. What an agent is told and tells is not written down: it knows its
state itself (`kernel/door.py`).

Lives here: `KeptCarrier`.
Elsewhere:  carriers (`wire/carrier`), the log (`journal`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from grid.keeping.journal import Journal
from grid.keeping.records import LogKind
from grid.wire.carrier import ClientCarrier, Way
from grid.wire.frames import HEAD, Kind
from grid.wire.keys import Keys

_PEER = struct.Struct("<I")
_SEQ = struct.Struct("<Q")
_CALL, _REPLY, _BATCH = int(Kind.CALL), int(Kind.REPLY), int(Kind.BATCH)


class KeptCarrier:
    """A `ClientCarrier`. `peers`: numbers of the processes whose messages are written down."""

    def __init__(self, inner: ClientCarrier, journal: Journal) -> None:
        self._inner, self._journal = inner, journal
        self.peers: set[int] = set()
        self.bell = inner.bell
        self.attach, self.detach, self.rouse = inner.attach, inner.detach, inner.rouse
        self.news, self.forked, self.close = inner.news, inner.forked, inner.close
        self._receive, self._receive_now = inner.receive, inner.receive_now

    @property
    def patience_ms(self) -> int:
        """See `Inbox`."""
        return self._inner.patience_ms

    @patience_ms.setter
    def patience_ms(self, value: int) -> None:
        self._inner.patience_ms = value

    def way(self, inlet: str, keys: Keys | None) -> KeptWay:
        """See `ClientCarrier`."""
        return KeptWay(self._inner.way(inlet, keys), self._note_call)

    def receive(self) -> bytes | None:
        """See `Inbox`."""
        data = self._receive()
        if data:
            self._note_reply(data)
        return data

    def receive_now(self) -> bytes | None:
        """See `Inbox`."""
        data = self._receive_now()
        if data:
            self._note_reply(data)
        return data

    def _note_call(self, data: bytes) -> None:
        if data[0] == _CALL or data[0] == _BATCH:
            (peer,) = _PEER.unpack_from(data, 4)
            if peer in self.peers:
                self._journal.write(LogKind.OUT, peer, last_of(data, 8), data)

    def _note_reply(self, data: bytes) -> None:
        if (data[0] == _REPLY or data[0] == _BATCH) and len(data) >= HEAD.size:
            (peer,) = _PEER.unpack_from(data, 4)
            if peer in self.peers:
                self._journal.write(LogKind.IN, peer, last_of(data, 24), data)


class KeptWay:
    """A `Way`."""

    __slots__ = ("_inner", "_note", "_send", "close", "lead")

    def __init__(self, inner: Way, note: Callable[[bytes], None]) -> None:
        self._inner, self._note = inner, note
        self._send, self.lead, self.close = inner.send, inner.lead, inner.close

    def send(self, data: bytes) -> Any:
        """See `Carrier`."""
        self._note(data)
        return self._send(data)


def last_of(data: bytes, field: int) -> int:
    """A number (8 bytes at `field`) of the last message in a batch, or of one that came alone. 0: it makes no sense."""
    at = 0
    if data[0] == _BATCH:
        count = int.from_bytes(data[2:4], "little")
        if not count or HEAD.size + 4 * count > len(data):
            return 0
        (length,) = _PEER.unpack_from(data, HEAD.size + 4 * (count - 1))
        at = len(data) - length
        if at < 0 or at + HEAD.size > len(data):
            return 0
    return int(_SEQ.unpack_from(data, at + field)[0])
