"""What the log of a kept session says: facts, and of each server the calls whose results are still wanted.

A call is remembered from the moment before it is sent until nobody needs its result any more (`LogKind.DONE`). Messages
may be in the log twice, as they may come over the wire twice, and out of turn: numbers tell.

Lives here: replaying a log, and writing the same again without what is not needed (`lines`). Pure.
Elsewhere:  bytes of the log (`records`), bytes of the wire (`wire/frames`), who writes (`journal`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from grid.keeping.records import LogEntry, LogKind
from grid.wire.frames import HEAD, FrameError, Kind, split, unpack

_TWO = struct.Struct("<QQ")


@dataclass
class Past:
    """One server, as its last client knew it."""

    posted: int = 0  # the last call that was written down
    received: int = 0  # every reply up to this one was taken in
    calls: dict[int, bytes] = field(default_factory=dict)  # number -> frame; without those that nobody needs
    replies: dict[int, bytes] = field(default_factory=dict)  # call -> frame
    names: dict[int, str] = field(default_factory=dict)  # call -> its name
    _done: set[int] = field(default_factory=set)
    _ahead: set[int] = field(default_factory=set)  # numbers of replies that came out of turn
    _floor: int = 0  # of calls up to this one only those count that are in `calls`

    def called(self, frame: bytes) -> None:
        """A call was sent, perhaps again."""
        number = HEAD.unpack_from(frame)[4]
        if number > self._floor and number not in self._done:
            self.calls[number] = frame
            self.posted = max(self.posted, number)

    def answered(self, frame: bytes) -> None:
        """A reply has arrived, perhaps again."""
        _, _, _, _, number, _, call, _, _ = HEAD.unpack_from(frame)
        if number <= self.received or number in self._ahead:
            return
        self._ahead.add(number)
        self._go_on()
        if call not in self._done:
            self.replies[call] = frame

    def done(self, call: int) -> None:
        """Nobody needs the result."""
        self._done.add(call)
        for table in (self.calls, self.replies, self.names):
            table.pop(call, None)

    def link(self, posted: int, received: int) -> None:
        """So much had been sent and received in all when this was written."""
        self.posted = self._floor = max(self.posted, posted)
        self.received = max(self.received, received)
        self._ahead = {number for number in self._ahead if number > self.received}
        self._go_on()

    def _go_on(self) -> None:
        while self.received + 1 in self._ahead:
            self.received += 1
            self._ahead.discard(self.received)


def _whole(data: bytes) -> Iterator[bytes]:
    """The messages in one that came over the wire, without those that were cut on their way: they come again."""
    try:
        parts = split(data) if data[:1] == _BATCH else [data]
    except FrameError:
        return
    for part in parts:
        try:
            unpack(part)
        except FrameError:
            continue
        yield part


_BATCH = bytes([Kind.BATCH])


@dataclass
class SessionMemory:
    """See the module. `peers`: servers by their numbers."""

    facts: dict[str, Any] = field(default_factory=dict)
    peers: dict[int, Past] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[LogEntry]) -> SessionMemory:
        """All that a log says."""
        memory = cls()
        for entry in entries:
            memory.take(entry)
        return memory

    def take(self, entry: LogEntry) -> None:
        """One more record."""
        kind, payload = entry.kind, entry.payload
        if kind == LogKind.FACT:
            key, value = json.loads(bytes(payload))
            self.facts.pop(key, None)
            if value is not None:
                self.facts[key] = value
            return
        past = self.peers.get(entry.peer)
        if past is None:
            past = self.peers[entry.peer] = Past()
        if kind == LogKind.OUT or kind == LogKind.IN:
            for frame in _whole(bytes(payload)):
                if frame[0] == Kind.CALL:
                    past.called(frame)
                elif frame[0] == Kind.REPLY:
                    past.answered(frame)
        elif kind == LogKind.DONE:
            for (call,) in struct.iter_unpack("<Q", payload):
                past.done(call)
        elif kind == LogKind.NAME:
            call, name = json.loads(bytes(payload))
            if call in past.calls:
                past.names[call] = name
        elif kind == LogKind.LINK:
            past.link(*_TWO.unpack(payload))

    def facts_of(self, kind: str) -> dict[str, Any]:
        """The facts `kind/...`, by what follows."""
        start = f"{kind}/"
        return {key[len(start) :]: value for key, value in self.facts.items() if key.startswith(start)}

    def lines(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, peer, last and payload of records that say the same, and no more."""
        for key, value in self.facts.items():
            yield LogKind.FACT, 0, 0, json.dumps([key, value]).encode()
        for peer, past in self.peers.items():
            for call, frame in sorted(past.calls.items()):
                yield LogKind.OUT, peer, call, frame
                if call in past.names:
                    yield LogKind.NAME, peer, call, json.dumps([call, past.names[call]]).encode()
            # by their own numbers, as they came
            for call, frame in sorted(past.replies.items(), key=lambda item: HEAD.unpack_from(item[1])[4]):
                yield LogKind.IN, peer, call, frame
            yield LogKind.LINK, peer, 0, _TWO.pack(past.posted, past.received)
