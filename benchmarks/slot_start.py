"""How much longer does a start with slots take? `publish` of two servers, with `needs` and without, in turns.

Median of each and the ratio of the medians; a limit of memory makes a cgroup where one can be made. Two cores, Python
3.11, other work beside it: see `docs/speed.md` for what came out.
"""

from __future__ import annotations

import statistics
import time

from grid import LocalGrid, Needs

ROUNDS, ENDS_S = 20, 0.3


class Small:
    """Nothing to load."""


def start_s(g: LocalGrid, needs: Needs | None) -> float:
    """Seconds until all servers are up."""
    before = time.perf_counter()
    service_id = g.publish(Small(), wait="all", needs=needs)
    spent = time.perf_counter() - before
    g.terminate(service_id)
    time.sleep(ENDS_S)  # else the next ones wait for the slots of these
    return spent


def main() -> None:
    """Print one line for each kind of needs."""
    kinds = {"none": None, "cores": Needs(cores=1), "cores and memory": Needs(cores=1, memory="500M")}
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    with LocalGrid(2, output=None) as g:
        for needs in kinds.values():
            start_s(g, needs)  # the first look at the host is once per grid
        for _ in range(ROUNDS):
            for name, needs in kinds.items():
                spent[name].append(start_s(g, needs))
    plain = statistics.median(spent["none"])
    for name, each in spent.items():
        median = statistics.median(each)
        print(f"{name:20} {1e3 * median:6.1f} ms  {median / plain:.2f}")


if __name__ == "__main__":
    main()
