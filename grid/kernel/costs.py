"""What a call takes of its host: CPU time, memory, energy. A server measures calls of half a millisecond and longer.

CPU time is that of the server with all of its threads, and of processes that the call started and waited for. Energy is
that of the whole processors (RAPL), other programs on them included: a counter in /sys, which many systems let only
root read. It is read around calls of 10 ms and longer.

Lives here: reading clocks and counters, the bytes that go with the reply.
Elsewhere:  which calls are measured (`serve`), what the client makes of it (`services/cost.py`).
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from grid.wire.frames import MEASURED

POWERCAP = Path("/sys/class/powercap")
_UNIT = 1024  # of ru_maxrss, in bytes; see getrusage(2)
_ENERGY_FROM_S = 0.01
"""Calls known to be shorter have no energy: the counters move once in a millisecond, and reading them takes long."""
SHORT, NO_COUNTER, FORBIDDEN = -1.0, -2.0, -3.0
"""Stand for joules that were not measured."""


class Meter:
    """Of one server: `begin` before a call, `end` after it. Never raises.

    Args:
        powercap: Where the counters of energy are.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._counters: list[_Counter] | None = None
        self._why = SHORT  # there is no energy to tell
        self._cpu = 0.0
        self._energy: list[int] | None = None

    def begin(self, expected_s: float | None) -> None:
        """A call begins that will take about so long, as far as anybody knows."""
        long = expected_s is None or expected_s >= _ENERGY_FROM_S
        self._energy = self._read() if long else None
        self._cpu = _cpu()

    def end(self) -> bytes:
        """The call has ended: what it took, as it travels."""
        cpu = max(0.0, _cpu() - self._cpu)
        before, after = self._energy, None if self._energy is None else self._read()
        joules = self._why
        if before is not None and after is not None and self._counters:
            joules = sum(one.joules(a, b) for one, a, b in zip(self._counters, before, after, strict=True))
        return MEASURED.pack(cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT, joules)

    def _read(self) -> list[int] | None:
        if self._counters is None:
            self._counters, self._why = _find(self._powercap)
        if not self._counters:
            return None
        try:
            return [one.read() for one in self._counters]
        except (OSError, ValueError):
            self._counters, self._why = [], NO_COUNTER
            return None


class _Counter:
    """The energy that one processor has taken, in microjoules; it begins again from 0 after `most`."""

    def __init__(self, read: Callable[[], int], most: int) -> None:
        self.read, self._most = read, most

    def joules(self, before: int, after: int) -> float:
        return (after - before if after >= before else after + self._most - before) / 1e6


def _find(powercap: Path) -> tuple[list[_Counter], float]:
    """The counters of whole processors (`intel-rapl:0:1` is a part of one); and why a call has no energy."""
    counters = []
    try:
        for place in sorted(powercap.glob("*-rapl:*")):
            if place.name.count(":") == 1:
                file = place / "energy_uj"
                most = int((place / "max_energy_range_uj").read_text())
                int(file.read_text())
                counters.append(_Counter(lambda file=file: int(file.read_text()), most))  # type: ignore[misc]
    except PermissionError:
        return [], FORBIDDEN
    except (OSError, ValueError):
        return [], NO_COUNTER
    return counters, SHORT if counters else NO_COUNTER


def _cpu() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system
