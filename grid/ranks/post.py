"""What one rank sends and receives: letters, news of other ranks, waiting that ends.

The client tells all ranks when one was lost, failed or has returned; each waiting rank hears that at its inlet. A rank
that was lost or failed ends every call of the others. A rank that returned ends those that wait for it alone, once all
that it had sent has come.

Lives here: `Post`. Elsewhere: rules (`mailbox`), sockets (`lane`), who tells the news (`launch`, by `desk`).
"""

from __future__ import annotations

import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from grid.errors import RankError, RankFailed, RankLost, RankReturned, VersionError
from grid.ranks.lane import CUSTOM, KINDS, LARGE, NOTICE, OBJECT, RAW, RankLane
from grid.ranks.mailbox import Mailbox, RankLetter, RankReceive
from grid.ranks.words import ANY_SOURCE
from grid.wire import codec

_LOOK_S = 1.0
"""Between looks at connections that may have broken, while a rank waits."""


@dataclass(frozen=True)
class RankSeat:
    """Where a rank is. `way`: its inlet, as the reader of this table reaches it, or that of a desk."""

    host: str
    server: str
    python: str
    way: str


@dataclass(frozen=True)
class Payload:
    """A message without its address."""

    kind: int
    parts: Sequence[Any]


class Pickler:
    """How the user has objects pickled, if not our way: `MPI.pickle` of mpi4py."""

    def __init__(self) -> None:
        self.dumps: Callable[..., bytes] | None = None
        self.loads: Callable[..., Any] | None = None
        self.protocol: int | None = None


