"""The silence of one host, for any thread: `Silence` with a clock and a lock.

Lives here: `Liveness`. Elsewhere: the rules (`silence.py`), who acts on what follows (`outages.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from grid.grids.silence import HostAction, HostEvent, HostState, Silence, Verify
from grid.limits import Limits
from grid.wire.link import RECONNECT_S


class Liveness:
    """See the module. `clock`: seconds that only run forward."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence = Silence(limits, RECONNECT_S)
        self._clock = clock
        # The watch strikes the clock while the grid's thread hears: a move that is half computed would be overwritten,
        # and a host that is back be silent for ever.
        self._lock = threading.Lock()

    @property
    def state(self) -> HostState:
        """How the host stands."""
        return self._silence.state

    def outage(self) -> float | None:
        """Seconds since the host became unreachable; None while it answers."""
        return self._silence.outage(self._clock())

    def hear(self, event: HostEvent) -> tuple[HostAction, ...]:
        """Something was heard of it; returns what follows."""
        with self._lock:
            return self._silence.hear(event, self._clock())

    def tick(self, *, broken: bool) -> list[HostAction | Verify]:
        """The clock strikes: see `Silence.tick`."""
        with self._lock:
            return self._silence.tick(self._clock(), broken=broken)

    def part(self) -> bool:
        """Nothing leads there any more; false where that was so before."""
        with self._lock:
            before = self._silence.state
            self._silence.hear(HostEvent.PARTED, self._clock())
            return self._silence.state is not before

    def suspect(self, process: int, patience_s: float) -> None:
        """A server of it is silent, or new: it has `patience_s` seconds to be heard."""
        with self._lock:
            self._silence.suspect(process, patience_s, self._clock())

    def trust(self, process: int) -> None:
        """That server was heard, or is lost, or has left."""
        with self._lock:
            self._silence.trust(process)

    def now(self) -> float:
        """For `is_guilty`: when the agent was asked."""
        return self._clock()

    def is_guilty(self, process: int, asked: float) -> bool:
        """Whether the agent's answer, just now, proves that this server alone is silent."""
        with self._lock:
            return self._silence.is_guilty(process, asked, self._clock())
