"""A matrix product on as many servers as cores: with slots, unpinned with all threads each, and one with all cores.

One run, side by side, in turns: products per second of all servers together, and the ratio to the servers without slots
whose BLAS starts as many threads as there are cores, as all did before. Two cores (of one NUMA node), Python 3.11,
OpenBLAS 0.3.31, other work beside it: see `docs/speed.md` for what came out.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import numpy as np

from grid import Grid, Host, LocalGrid, Needs
from grid.slots.threads import VARIABLES

SIZE, SECONDS, ROUNDS = 400, 1.0, 7
CORES = len(os.sched_getaffinity(0))


class Product:
    """Multiplies until its time is over."""

    def __init__(self) -> None:
        self.matrix = np.ones((SIZE, SIZE))

    def work(self, seconds: float) -> int:
        """How many products came about."""
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.matrix @ self.matrix
            count += 1
        return count


def rate(g: Grid, service_id: str) -> float:
    """Products per second of all servers of a service."""
    done: list[Any] = g.gather(g.broadcast(service_id, "work", SECONDS))
    g.release_all(service_id)
    return sum(done) / SECONDS


def main() -> None:
    """Print one line for each way."""
    crowded = Host("localhost", n_cpu=CORES, ssh="local", env={name: str(CORES) for name in VARIABLES[:2]})
    with (
        LocalGrid(CORES, output=None) as pinned,
        LocalGrid(CORES, output=None) as shared,
        Grid([crowded], output=None, wait="all") as unpinned,
        LocalGrid(1, output=None) as whole,
    ):
        ways = {
            f"{CORES} servers with needs=Needs(cores=1)": (pinned, pinned.publish(Product(), needs=Needs(cores=1))),
            f"{CORES} servers without needs (threads shared out)": (shared, shared.publish(Product())),
            f"{CORES} servers with {CORES} threads each (as before)": (unpinned, unpinned.publish(Product())),
            "1 server with all cores": (whole, whole.publish(Product())),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, (g, service_id) in ways.items():
                rates[name].append(rate(g, service_id))
    middle = {name: statistics.median(each) for name, each in rates.items()}
    base = middle[list(ways)[2]]
    for name, value in middle.items():
        print(f"{name}: {value:.0f} products of {SIZE} x {SIZE} a second, ratio {value / base:.2f}")


if __name__ == "__main__":
    main()
