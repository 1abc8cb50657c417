"""What does a tiny call cost in a map, against joblib's batching and against a process pool with chunks of 1,000?

Needs joblib. Two workers each; the work is a multiplication.
"""

from __future__ import annotations

import functools
from concurrent.futures import ProcessPoolExecutor

from joblib import Parallel, delayed

from benchmarks.parts.measure import in_turn, table
from grid import LocalGrid

COUNT = 100_000


class Squares:
    """Published."""

    def square(self, value: int) -> int:
        return value * value


def square(value: int) -> int:
    """The same as a function."""
    return value * value


def main() -> None:
    with LocalGrid(2, output=None) as g, Parallel(n_jobs=2) as parallel, ProcessPoolExecutor(2) as pool:
        sid = g.publish(Squares())

        def ours() -> None:
            assert len(g.map(sid, "square", range(COUNT)).get()) == COUNT

        def theirs() -> None:
            assert len(parallel(delayed(square)(n) for n in range(COUNT))) == COUNT

        def chunks() -> None:
            assert len(list(pool.map(square, range(COUNT), chunksize=1000))) == COUNT

        theirs()  # its workers start with the first call
        chunks()
        timed = functools.partial(in_turn, rounds=5, per=COUNT)
        table(
            f"A map of {COUNT} tiny calls, per call",
            [
                timed("against joblib", ours, theirs, target=1.0),
                timed("against ProcessPoolExecutor, chunks of 1,000", ours, chunks),
            ],
        )


if __name__ == "__main__":
    main()
