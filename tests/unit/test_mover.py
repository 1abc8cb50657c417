"""Moves of servers: the table of their steps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.grids.housing import Lodging, where_to
from grid.grids.mover import MOVES, UNDER_WAY, MoveEvent, MoveState


@pytest.mark.row("B13", "G48")
def test_a_server_may_be_lost_at_each_step_and_what_has_ended_stays_so() -> None:
    assert all(MOVES[state, MoveEvent.LOST] is MoveState.LOST for state in UNDER_WAY)
    for state, event in itertools.product(set(MoveState) - set(UNDER_WAY), MoveEvent):
        assert (state, event) not in MOVES


@pytest.mark.row("B13")
@given(st.lists(st.sampled_from(MoveEvent), max_size=30))
def test_whatever_happens_it_arrives_only_with_its_state_and_a_host(events: list[MoveEvent]) -> None:
    state, taken = MoveState.LEAVING, []
    for event in events:
        following = MOVES.get((state, event))
        if following is not None:
            state = following
            taken.append(event)
    if state is MoveState.THERE:
        assert taken[0] is MoveEvent.SAVED and taken[-2:] == [MoveEvent.HOUSED, MoveEvent.ANSWERED]
    if state is MoveState.STAYED:
        assert taken == [MoveEvent.STAYED]
    assert taken.count(MoveEvent.TURNED_AWAY) + taken.count(MoveEvent.REFUSED) <= taken.count(MoveEvent.HOUSED)


def lodging(home: str, room: int = 1, **kw: Any) -> Lodging[str]:
    return Lodging(home, room, **{"lasts": True, "origin": home == "old", **kw})


@pytest.mark.row("O17", "B13")
def test_a_home_that_refused_is_not_tried_again_and_the_old_one_is_the_last() -> None:
    old, small, large = lodging("old", 9, lasts=False), lodging("small", 1), lodging("large", 2)
    assert where_to([old, small, large], anyway=False, hopeless=False) == "large"
    large = lodging("large", 2, refused=True)
    assert where_to([old, small, large], anyway=False, hopeless=False) == "small"
    small = lodging("small", 1, refused=True)
    assert where_to([old, small, large], anyway=False, hopeless=False) == "old"  # at once: it serves there meanwhile
    old = lodging("old", 9, lasts=False, refused=True)
    assert where_to([old, small, large], anyway=True, hopeless=True) is None


@pytest.mark.row("O17", "B13")
def test_a_server_waits_for_a_home_that_lasts_as_long_as_one_may_come() -> None:
    old, late, later = lodging("old"), lodging("late", lasts=False, ends_at=5.0), lodging("later", lasts=False)
    assert where_to([old], anyway=True, hopeless=False) is None
    assert where_to([old], anyway=False, hopeless=True) == "old"
    assert where_to([old, late, later], anyway=False, hopeless=False) is None
    assert where_to([old, late, later], anyway=True, hopeless=False) == "later"
    assert where_to([old, late, later], anyway=False, hopeless=True) == "later"
    assert where_to([lodging("full", 0), lodging("old", 0)], anyway=True, hopeless=True) is None


@pytest.mark.row("O17")
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans(), st.booleans())), st.booleans())
def test_who_looks_on_with_its_refusals_ends_at_a_home_or_has_tried_each(
    homes: list[tuple[int, bool, bool, bool]], fits: bool
) -> None:
    """Each refusal is noted, as the mover does; whoever says yes ends it."""
    refused: set[int] = set()
    while True:
        every = [
            Lodging(n, room, lasts=lasts, origin=n == 0, refused=n in refused)
            for n, (room, lasts, *_) in enumerate(homes)
        ]
        home = where_to(every, anyway=True, hopeless=True)
        if home is None:
            assert refused == {n for n, (room, *_) in enumerate(homes) if room}
            return
        assert home not in refused and homes[home][0]
        if fits and homes[home][2]:
            return
        refused.add(home)
