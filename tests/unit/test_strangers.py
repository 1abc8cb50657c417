"""Who goes when too many have not proved who they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.wire.strangers import Strangers

ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


@pytest.mark.row("X02")
@given(st.lists(st.tuples(st.sampled_from(["comes", "proves", "time"]), st.sampled_from(ADDRESSES))), st.integers(1, 5))
def test_there_are_never_more_than_their_share_and_each_goes_once(events: list[tuple[str, str]], most: int) -> None:
    door: Strangers[int] = Strangers(most, seconds=3.0)
    there: dict[int, tuple[str, float]] = {}
    now = 0.0
    for number, (what, address) in enumerate(events):
        if what == "comes":
            crowd = {each: [who for who, (where, _) in there.items() if where == each] for each in ADDRESSES}
            gone = door.came(number, address, now)
            assert len(gone) == (1 if len(there) == most else 0)
            for who in gone:  # the oldest of the largest crowd
                assert len(crowd[there[who][0]]) == max(map(len, crowd.values()))
                assert who == crowd[there[who][0]][0]
                del there[who]
            there[number] = (address, now)
        elif what == "proves" and there:
            who = next(iter(there))
            door.left(who)
            door.left(who)
            del there[who]
        else:
            now += 1.0
            late = door.overdue(now)
            assert late == [who for who, (_, came) in there.items() if came + 3.0 <= now]
            for who in late:
                del there[who]
        assert len(door) == len(there) <= most
        patience = door.patience(now)
        assert (patience is None) == (not there)
        assert patience is None or patience == min(came + 3.0 - now for _, came in there.values())


@pytest.mark.row("X02")
def test_a_crowd_at_one_address_pushes_out_itself() -> None:
    door: Strangers[str] = Strangers(10, seconds=60.0)
    door.came("rightful", "10.0.0.9", 0.0)
    gone = [who for number in range(1000) for who in door.came(f"stranger {number}", "10.0.0.1", 1.0)]
    assert len(gone) == 991 and "rightful" not in gone
