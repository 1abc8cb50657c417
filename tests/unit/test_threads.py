"""Variables that say how many threads libraries start: ours only where nobody said anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.slots.threads import LEADING, VARIABLES, ours_to_say

pytestmark = pytest.mark.row("O07", "O08")


@given(st.sets(st.sampled_from([*VARIABLES, "OTHER"])))
def test_what_somebody_said_stays(said: set[str]) -> None:
    ours = ours_to_say(said)
    assert not set(ours) & said
    if LEADING in said:
        assert ours == ()
    else:
        assert set(ours) == set(VARIABLES) - said and ours[0] == LEADING


def test_the_leading_one_is_that_of_openmp() -> None:
    assert VARIABLES[0] == LEADING == "OMP_NUM_THREADS" and ours_to_say({}) == VARIABLES
