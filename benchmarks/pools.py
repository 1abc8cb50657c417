"""What does an item cost through `g.pool()` and `g.executor()`, beside a bare grid call and the loop run here?

    python -m benchmarks.pools [ITEMS]

Times by the clock on two local servers; medians of three rounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import wait
from statistics import median

from grid import LocalGrid


class Square:
    def of(self, x: int) -> int:
        return x * x


def square(x: int) -> int:
    return x * x


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def main() -> None:
    items = range(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    one_by_one = range(2_000)
    with LocalGrid(2, output=None) as g, g.pool() as pool, g.executor() as executor:
        sid = g.publish(Square())
        pool.map(square, range(100))
        with g.acquire_service(sid) as proxy:
            bare = seconds(lambda: [proxy.of(x).get() for x in one_by_one]) / len(one_by_one)
        here = seconds(lambda: [square(x) for x in items])
        pooled = seconds(lambda: pool.map(square, items))
        single = seconds(lambda: [pool.apply(square, (x,)) for x in one_by_one]) / len(one_by_one)
        burst = seconds(lambda: wait([executor.submit(square, x) for x in range(10_000)])) / 10_000
    print(f"a bare grid call, one at a time       {bare * 1e6:8.1f} us")
    print(f"pool.apply, one at a time             {single * 1e6:8.1f} us  {single / bare:.2f} of a bare call")
    print(f"executor.submit, 10,000 at once       {burst * 1e6:8.1f} us")
    print(f"pool.map, {len(items)} items{pooled * 1e6 / len(items):18.3f} us an item")
    print(f"the loop run here{here * 1e6 / len(items):29.3f} us an item, {pooled / here:.1f} times as fast")


if __name__ == "__main__":
    main()
