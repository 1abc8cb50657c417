"""Where a burst of calls spends its time in the calling thread: `python -m benchmarks.parts.profile`.

Samples by a CPU-time signal every 0.5 ms, counted by function; C code counts for the line that called it.
"""

from __future__ import annotations

import collections
import signal
import time
import types

from grid import LocalGrid
from grid.testing.probe import Probe

CALLS, ROUNDS = 10_000, 30


def main() -> None:
    hits: collections.Counter[str] = collections.Counter()

    def sample(number: int, frame: types.FrameType | None) -> None:
        assert frame is not None
        hits[f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_code.co_name}"] += 1

    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Probe())) as proxy:
        for _ in range(300):
            proxy.add(1).get()
        signal.signal(signal.SIGPROF, sample)
        signal.setitimer(signal.ITIMER_PROF, 0.0005, 0.0005)
        began = time.thread_time()
        for _ in range(ROUNDS):
            for result in [proxy.add(1) for _ in range(CALLS)]:
                result.get()
        used = time.thread_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
    total = sum(hits.values())
    print(f"{1e6 * used / CALLS / ROUNDS:.1f} us of the calling thread's CPU for each call; of that, in per cent:")
    for where, count in hits.most_common(22):
        print(f"{100 * count / total:6.1f}  {where}")


if __name__ == "__main__":
    main()
