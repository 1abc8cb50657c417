"""The rules of replica exchange: who may exchange with whom, by what chance, and who never waits in vain."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from math import exp
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.ensemble import Exchange, Meeting, geometric, stream_seeds, streams

pytestmark = pytest.mark.row("D03")
ROOT = Path(__file__).parents[2]


@given(st.integers(2, 9), st.integers(0, 10**6), st.lists(st.integers(0, 1), max_size=40))
def test_nobody_is_lost_and_counts_are_right(rungs: int, seed: int, firsts: list[int]) -> None:
    rng = Random(seed)
    exchange = Exchange(geometric(0.1, 1.0, rungs), Random(seed))
    for first in firsts:
        exchange.swap([rng.uniform(-5, 5) for _ in range(rungs)], first)
        assert sorted(exchange.rung) == list(range(rungs))
    assert sum(exchange.tried) == sum(len(range(first, rungs - 1, 2)) for first in firsts)
    assert all(made <= tried for made, tried in zip(exchange.made, exchange.tried, strict=True))
    assert len(exchange.acceptance()) == rungs - 1
    assert exchange.share() <= 1.0


def test_exchanges_keep_the_distribution_on_every_rung() -> None:
    """Two-level systems in contact: how often each rung finds the upper level is what Boltzmann says."""
    temperatures = [0.5, 1.0, 2.0]
    rng = Random(8)
    exchange = Exchange(temperatures, rng)
    levels = [0, 0, 0]  # energy 0 or 1, by replica
    upper = [0, 0, 0]
    rounds = 60_000
    for number in range(rounds):
        for replica in range(3):
            if rng.random() < 0.3:  # a slow walk, so that exchanges matter
                t = exchange.parameter(replica)
                there = 1 - levels[replica]
                if there < levels[replica] or rng.random() < exp(-1 / t):
                    levels[replica] = there
        exchange.swap(levels, number % 2)
        for replica in range(3):
            upper[exchange.rung[replica]] += levels[replica]
    for t, count in zip(temperatures, upper, strict=True):
        assert count / rounds == pytest.approx(exp(-1 / t) / (1 + exp(-1 / t)), abs=0.015)
    assert min(exchange.round_trips) > 100


def test_a_rule_of_ones_own_decides() -> None:
    exchange = Exchange(["a", "b", "c"], Random(1), rule=lambda low, high, one, other: 1.0 if one > other else -1e9)
    exchange.swap([3, 2, 1], 0)
    assert exchange.rung == [1, 0, 2] and exchange.acceptance() == [1.0, None]
    exchange.swap([0, 3, 9], 0)
    exchange.swap([3, 2, 9], 1)
    assert [exchange.parameter(replica) for replica in range(3)] == ["a", "b", "c"]
    assert exchange.acceptance() == [1.0, 0.0]


@settings(max_examples=200)
@given(st.integers(1, 8), st.integers(1, 12), st.integers(0, 10**9))
def test_without_a_barrier_everybody_walks_to_the_end(replicas: int, stretches: int, seed: int) -> None:
    """In whatever order they come: two neighbours never both wait, and all reach their last stretch."""
    rng = Random(seed)
    exchange = Exchange(geometric(0.1, 1.0, replicas), rng)
    meeting = Meeting(exchange)
    left = [stretches] * replicas
    running = set(range(replicas))
    while running:
        replica = rng.choice(sorted(running))
        running.remove(replica)
        left[replica] -= 1
        going = meeting.come(replica, rng.uniform(-3, 3)) if left[replica] else meeting.finish(replica)
        assert not running & set(going)
        running |= set(going)
        assert not running & set(meeting.waiting)
        rungs = sorted(exchange.rung[other] for other in meeting.waiting)
        assert all(high - low > 1 for low, high in pairwise(rungs))
        assert sorted(exchange.rung) == list(range(replicas))
    assert left == [0] * replicas and len(meeting.finished) == replicas and not meeting.waiting
    assert sum(exchange.tried) <= replicas * stretches // 2


def test_who_has_the_choice_meets_the_other_side() -> None:
    exchange = Exchange([1.0, 2.0, 3.0], Random(1), rule=lambda *_: -1e9)  # nobody is exchanged
    meeting = Meeting(exchange)
    tried = []
    for _ in range(4):
        assert meeting.come(0, 0.0) == [] and meeting.come(2, 0.0) == []
        tried.append(meeting.come(1, 0.0)[1])
        (still,) = meeting.waiting
        meeting.waiting.pop(still)
    assert tried in ([0, 2, 0, 2], [2, 0, 2, 0])


@pytest.mark.parametrize("kind", ["numpy", "python"])
def test_streams_are_reproducible_and_differ(kind: str) -> None:
    if kind == "numpy":
        pytest.importorskip("numpy")
    few, many = streams(7, 3, kind), streams(7, 50, kind)
    first = [stream.random() for stream in many]
    assert [stream.random() for stream in few] == first[:3], "a stream depends on its number alone"
    assert len(set(first)) == 50
    assert [stream.random() for stream in streams(8, 3, kind)] != first[:3]
    with pytest.raises(ValueError):
        streams(7, -1, kind)


def test_seeds_are_those_of_ever() -> None:
    assert stream_seeds(1, 2)[0] == 140843816042019820549957332060157476432
    assert len(set(stream_seeds(1, 1000)) | set(stream_seeds(2, 1000))) == 2000
    with pytest.raises(ValueError, match="kind"):
        streams(1, 1, "fortran")


def test_streams_need_no_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; from grid.ensemble import streams as s; print(s(1, 1)[0].random())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert float(done.stdout) == streams(1, 1, "python")[0].random(), done.stderr
