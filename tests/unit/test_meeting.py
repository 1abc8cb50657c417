"""Exchanges without a barrier: somebody always runs, and nobody meets one neighbour for ever."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.ensemble.exchange import Exchange
from grid.ensemble.meeting import Meeting

pytestmark = pytest.mark.row("K10")


def meeting(rungs: int, gain: float = 1.0, seed: int = 0) -> tuple[Exchange, Meeting]:
    exchange = Exchange(range(rungs), Random(seed), lambda *_: gain)
    return exchange, Meeting(exchange)


@given(st.integers(1, 7), st.integers(0, 10_000), st.floats(-3, 1))
def test_it_never_stops_and_ends(rungs: int, seed: int, gain: float) -> None:
    rng = Random(seed)
    exchange, meet = meeting(rungs, gain, seed)
    running, left = set(range(rungs)), [rng.randint(1, 6) for _ in range(rungs)]
    while running:
        replica = rng.choice(sorted(running))
        running.discard(replica)
        left[replica] -= 1
        go = meet.come(replica, None) if left[replica] else meet.finish(replica)
        assert not set(go) & running
        running.update(go)
        waiting = set(meet.waiting)
        for each in waiting:  # two neighbours never both wait
            assert (
                not {exchange.holder(r) for r in (exchange.rung[each] - 1, exchange.rung[each] + 1) if 0 <= r < rungs}
                & waiting
            )
    assert meet.finished == set(range(rungs)) and not meet.waiting


def test_the_first_waits_and_the_second_exchanges_with_it() -> None:
    exchange, meet = meeting(3)
    assert meet.come(0, "a") == [] and meet.waiting == {0: "a"}
    assert set(meet.come(1, "b")) == {0, 1} and exchange.rung == [1, 0, 2] and not meet.waiting


def test_of_two_that_wait_it_takes_the_side_that_it_did_not_meet_last() -> None:
    exchange, meet = meeting(3, gain=-1e9)  # nobody moves
    meet.come(0, None)
    meet.come(2, None)
    first = set(meet.come(1, None)) - {1}
    other = {0, 2} - first
    assert meet.come(first.copy().pop(), None) == []
    assert set(meet.come(1, None)) - {1} == other
    assert exchange.rung == [0, 1, 2]


def test_who_has_no_neighbour_left_goes_on_alone() -> None:
    _, meet = meeting(2)
    assert meet.come(0, None) == [] and meet.finish(1) == [0]
    assert meet.come(0, None) == [0] and meet.finish(0) == []
    _, alone = meeting(1)
    assert alone.come(0, None) == [0]
