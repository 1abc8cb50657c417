"""A ladder of parameters: Metropolis' rule, who has which rung, round trips."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.ensemble.exchange import Exchange, geometric, tempering

pytestmark = pytest.mark.row("K10")


class Chance:
    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def by(gain: float) -> Any:
    return lambda *_: gain


@given(st.floats(0.1, 1e3), st.floats(0.1, 1e3), st.integers(2, 20))
def test_a_geometric_ladder(first: float, last: float, rungs: int) -> None:
    ladder = geometric(first, last, rungs)
    assert ladder[0] == first and ladder[-1] == pytest.approx(last) and len(ladder) == rungs
    factors = [high / low for low, high in pairwise(ladder)]
    assert factors == pytest.approx([factors[0]] * len(factors))
    assert geometric(first, last, 1) == [first]


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(-100, 100), st.floats(-100, 100))
def test_the_gain_is_the_ratio_of_probabilities(low: float, high: float, of_low: float, of_high: float) -> None:
    before = -of_low / low - of_high / high
    after = -of_high / low - of_low / high
    assert tempering(low, high, of_low, of_high) == pytest.approx(after - before, abs=1e-6)


@pytest.mark.parametrize(
    ("gain", "number", "made"),
    [
        (0.0, None, True),
        (5.0, None, True),
        (-1.0, math.exp(-1) - 1e-9, True),
        (-1.0, math.exp(-1), False),
        (-1e9, 0.0, False),
    ],
)
def test_what_is_accepted(gain: float, number: float | None, made: bool) -> None:
    exchange = Exchange("ab", Chance(*([] if number is None else [number])), by(gain))
    assert exchange.attempt(0, None, None) is made
    assert exchange.rung == ([1, 0] if made else [0, 1]) and exchange.share() == made
    assert exchange.acceptance() == [float(made)] and exchange.parameter(0) == ("b" if made else "a")


@given(st.integers(2, 8), st.integers(0, 1000), st.integers(1, 40))
def test_each_rung_has_one_replica_whatever_happens(rungs: int, seed: int, rounds: int) -> None:
    rng = Random(seed)
    exchange = Exchange(range(rungs), rng, lambda *_: rng.uniform(-2, 1))
    for turn in range(rounds):
        exchange.swap([None] * rungs, turn % 2)
    assert sorted(exchange.rung) == list(range(rungs))
    assert [exchange.rung[exchange.holder(rung)] for rung in range(rungs)] == list(range(rungs))
    assert all(made <= tried for made, tried in zip(exchange.made, exchange.tried, strict=True))


def test_pairs_and_the_reports_that_they_get() -> None:
    heard: list[tuple[Any, ...]] = []

    def rule(*facts: Any) -> float:
        heard.append(facts)
        return 1.0

    exchange = Exchange("abcd", Chance(), rule)
    exchange.swap([10, 11, 12, 13], 1)
    assert heard == [("b", "c", 11, 12)] and exchange.acceptance() == [None, 1.0, None]
    exchange.swap([10, 11, 12, 13], 0)  # replica 2 has rung 1 by now, replica 1 rung 2
    assert heard[1:] == [("a", "b", 10, 12), ("c", "d", 11, 13)]


def test_a_round_trip_is_to_the_last_rung_and_back() -> None:
    exchange = Exchange("abc", Chance(), by(1.0))
    for low in (0, 1, 1, 0):  # replica 0: up, up, down, down
        exchange.attempt(low, None, None)
    assert exchange.rung == [0, 1, 2] and exchange.round_trips[0] == 1
    exchange.attempt(0, None, None)
    exchange.attempt(0, None, None)
    assert exchange.round_trips == [1, 0, 0]
