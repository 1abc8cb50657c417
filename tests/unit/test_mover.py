"""Moves of servers: the table of their steps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert taken.count(MoveEvent.TURNED_AWAY) <= taken.count(MoveEvent.HOUSED)
