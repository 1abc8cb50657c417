"""How long does a small map take, over a grid and over `multiprocessing.Pool`, 2 workers each, side by side, in ms?

    python -m benchmarks.small_maps [rounds]

Two cores, load 14, Python 3.11, medians of 100 in ms, grid against `multiprocessing`: 16 items 0.33
and 0.55, 64 items 0.38 and 0.81, 256 items 0.41 and 0.56, 1,000 items 0.64 and 0.80; 64 items of 1 ms 55 and 37. Before
the pace of the last map was remembered: 1.9 and 0.33 for 16 items.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from grid import LocalGrid

SIZES = (16, 64, 256, 1000)


def double(value: int) -> int:
    return 2 * value


def one_ms(value: int) -> int:
    time.sleep(0.001)
    return value


def measure(rounds: int) -> dict[str, tuple[float, float]]:
    """What -> (median over the grid, median over `multiprocessing`), in ms; in turns, so that both bear the load."""
    found: dict[str, tuple[float, float]] = {}
    with multiprocessing.get_context("fork").Pool(2) as theirs, LocalGrid(2, output=None) as g, g.pool() as ours:
        for function, sizes in ((double, SIZES), (one_ms, (64,))):
            for size in sizes:
                items = list(range(size))
                taken: dict[Any, list[float]] = {ours: [], theirs: []}
                for number in range(rounds + 3):
                    for pool in (ours, theirs):
                        took = timed(pool, function, items)
                        if number >= 3:  # the first ones tell the pace
                            taken[pool].append(took)
                name = f"{size} items of {'1 ms' if function is one_ms else 'nothing'}"
                found[name] = (statistics.median(taken[ours]) * 1e3, statistics.median(taken[theirs]) * 1e3)
    return found


def timed(pool: Any, function: Callable[[int], int], items: list[int]) -> float:
    began = time.perf_counter()
    pool.map(function, items)
    return time.perf_counter() - began


def main() -> None:
    for name, (ours, theirs) in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200).items():
        print(f"{name:24} grid {ours:7.2f} ms   multiprocessing {theirs:7.2f} ms   ratio {ours / theirs:5.2f}")


if __name__ == "__main__":
    main()