class Post:
    """See the module. One thread at a time.

    Args:
        seats: Of all ranks.
    """

    def __init__(self, lane: RankLane, rank: int, seats: Sequence[RankSeat]) -> None:
        self.lane, self.rank, self.seats = lane, rank, seats
        self.mailbox = Mailbox()
        self.sent: Counter[int] = Counter()
        self.pickler = Pickler()
        self._error: RankError | None = None
        self._broken: tuple[float, str] | None = None
        self._look_at = 0.0
        self._same_python = len({seat.python for seat in seats}) == 1

    def place(self, rank: int) -> str:
        """A rank in words."""
        return f"rank {rank} on host {self.seats[rank].host!r}"

    # -- messages --------------------------------------------------------------------------------------------------

    def pack(self, value: Any) -> Payload:
        """A value as it travels.

        Raises:
            SerialisationError: It can't. VersionError: It holds code by value, and ranks have different Pythons.
        """
        if self.pickler.dumps is not None:
            return Payload(CUSTOM, (self.pickler.dumps(value, self.pickler.protocol),))
        dumped = codec.dumps(value, "the message", in_band=LARGE)
        if dumped.by_value and not self._same_python:
            pythons = ", ".join(sorted({seat.python for seat in self.seats}))
            raise VersionError(
                f"{', '.join(dumped.by_value[:4])} can't go to another rank: ranks run different Pythons ({pythons})",
                hint="Move that code into a module, or use the same minor version on all hosts",
            )
        return Payload(OBJECT, (dumped.data, *dumped.buffers))

    def unpack(self, payload: Payload | RankLetter) -> Any:
        """The value of a message. RankError: It was sent as an array, by `Send` and its like."""
        if payload.kind % KINDS == RAW:
            raise RankError("the message was sent as an array", hint="Receive it with Recv, or send it with send")
        if payload.kind % KINDS == CUSTOM:
            if self.pickler.loads is None:
                raise RankError("the message is by a pickler that this rank does not use", hint="Set it on all ranks")
            return self.pickler.loads(bytes(payload.parts[0]))
        data, *buffers = payload.parts
        return codec.loads(data, [bytearray(buffer) for buffer in buffers])  # writable, and ours

    def send(self, context: bytes, to: int, tag: int, payload: Payload, call: int = 0) -> None:
        """Send; returns when the value may be changed."""
        self.check()
        letter = RankLetter(context, self.rank, tag, payload.kind + KINDS * call, payload.parts)
        self.sent[to] += 1
        if to == self.rank:
            self.mailbox.arrive(RankLetter(context, to, tag, letter.kind, [bytes(part) for part in letter.parts]))
            return
        self.lane.send(self.seats[to].way, letter, to, self.take)

    def want(self, context: bytes, source: int, tag: int, among: Sequence[int]) -> RankReceive:
        """Begin to receive."""
        while self.take(0.0):
            pass
        return self.mailbox.want(context, source, tag, among)

    def wait(self, wanted: RankReceive, what: str) -> RankLetter:
        """Until its letter is there.

        Raises:
            RankLost, RankFailed: Another rank is lost, or its program raised. RankReturned: Nobody will write any more.
        """
        while wanted.letter is None:
            try:
                self.check()
                self._check_hope(wanted.source, wanted.among, what)
            except BaseException:
                self.mailbox.drop(wanted)
                raise
            self.take(_LOOK_S)
        return wanted.letter

    def probe(self, context: bytes, source: int, tag: int, among: Sequence[int]) -> RankLetter | None:
        """The letter that a receive would get now."""
        self.check()
        while self.take(0.0):
            pass
        return self.mailbox.peek(context, source, tag)

    def await_letter(self, context: bytes, source: int, tag: int, among: Sequence[int]) -> RankLetter:
        """Wait for a letter, and let it lie."""
        while (letter := self.probe(context, source, tag, among)) is None:
            self._check_hope(source, among, "waits for a message")
            self.take(_LOOK_S)
        return letter

    # -- what comes ------------------------------------------------------------------------------------------------

    def take(self, seconds: float) -> bool:
        """Take one letter in, waiting so long for it; whether one came. Raises as `check`."""
        came = self.lane.receive(seconds)
        if came is None:
            self._look()
            self.check()
            return False
        _, letter = came
        if letter.kind == NOTICE:
            self._hear(pickle.loads(bytes(letter.parts[0])))
        else:
            self.mailbox.arrive(letter)
        return True

    def check(self) -> None:
        """Raise what is known of ranks that are lost or failed."""
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _hear(self, news: dict[str, Any]) -> None:
        rank = news["rank"]
        if news["what"] == "returned":
            self.mailbox.ended(rank, news["sent"].get(self.rank, 0))
        elif self._error is None:
            kind = RankLost if news["what"] == "lost" else RankFailed
            self._error = kind(
                f"{self.place(rank)} {news['why']}",
                rank=rank,
                host=self.seats[rank].host,
                hint=f"Rank {self.rank} was told, and ends",
            )

    def _check_hope(self, source: int, among: Sequence[int], what: str) -> None:
        if not self.mailbox.closing:
            return
        writers = [rank for rank in among if rank != self.rank] if source == ANY_SOURCE else [source]
        if writers and self.mailbox.silent(writers):
            raise self._returned(writers, what)

    def _returned(self, ranks: Sequence[int], what: str) -> RankReturned:
        named = ", ".join(self.place(rank) for rank in ranks[:8]) + (" and others" if len(ranks) > 8 else "")
        have = "has" if len(ranks) == 1 else "have"
        return RankReturned(
            f"{named} {have} returned, and {self.place(self.rank)} {what}",
            rank=ranks[0],
            host=self.seats[ranks[0]].host,
            hint="Look which branch of the program ends before the others",
        )

    def _look(self) -> None:
        """Has a connection broken? The client gets time to name a rank that was lost: it knows better."""
        now = time.monotonic()
        if self._error is None and self._broken is not None and now > self._broken[0]:
            rank = next(rank for rank, seat in enumerate(self.seats) if seat.way == self._broken[1])
            self._error = RankLost(
                f"the connection from {self.place(self.rank)} to {self.place(rank)} broke, and messages may be lost",
                rank=rank,
                host=self.seats[rank].host,
                hint="Look at the network between the two",
            )
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            for endpoint in self.lane.broken():
                self._broken = self._broken or (now + self.lane.patience_s, endpoint)

    def leftovers(self) -> list[tuple[int, int, int]]:
        """Of messages that came and that nobody received: sender, tag, bytes."""
        return [(letter.source, letter.tag, letter.nbytes) for letter in self.mailbox.unread]

    def finish(self, sent: dict[int, int], seconds: float) -> list[tuple[int, int, int]]:
        """All have returned, and had sent us so many letters: take the rest in, and tell what nobody received."""
        deadline = time.monotonic() + seconds
        while self.mailbox.missing(sent) and (left := deadline - time.monotonic()) > 0:
            came = self.lane.receive(min(left, _LOOK_S))
            if came is not None and came[1].kind != NOTICE:
                self.mailbox.arrive(came[1])
        return self.leftovers()


def python_here() -> str:
    """This Python as ranks compare it."""
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
