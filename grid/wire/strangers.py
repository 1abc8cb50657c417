"""Connections that have not proved who they are: all of them together get a small share of what a listener has.

The rule is that of sshd's MaxStartups, with another victim. A rightful client proves who it is within a few round
trips; strangers that sit and wait are the oldest. So when the share is used up, the oldest goes: of the address that
has most, so that a crowd at one address pushes out itself, and nobody elsewhere.

Lives here: who goes, and when. Pure: connections are names, the time is an argument.
Elsewhere:  sockets (`lane_server`, `gatekeeper`), the numbers (`limits`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Strangers(Generic[K]):
    """Of one listener.

    Args:
        most: How many there may be.
        seconds: How long each has to prove who it is.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._waiting: dict[K, tuple[str, float]] = {}  # address and deadline; oldest first
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def came(self, who: K, address: str, now: float) -> list[K]:
        """A connection came; those that have to go for it, if any. They are forgotten here."""
        gone = []
        while len(self._waiting) >= self._most:
            crowd = max(self._by_address.values())
            victim = next(each for each, (where, _) in self._waiting.items() if self._by_address[where] == crowd)
            self.left(victim)
            gone.append(victim)
        self._waiting[who] = (address, now + self._seconds)
        self._by_address[address] += 1
        return gone

    def left(self, who: K) -> None:
        """A connection has proved who it is, or has ended."""
        entry = self._waiting.pop(who, None)
        if entry is not None:
            self._by_address[entry[0]] -= 1
            if not self._by_address[entry[0]]:
                del self._by_address[entry[0]]

    def overdue(self, now: float) -> list[K]:
        """Those whose time has passed; forgotten here."""
        late = []
        for who, (_, deadline) in self._waiting.items():
            if deadline > now:
                break
            late.append(who)
        for who in late:
            self.left(who)
        return late

    def oldest(self) -> K | None:
        """The one that has waited longest; forgotten here. For a process that has no descriptor left."""
        for who in self._waiting:
            self.left(who)
            return who
        return None

    def patience(self, now: float) -> float | None:
        """Seconds until one is overdue; None where there is none."""
        for _, deadline in self._waiting.values():
            return max(0.0, deadline - now)
        return None
