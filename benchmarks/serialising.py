"""What does serialising 10,000 small objects cost, against C pickle, cloudpickle and dill? dumps and loads together."""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass

import cloudpickle
import dill

from benchmarks.parts.measure import in_turn, table
from benchmarks.parts.particle import Particle
from grid.wire import codec

COUNT = 10_000


@dataclass
class Local:
    """A class of `__main__` when this file is run; its method holds a closure's worth of code."""

    x: float
    y: int

    def far(self) -> bool:
        return abs(self.x) > sys.float_info.epsilon


def ours(objects: object) -> object:
    """There and back."""
    dumped = codec.dumps(objects)
    return codec.loads(dumped.data, dumped.buffers)


def main() -> None:
    plain = [{"x": n * 0.5, "name": f"particle {n}", "at": (n, n + 1)} for n in range(COUNT)]
    importable = [Particle(n * 0.5, n) for n in range(COUNT)]
    local = [Local(n * 0.5, n) for n in range(COUNT)]
    shift = 3
    closures = [lambda value, n=n: value + n + shift for n in range(COUNT // 100)]
    rows = [
        in_turn(
            "builtin objects / C pickle",
            lambda: ours(plain),
            lambda: pickle.loads(pickle.dumps(plain, 5)),
            rounds=9,
            target=1.15,
        ),
        in_turn(
            "importable dataclass / C pickle",
            lambda: ours(importable),
            lambda: pickle.loads(pickle.dumps(importable, 5)),
            rounds=9,
            target=1.15,
        ),
        in_turn(
            "dataclass of __main__ / cloudpickle",
            lambda: ours(local),
            lambda: pickle.loads(cloudpickle.dumps(local, 5)),
            rounds=9,
            target=1.0,
        ),
        in_turn(
            "100 closures / cloudpickle",
            lambda: ours(closures),
            lambda: pickle.loads(cloudpickle.dumps(closures, 5)),
            rounds=9,
        ),
        in_turn("dataclass of __main__ / dill", lambda: ours(local), lambda: dill.loads(dill.dumps(local)), rounds=5),
    ]
    table("Serialising, there and back", rows, unit="ms")


if __name__ == "__main__":
    main()
