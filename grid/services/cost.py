"""What a call cost: `result.cost`.

Lives here: `Cost`, made from what a result knows.
Elsewhere:  what the server measures (`kernel/costs.py`), sums of a service (`load`, `service`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from grid.kernel.costs import FORBIDDEN, NO_COUNTER, SHORT
from grid.wire.frames import MEASURED

_WHY = {
    SHORT: "calls of less than 10 ms have no energy",
    NO_COUNTER: "the host has no counter of energy (RAPL)",
    FORBIDDEN: "only root may read the host's counter of energy (RAPL)",
}
_UNKNOWN = "its server measures no energy"


@dataclass(frozen=True)
class Cost:
    """What one call cost, of which an answer has come. Times are in seconds, sizes in bytes.

    `waiting_s`: until the calls before it on the same server were answered. `on_the_way_s`: the rest of the time that
    was neither waiting nor running: packing, travelling, unpacking there. `running_s`: as the server measured it.
    `total_s`: all three, from the call to its answer.

    `cpu_s`: of the server with all its threads, and of processes that the call waited for. `peak_memory`: the most that
    the server's process has had from its start until the end of this call. Both are None for calls of half a
    millisecond or less, which cost less than measuring them.

    `bytes_out`: sent to the server, `bytes_in`: its answer; large ones count whether they were fetched or not.
    `energy_j`: joules that all processors of the host took meanwhile, other programs included; None where it is not
    known, and `energy_why` says why.
    """

    server: str
    host: str
    slot: str
    method: str
    waiting_s: float
    on_the_way_s: float
    running_s: float
    cpu_s: float | None
    peak_memory: int | None
    bytes_out: int
    bytes_in: int
    energy_j: float | None
    energy_why: str

    @property
    def total_s(self) -> float:
        """From the call to its answer."""
        return self.waiting_s + self.on_the_way_s + self.running_s

    def as_dict(self) -> dict[str, Any]:
        """In plain values (JSON)."""
        return asdict(self)


class Costly(Protocol):
    """The part of a result that tells its cost."""

    server: Any
    method: str
    seconds: float
    size: int
    answer_size: int
    _made: float
    _answered: float
    _before_it: float
    _measured: bytes | None


def cost_of(result: Costly) -> Cost | None:
    """Of a call that was answered; None for others."""
    if not result._answered:
        return None
    running = result.seconds
    rest = max(0.0, result._answered - result._made - running)
    waiting = min(rest, max(0.0, result._before_it - result._made))
    cpu, peak, joules = (None, None, None) if result._measured is None else MEASURED.unpack(result._measured)
    known = joules is not None and joules >= 0
    return Cost(
        server=result.server.name,
        host=result.server.host.label,
        slot=result.server.slot,
        method=result.method,
        waiting_s=waiting,
        on_the_way_s=rest - waiting,
        running_s=running,
        cpu_s=cpu,
        peak_memory=None if peak is None else int(peak),
        bytes_out=result.size,
        bytes_in=result.answer_size,
        energy_j=joules if known else None,
        energy_why="" if known else _WHY.get(SHORT if joules is None else joules, _UNKNOWN),
    )
