"""One end of a link: messages that the other end has not confirmed yet, and the number of the last one received.

Both ends of every link have one: the client's (`link`) and the host's (`kernel/hostend.py`). Messages are numbered in
each direction, from 1. Each end keeps what it sent, repeats it from where the other end says, and takes only the next
number in turn (go-back-n: Tanenbaum, Computer Networks, 3.4). So nothing is lost and nothing runs twice.

    posted     the last number that was given out: its frame is in `kept`
    sent       the last number that the carrier was given; (sent, posted] is the outbox
    confirmed  the other end has everything up to here
    received   everything of the other end up to here was taken in
    acked      the other end was told so
    epoch      which client it is: the first that the processes of a grid have, or one that took its place

**An exception may come at any byte code.** The client's end runs in the user's main thread: Ctrl-C, an alarm or any
handler of a signal may raise wherever the interpreter looks for signals, that is after calls and at the end of loops.
Therefore

- each step counts from one store on: `posted = number` (after the frame is kept), `sent = number` (after the carrier
  has it), `received = number` (after the message was delivered);
- what was begun before that store and torn off is done again by whoever comes next: it gets the same number, is sent
  again (the other end ignores it) or is delivered again (delivering twice must do no harm);
- a message that the carrier has given us and that was lost before it was delivered is a gap like any other. An end
  that was torn while it received says so at once (`Kind.HELLO`, `Kind.WELCOME`) and does not wait until a gap shows.

Lives here: numbers, acknowledgement, the outbox and its batches, repetition. Pure: no socket, no lock, no clock.
Elsewhere:  layout of messages (`frames`), what brings them over (`carrier`), when to send and who receives (`link`,
            `kernel/hostend.py`). The sender holds a lock of its own around `post`, `outgoing` and what follows from
            it; one thread at a time receives.
"""

from __future__ import annotations

from typing import Any

from grid.wire.carrier import Carrier
from grid.wire.frames import BATCH, SMALL, Kind, pack


class Tally:
    """Bytes that went each way, heads and repeated messages included."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = 0


def first_call(epoch: int) -> int:
    """Where numbers begin anew: the one before the first that a client gives out. No two clients share a number."""
    return epoch << 32


class Session:
    """See the module.

    Args:
        peer: The number of the process on the host, which all its messages carry.
        epoch: Of the client, which all its messages carry: a host takes none of another.
    """

    __slots__ = ("acked", "confirmed", "epoch", "kept", "peer", "posted", "received", "sent", "tally")

    def __init__(self, peer: int, epoch: int = 0) -> None:
        self.peer, self.epoch = peer, epoch
        self.posted = 0
        self.sent = 0
        self.confirmed = 0
        self.received = 0
        self.acked = 0
        self.tally = Tally()
        self.kept: dict[int, bytes] = {}  # number -> frame; without those that the other end is known to have

    def begin_at(self, number: int) -> None:
        """At the client: the first call is the one after this number; nothing was posted yet."""
        self.posted = self.sent = self.confirmed = number

    # -- out -------------------------------------------------------------------------------------------------------

    def post(self, frame: bytes) -> None:
        """A message is to be sent. `frame` carries the number `posted + 1` and acknowledges `received`."""
        number = self.posted + 1
        self.kept[number] = frame
        self.posted = number

    @property
    def waiting(self) -> int:
        """How many messages are in the outbox."""
        return self.posted - self.sent

    def outgoing(self) -> tuple[bytes, int] | None:
        """What the carrier gets next: one message, or a batch of small ones, and its last number. None: all is sent.

        The caller gives it to the carrier and then sets `sent` to that number.
        """
        number = max(self.sent, self.confirmed)  # it may have been sent before `sent` could say so
        last = min(self.posted, number + BATCH)
        parts: list[Any] = list(map(self.kept.get, range(number + 1, last + 1)))
        if None in parts or (parts and max(map(len, parts)) > SMALL):
            parts, last = self._without_holes(parts, number)
        if not parts:
            self.sent = last
            return None
        return (parts[0] if len(parts) == 1 else pack(Kind.BATCH, self.peer, 0, 0, buffers=parts)), last

    def _without_holes(self, frames: list[bytes | None], number: int) -> tuple[list[bytes], int]:
        """The first of these that go together: without those that were answered; one that is not small goes alone."""
        parts: list[bytes] = []
        for frame in frames:
            if frame is not None:  # else the other end has it
                if len(frame) > SMALL:
                    return (parts, number) if parts else ([frame], number + 1)
                parts.append(frame)
            number += 1
        return parts, number

    def flush(self, carrier: Carrier) -> None:
        """Give the outbox to the carrier."""
        while self.sent < self.posted:
            out = self.outgoing()
            if out is None:
                return
            carrier.send(out[0])
            self.sent = out[1]
            self.tally.sent += len(out[0])

    def rewind(self, they_have: int) -> None:
        """The other end has everything up to `they_have` and nothing after it: the outbox begins there again."""
        self.sent = min(max(they_have, self.confirmed), self.posted)

    def confirm(self, ack: int) -> None:
        """The other end has everything up to `ack`: it need not be kept."""
        number, ack = self.confirmed, min(ack, self.posted)
        while number < ack:
            number += 1
            self.kept.pop(number, None)
        self.confirmed = number

    # -- in --------------------------------------------------------------------------------------------------------

    def is_next(self, number: int) -> bool:
        """Whether it is this message's turn."""
        return number == self.received + 1

    def is_gap(self, number: int) -> bool:
        """Whether a message before this one was lost on the way."""
        return number > self.received + 1

    # -- words about it --------------------------------------------------------------------------------------------

    def hello(self) -> bytes:
        """The client's question where to go on: the host answers WELCOME and repeats what we lack."""
        return pack(Kind.HELLO, self.peer, 0, self.received, seconds=self.epoch)

    def welcome(self) -> bytes:
        """The host's answer, or its request to repeat what it lacks."""
        return pack(Kind.WELCOME, self.peer, 0, self.received, seconds=self.epoch)

    def acknowledgement(self) -> bytes:
        """Nothing but `received`."""
        return pack(Kind.ACK, self.peer, 0, self.received, seconds=self.epoch)
