"""Random streams for replicas: independent of one another, and the same in every run with the same seed.

Stream i depends on the seed and on i alone, not on how many there are, nor on hosts or times. With numpy they are
spawned from one `SeedSequence` (M. E. O'Neill's seed_seq design, as told in numpy's documentation "Parallel random
number generation"); without it each is a `random.Random` seeded by SHA-256. The two give different numbers.

Lives here: seeds and streams. Pure.
"""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any


def stream_seeds(seed: int, count: int) -> list[int]:
    """`count` seeds of 128 bits, for generators of any kind, here or on a server.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"there can't be {count} streams")
    return [
        int.from_bytes(hashlib.sha256(f"grid.ensemble:{seed}:{number}".encode()).digest()[:16], "big")
        for number in range(count)
    ]


def streams(seed: int, count: int, kind: str = "any") -> list[Any]:
    """`count` generators of random numbers.

    Args:
        kind: "numpy": `numpy.random.Generator`; "python": `random.Random`; "any": numpy's where there is numpy.
    Raises:
        ValueError: No such kind. ImportError: numpy was asked for and is not there.
    """
    if kind not in ("any", "numpy", "python"):
        raise ValueError(f"kind must be 'any', 'numpy' or 'python', not {kind!r}")
    if kind != "python":
        try:
            from numpy.random import SeedSequence, default_rng
        except ImportError:
            if kind == "numpy":
                raise
        else:
            if count < 0:
                raise ValueError(f"there can't be {count} streams")
            return [default_rng(child) for child in SeedSequence(seed).spawn(count)]
    return [Random(each) for each in stream_seeds(seed, count)]
