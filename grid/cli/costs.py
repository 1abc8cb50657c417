"""`grid status --costs`: what the calls of each service have cost, as a table.

Lives here: rows. Elsewhere: the sums (`services/load.py`), what one call cost (`services/cost.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grid.cli.show import span

COLUMNS = ["grid", "service", "calls", "running", "CPU", "peak memory", "out", "in", "energy"]


def rows(found: Sequence[dict[str, Any]]) -> list[list[Any]]:
    """One for each service of each grid that answered."""
    made: list[list[Any]] = []
    for one in found:
        for service_id, service in (one["status"] or {}).get("services", {}).items():
            cost = service.get("costs")
            if cost is None:  # a grid of an older version
                continue
            energy = "not known" if cost["energy_j"] is None else f"{cost['energy_j']:.3g} J"
            made.append(
                [one["name"], service_id, cost["calls"], span(cost["running_s"]), span(cost["cpu_s"])]
                + [size(cost[key]) for key in ("peak_memory", "bytes_out", "bytes_in")]
                + [energy]
            )
    return made


def size(count: int | None) -> str:
    """A number of bytes as people say it: `1.2 MB`."""
    if count is None:
        return "not known"
    number, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.3g} {units[0]}"
