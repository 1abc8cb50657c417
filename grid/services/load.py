"""How busy a server is and was.

Lives here: `Load`. Elsewhere: who counts (`result`, `service`), who shows it (`html`, `status` of a grid).
"""

from __future__ import annotations

from collections import deque


class Load:
    """Of one server.

    `time`: durations of its last 50 calls in seconds, newest first, at the very start one of 0.0.
    `jobs`: how often it was acquired. `calls`: calls finished. `acquired`: whether somebody has it.
    """

    __slots__ = ("acquired", "calls", "jobs", "time", "total")

    def __init__(self) -> None:
        self.time: deque[float] = deque([0.0], maxlen=50)
        self.jobs = 0
        self.calls = 0
        self.total = 0.0
        self.acquired = False

    def add(self, seconds: float) -> None:
        """A call took `seconds`."""
        self.time.appendleft(seconds)
        self.calls += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        """Mean of `time`, in seconds."""
        return sum(self.time) / len(self.time)
