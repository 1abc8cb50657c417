"""States of a job change by a table."""

from __future__ import annotations

import itertools

import pytest

from grid.jobs import JobState, MoveError
from grid.jobs.rules.states import ENDED, MOVES, check_move


@pytest.mark.row("J21")
@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_states_change_by_the_table(before: JobState, after: JobState) -> None:
    if after in MOVES[before]:
        check_move("job-1", before, after)
    else:
        with pytest.raises(MoveError, match="job job-1"):
            check_move("job-1", before, after)


@pytest.mark.row("J21")
def test_every_job_can_end_and_the_only_way_back_is_from_active_to_pending() -> None:
    order = list(JobState)
    back = [(a, b) for a, targets in MOVES.items() for b in targets if order.index(b) < order.index(a)]
    assert back == [(JobState.ACTIVE, JobState.PENDING)]
    assert all(MOVES[state] == frozenset() for state in ENDED)
    assert all(state.ended is (state in ENDED) for state in JobState)
