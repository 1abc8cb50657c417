"""Who has a server."""

from __future__ import annotations

import pytest

from grid.services.hold import Hold, Waiter


def acquired() -> Hold:
    hold = Hold()
    _of_ours(hold)
    return hold


def _of_ours(hold: Hold) -> None:
    hold.note_user()


@pytest.mark.row("U05")
def test_a_hold_is_over_for_one_who_dropped_it() -> None:
    waiter = Waiter()
    hold = Hold(waiter)
    assert hold.is_of(waiter) and not hold.is_of(Waiter()) and not hold.is_dropped()
    del waiter
    assert hold.is_dropped()
    assert not Hold().is_dropped(), "one whom nobody knows can't have dropped it"


@pytest.mark.row("U05")
def test_it_remembers_where_the_user_acquired_it() -> None:
    hold = acquired()
    assert hold.thread and hold.where == f"{__file__}:{acquired.__code__.co_firstlineno + 2}"
    assert Hold().where is None
