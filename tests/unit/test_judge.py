"""Conditions on results are tested in turns, and one whose tests can't keep up says so."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from grid.jobs import ExpressionError
from grid.jobs.conditions.algebra import C, F, T
from grid.jobs.conditions.atoms import IsResult, JobView
from grid.jobs.manager.judge import Judge, verdict


def view(value: Any, state: str = "active") -> JobView:
    return JobView("job-1", state, best=value, has_best=True)


def atom(name: str, expression: str = "value > 3") -> IsResult:
    return IsResult("job-1", expression, id=name)


@pytest.mark.row("C21")
def test_atoms_take_turns_so_that_one_with_much_to_test_holds_up_nobody() -> None:
    tested: list[str] = []

    class Noted(IsResult):
        def verdict(self, event: Any, work: Any = None) -> Any:
            tested.append(self.id)
            return super().verdict(event, work)

    judge = Judge(threading.RLock(), most=10)
    busy, other = Noted("job-1", "value > 3", id="busy"), Noted("job-1", "value > 3", id="other")
    for value in (0, 1, 2):
        judge.add(busy, view(value))
    judge.add(other, view(9))
    while judge.turn():
        pass
    assert tested == ["busy", "other", "busy", "busy"]
    assert busy._state is F and other._state is T


@pytest.mark.row("C21", "J23")
def test_an_atom_for_which_too_many_events_wait_is_cancelled() -> None:
    judge, slow = Judge(threading.RLock(), most=2), atom("slow")
    for value in range(3):
        judge.add(slow, view(value))
    assert slow._state is C and "more than 2 messages waited to be tested" in slow.reason
    assert not judge.turn(), "what waited for it is dropped"


@pytest.mark.row("C21")
def test_what_nobody_waits_for_any_more_is_not_tested() -> None:
    judge, dropped = Judge(threading.RLock(), most=2), atom("dropped")
    judge.add(dropped, view(9))
    judge.forget(dropped)
    assert not judge.turn() and dropped._state is F


@pytest.mark.row("C21")
def test_a_test_that_fails_cancels_its_atom_with_the_reason() -> None:
    assert verdict(atom("a"), view(9)) == (T, "")
    assert verdict(atom("a"), view(1)) is None
    for error, words in (
        (ExpressionError("too much work"), "too much work"),
        (KeyError("x"), "its test failed (KeyError"),
    ):

        class Broken(IsResult):
            def verdict(self, event: Any, work: Any = None) -> Any:
                raise error  # noqa: B023

        broken = Broken("job-1", "value > 3", id="b")
        value, reason = verdict(broken, view(9)) or (F, "")
        assert value is C and reason.startswith(f"{broken}: {words}")
