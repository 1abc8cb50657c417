"""Average, least, greatest and number of durations, by name. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Statistic:
    """Of one name; times in seconds."""

    n: int = 0
    total: float = 0.0
    min: float = math.inf
    max: float = 0.0

    @property
    def avg(self) -> float:
        """The mean duration in seconds; 0 of none."""
        return self.total / self.n if self.n else 0.0


class Statistics:
    """Durations of tasks, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Statistic] = {}

    def add(self, name: str, seconds: float) -> None:
        """One took `seconds`."""
        one = self._by_name.get(name)
        if one is None:
            one = self._by_name[name] = Statistic()
        one.n += 1
        one.total += seconds
        if seconds < one.min:
            one.min = seconds
        if seconds > one.max:
            one.max = seconds

    def table(self) -> dict[str, dict[str, float]]:
        """Name -> avg, min, max (seconds) and n, in plain values."""
        return {
            name: {"avg": one.avg, "min": one.min, "max": one.max, "n": one.n}
            for name, one in list(self._by_name.items())
        }
