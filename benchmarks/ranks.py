"""How long does a `sendrecv` of two ranks take, beside a call of a method on the same machine? Median, in us.

    python benchmarks/ranks.py [PAIRS]

Both are measured in turn in the same run, so that another load of the machine falls on both.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from grid import LocalGrid

ROUNDS = 2000


class Echo:
    """A method that does nothing."""

    def same(self, x: int) -> int:
        return x


def exchange(comm: Any, rounds: int) -> tuple[float, float]:
    """Median of a sendrecv of a number, and of an array of 1 MB, in us."""
    import numpy as np

    other = 1 - comm.rank
    array, got = np.ones(125_000), np.empty(125_000)
    medians = []
    for step, count in (
        (lambda: comm.sendrecv(1, other, source=other), rounds),
        (lambda: comm.Sendrecv(array, other, 0, got, other), rounds // 20),
    ):
        comm.barrier()
        times = []
        for _ in range(count):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        medians.append(1e6 * statistics.median(times))
    return medians[0], medians[1]


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with LocalGrid(2, output=None) as g:
        service_id = g.publish(Echo(), wait="all")
        for _ in range(pairs):
            with g.acquire_service(service_id) as echo:
                times = []
                for count in range(ROUNDS):
                    began = time.perf_counter()
                    echo.same(count).get()
                    times.append(time.perf_counter() - began)
            call = 1e6 * statistics.median(times)
            number, array = g.ranks(exchange, 2, args=(ROUNDS,)).get()[0]
            print(f"call {call:.0f} us, sendrecv {number:.0f} us ({number / call:.2f} calls), of 1 MB {array:.0f} us")


if __name__ == "__main__":
    main()
