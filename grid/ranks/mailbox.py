"""Which letter is for which receive: the rules of MPI, and who will never write again.

Letters of one sender to one receiver are taken in the order in which they were sent, receives in the order in which
they were made; a letter that nobody wants yet waits. Pure: no socket, no clock.

Lives here: `Mailbox`. Elsewhere: where letters come from (`post`, `lane`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from grid.ranks.words import ANY_SOURCE, ANY_TAG


@dataclass(slots=True)
class RankLetter:
    """A message as it came. `source` counts over all ranks; `kind` says how to read `parts`."""

    context: bytes
    source: int
    tag: int
    kind: int
    parts: Sequence[Any]

    @property
    def nbytes(self) -> int:
        """Length of its parts together."""
        return sum(memoryview(part).nbytes for part in self.parts)


@dataclass(slots=True, eq=False)
class RankReceive:
    """A receive: what it waits for, and the letter once it is there. `among`: ranks that may have sent it."""

    context: bytes
    source: int
    tag: int
    among: Sequence[int]
    letter: RankLetter | None = None

    def takes(self, letter: RankLetter) -> bool:
        """Whether a letter is for it."""
        return (
            self.context == letter.context
            and self.source in (ANY_SOURCE, letter.source)
            and self.tag in (ANY_TAG, letter.tag)
        )


@dataclass
class Mailbox:
    """See the module. `received` counts letters by sender; `closing`: how many each that has ended had sent to us."""

    unread: list[RankLetter] = field(default_factory=list)
    waiting: list[RankReceive] = field(default_factory=list)
    received: Counter[int] = field(default_factory=Counter)
    closing: dict[int, int] = field(default_factory=dict)

    def arrive(self, letter: RankLetter) -> None:
        """A letter came."""
        self.received[letter.source] += 1
        for wanted in self.waiting:
            if wanted.takes(letter):
                wanted.letter = letter
                self.waiting.remove(wanted)
                return
        self.unread.append(letter)

    def want(self, context: bytes, source: int, tag: int, among: Sequence[int]) -> RankReceive:
        """Receive; the letter may be there already."""
        wanted = RankReceive(context, source, tag, among)
        for at, letter in enumerate(self.unread):
            if wanted.takes(letter):
                wanted.letter = letter
                del self.unread[at]
                return wanted
        self.waiting.append(wanted)
        return wanted

    def peek(self, context: bytes, source: int, tag: int) -> RankLetter | None:
        """The letter that a receive would get now; it stays."""
        wanted = RankReceive(context, source, tag, ())
        return next((letter for letter in self.unread if wanted.takes(letter)), None)

    def drop(self, wanted: RankReceive) -> None:
        """That receive is given up."""
        if wanted in self.waiting:
            self.waiting.remove(wanted)

    def ended(self, rank: int, sent: int) -> None:
        """`rank` has returned, and had sent us so many letters: some may still be on their way."""
        self.closing[rank] = sent

    def silent(self, ranks: Iterable[int]) -> bool:
        """Whether none of these will ever write again: all have returned, and all that they sent is here."""
        return all(rank in self.closing and self.received[rank] >= self.closing[rank] for rank in ranks)

    def missing(self, sent: dict[int, int]) -> int:
        """How many letters of those that were sent are not here yet."""
        return sum(max(0, count - self.received[rank]) for rank, count in sent.items())
