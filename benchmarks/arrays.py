"""How fast do large arrays travel on this machine, against copying them in memory; and what does it cost in memory?

In: an argument. Out: a result. Echo: both. The limit is a copy into fresh memory, two for the echo. Fresh is what the
kernel has just mapped: what a heap hands out is fresh only at times.
"""

from __future__ import annotations

import functools
import mmap
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.parts.measure import Row, in_turn, table
from grid import LocalGrid
from grid.services.proxy import Proxy

MB = 1_000_000


class Arrays:
    """Published."""

    def swallow(self, array: np.ndarray) -> int:
        return array.nbytes

    def make(self, size: int) -> np.ndarray:
        return np.ones(size, np.uint8)

    def echo(self, array: np.ndarray) -> np.ndarray:
        return array

    def peak(self, reset: bool) -> tuple[int, int]:
        return memory(reset)


def memory(reset: bool) -> tuple[int, int]:
    """Bytes of this process's own memory now, and the most since the last reset (shared memory not counted)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return (int(words["RssAnon"].split()[0]) * 1024, int(words["VmHWM"].split()[0]) * 1024)


def copy(array: np.ndarray) -> np.ndarray:
    """Into fresh memory."""
    there = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype)
    there[:] = array
    return there


def one_size(proxy: Proxy, size: int) -> list[Row]:
    """In, out and echo of `size` MB."""
    array = np.ones(size * MB, np.uint8)
    timed = functools.partial(in_turn, rounds=5 if size < 200 else 3, calls=max(1, min(20, 100 // size)), target=2)
    return [
        timed(f"{size} MB in", lambda: proxy.swallow(array).get(), lambda: copy(array)),
        timed(
            f"{size} MB out (made there)",
            lambda: proxy.make(size * MB).get(),
            lambda: copy(np.ones(size * MB, np.uint8)),
        ),
        timed(f"{size} MB echo", lambda: proxy.echo(array).get(), lambda: copy(copy(array))),
    ]


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [1, 16, 64, 256, 512]
    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Arrays())) as proxy:
        rows = [row for size in sizes for row in one_size(proxy, size)]
        table("Arrays on this machine, against memcpy into fresh memory", rows, unit="ms")
        array = np.ones(256 * MB, np.uint8)
        print("\nMemory for 256 MB, as multiples of the array: growth of private memory here and at the server")
        for name, call in (
            ("in", lambda: proxy.swallow(array)),
            ("out", lambda: proxy.make(array.nbytes)),
            ("echo", lambda: proxy.echo(array)),
        ):
            here, there = memory(True)[0], proxy.peak(True).get()[0]
            kept = call().get()
            here_after, there_after = memory(False)[0], proxy.peak(False).get()[0]
            print(
                f"  {name:6} here {(here_after - here) / array.nbytes:5.2f}   server "
                f"{(there_after - there) / array.nbytes:5.2f}"
            )
            if name != "in":
                kept[0] = 7  # writable
            del kept
    print(f"  (pid {os.getpid()}; received arrays are writable: shown by writing to them)")


if __name__ == "__main__":
    main()
