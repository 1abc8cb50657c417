"""Random generators that travel: told of once, and each server has its own numbers where that is asked for."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid
from grid.wire import codec, randoms

N = 3


class Dice(random.Random):
    """A kind of one's own."""


class Walk:
    """Generators of all kinds, deep in an instance."""

    def __init__(self, *generators: Any) -> None:
        self.parts = {"deep": [generators]}

    def draw(self) -> list[float]:
        (generators,) = self.parts["deep"]
        return [getattr(each, "normal", getattr(each, "gauss", None))(0.0, 1.0) for each in generators]  # type: ignore[misc]


def numbers(walk: Walk, rounds: int = 1, **kw: Any) -> list[list[float]]:
    """What each server draws, in the order of their numbers."""
    with LocalGrid(N, output=None) as g:
        sid = g.publish(walk, wait="all", **kw)
        for _ in range(rounds - 1):
            g.gather(g.broadcast(sid, "draw"))
        drawn = list(g.gather(g.broadcast(sid, "draw")))
        g.release_all()
    return drawn


def kinds() -> list[Any]:
    found: list[Any] = [random.Random(1), Dice(2)]
    found[0].gauss(0.0, 1.0)  # it keeps every second number for the next call
    try:
        import numpy as np
    except ImportError:
        return found
    old = np.random.RandomState(5)
    old.normal()
    return [*found, np.random.default_rng(3), np.random.Generator(np.random.Philox(4)), old]


@pytest.mark.row("M23")
def test_with_reseed_no_two_servers_draw_a_number_in_common_and_runs_are_the_same() -> None:
    first = numbers(Walk(*kinds()), reseed=True)
    columns = list(zip(*first, strict=True))
    assert len(columns) == len(kinds()) and all(len(set(column)) == N for column in columns), first
    assert sorted(numbers(Walk(*kinds()), reseed=True)) == sorted(first)
    assert len({tuple(each) for each in numbers(Walk(*kinds()), reseed=False)}) == 1


@pytest.mark.row("M23")
def test_children_that_generators_spawn_differ_as_well() -> None:
    np = pytest.importorskip("numpy")
    generator = np.random.default_rng(1)
    data, found = codec.dumps(generator), []
    for number in (0, 1, 1):
        with randoms.reseeded(number):
            copy = codec.loads(data.data, data.buffers)
        found.append((copy.spawn(1)[0].random(), copy.random()))
    assert found[1] == found[2] and found[0][0] != found[1][0] and found[0][1] != found[1][1]


@pytest.mark.row("M23")
def test_a_generator_in_an_instance_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    told = []
    with caplog.at_level(logging.WARNING), LocalGrid(2, output=None) as g:
        for kind in kinds():
            walk = Walk(kind)
            told.append(g.publish(walk))
            assert g.publish(walk) == told[-1]
        g.publish(Walk(random.Random()), reseed=False)
        g.publish(Walk(random.SystemRandom(), random.Random, "random.Random"))  # no state, or none at all
    lines = [record.getMessage() for record in caplog.records if "random" in record.getMessage()]
    assert len(lines) == len(told)
    for sid, line in zip(told, lines, strict=True):
        assert f"{sid!r}" in line and "the instance holds" in line and "reseed=True" in line


SCRIPT = """
import os, random, sys
from grid import LocalGrid

RNG = random.Random(1)
UNUSED = random.Random(2)


class Draws:
    def draw(self):
        return RNG.random()


def draw(_):
    return os.getpid(), RNG.random()


if __name__ == "__main__":
    with LocalGrid(3, **eval(sys.argv[1])) as g:
        first = {}
        for pid, number in g.pool().map(draw, range(60), chunksize=1):
            first.setdefault(pid, number)
        print(len(first) - len(set(first.values())))
        sid = g.publish(Draws(), wait="all")
        print(len(set(g.gather(g.broadcast(sid, "draw")))))
        g.release_all()
"""


@pytest.mark.row("M23")
@pytest.mark.parametrize("words", ["{}", "{'reseed': True}"])
def test_a_generator_of_the_script_goes_to_pools_and_services(words: str, tmp_path: Path) -> None:
    script = tmp_path / "draws.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "random numbers" in line]
    if words == "{}":
        assert done.stdout.split()[1] == "1"
        assert len(told) == 1 and "RNG of the script" in told[0] and "UNUSED" not in done.stderr
    else:
        assert done.stdout.split() == ["0", "3"] and not told
