"""How busy a server is and was.

Lives here: `Load`. Elsewhere: who counts (`result`, `service`), who shows it (`html`, `status` of a grid).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from grid.wire.session import Tally


class Load:
    """Of one server.

    `time`: durations of its last 50 calls in seconds, newest first, at the very start one of 0.0.
    `jobs`: how often it was acquired. `calls`: calls finished. `acquired`: whether somebody has it. `at`: when its last
    call was answered, monotonic. `total`: run time of all calls, in seconds; `beyond`: by how much the CPU time
    of those that were measured is more than their run time. `peak`: the most memory that its process has had, as far as
    it was told. `tally`: bytes sent to it and received. `joules`: of the calls whose energy could be measured; None
    where none could.
    """

    __slots__ = (*("acquired", "at", "beyond", "calls", "jobs", "joules", "peak", "tally", "time", "total"),)

    def __init__(self) -> None:
        self.time: deque[float] = deque([0.0], maxlen=50)
        self.jobs = 0
        self.calls = 0
        self.total = 0.0
        self.acquired = False
        self.at = 0.0
        self.beyond = 0.0
        self.peak = 0
        self.tally = Tally()
        self.joules: float | None = None

    def add(self, seconds: float) -> None:
        """A call took `seconds`."""
        self.time.appendleft(seconds)
        self.calls += 1
        self.total += seconds

    def measured(self, seconds: float, cpu: float, peak: float, joules: float) -> None:
        """What one of these calls took besides, see `wire/frames.py`."""
        self.beyond += cpu - seconds
        self.peak = max(self.peak, int(peak))
        if joules >= 0:
            self.joules = (self.joules or 0.0) + joules

    def absorb(self, other: Load) -> None:
        """Count what another has done here, too."""
        self.calls += other.calls
        self.total += other.total
        self.beyond += other.beyond
        self.peak = max(self.peak, other.peak)
        self.tally.sent += other.tally.sent
        self.tally.received += other.tally.received
        if other.joules is not None:
            self.joules = (self.joules or 0.0) + other.joules

    def costs(self) -> dict[str, Any]:
        """The sums, in plain values (JSON). In `cpu_s` calls too short to be measured count with their run time."""
        return {
            "calls": self.calls,
            "running_s": self.total,
            "cpu_s": max(0.0, self.total + self.beyond),
            "peak_memory": self.peak or None,
            "bytes_out": self.tally.sent,
            "bytes_in": self.tally.received,
            "energy_j": self.joules,
        }

    @property
    def mean(self) -> float:
        """Mean of `time`, in seconds."""
        return sum(self.time) / len(self.time)
