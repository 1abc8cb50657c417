"""Credits: work at higher priority costs, and what was used is forgotten with time.

Each unit at priority p > 0 costs `rate(p) = p * (p + 1) / 2` credits: 1, 3, 6, 10, ...: twice the share costs more than
twice as much, so a user has the choice between a little work soon and more work later. Units at priority 0 cost
nothing. Usage halves every `half_life_s`; who has used up `allowance` is served at priority 0 until it has faded.

Lives here: the ledger.
Elsewhere:  where it is kept (`store/`), what priority is good for (`scheduler.py`).
"""

from __future__ import annotations

from collections.abc import Mapping


def rate(priority: int) -> float:
    """Credits that one unit costs."""
    return priority * (priority + 1) / 2 if priority > 0 else 0.0


class Ledger:
    """The credits that each user has used. Times are passed in, in seconds."""

    def __init__(self, allowance: float = 10_000.0, half_life_s: float = 7 * 86400.0) -> None:
        if allowance < 0 or half_life_s <= 0:
            raise ValueError("allowance must not be negative, and half_life_s must be more than 0")
        self.allowance, self.half_life_s = allowance, half_life_s
        self._used: dict[str, tuple[float, float]] = {}  # user -> (used, when that was so)

    def used(self, user: str, now: float) -> float:
        """Used credits that are not forgotten yet."""
        used, then = self._used.get(user, (0.0, now))
        return float(used * 0.5 ** (max(0.0, now - then) / self.half_life_s))

    def balance(self, user: str, now: float) -> float:
        """The credits that the user can still spend."""
        return self.allowance - self.used(user, now)

    def can_pay(self, user: str, priority: int, now: float) -> bool:
        """Whether one unit at that priority is affordable; free work always is."""
        return priority <= 0 or self.balance(user, now) >= rate(priority)

    def charge(self, user: str, priority: int, now: float, units: float = 1.0) -> float:
        """Units were done; returns what they cost."""
        cost = units * rate(priority)
        if cost:
            self._used[user] = (self.used(user, now) + cost, now)
        return cost

    def load(self, used: Mapping[str, tuple[float, float]]) -> None:
        """Go on from a ledger that was kept."""
        self._used = dict(used)

    def dump(self) -> dict[str, tuple[float, float]]:
        """User -> (used, when): to be kept."""
        return dict(self._used)
