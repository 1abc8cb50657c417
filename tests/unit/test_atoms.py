"""Conditions on the end, the results and the messages of a job."""

from __future__ import annotations

import copy

import pytest

from grid.jobs import (
    IsCancelled,
    IsCompleted,
    IsMessage,
    IsResult,
    Message,
)
from grid.jobs.conditions.algebra import Value
from grid.jobs.conditions.atoms import JobView

T, F, C = Value.T, Value.F, Value.C


def view(state: str, **kw: object) -> JobView:
    return JobView("job-1", state, **kw)  # type: ignore[arg-type]


@pytest.mark.row("C19", "C20")
@pytest.mark.parametrize(
    ("state", "completed", "failed"),
    [
        ("waiting", F, F),
        ("active", F, F),
        ("complete", T, C),
        ("error", C, T),
        ("aborted", C, T),
        ("cancelled", C, T),
    ],
)
def test_conditions_on_the_end_of_a_job(state: str, completed: Value, failed: Value) -> None:
    one, other = IsCompleted("job-1"), IsCancelled("job-1")
    for atom in (one, other):
        atom.see(view(state, reason="disk full"))
    assert (one.state, other.state) == (completed, failed)
    if completed is C:
        assert "job job-1" in one.reason and "disk full" in one.reason


@pytest.mark.row("C21")
def test_a_condition_on_results_looks_at_partial_and_final_ones() -> None:
    a = IsResult("job-1", "rss < 1")
    a.hear(Message("Improved", partial={"rss": 2}))
    a.hear(Message("Improved", partial={"other": 2}))
    assert a.state is F
    a.hear(Message("Improved", partial={"rss": 0.5}))
    assert a.state is T
    late = IsResult("job-1", "rss < 1")
    late.see(view("complete", result={"rss": 0.1}, best=None))
    assert late.state is T
    never = IsResult("job-1", "rss < 1")
    never.see(view("complete", result={"rss": 2}))
    assert never.state is C and "without a result for which rss < 1 holds" in never.reason
    nameless = IsResult("job-1", "rsss < 1")
    nameless.see(view("complete", result={"rss": 2}))
    assert nameless.state is C and "names 'rsss', which the result has not" in nameless.reason
    probe = IsResult("job-1", lambda value: value > 3)
    probe.put(Message("Completed", final=4))
    assert probe.state is T


@pytest.mark.row("C17", "C18")
def test_a_condition_on_messages() -> None:
    a = IsMessage("job-1", "Log", where="level == 'warning'")
    a.hear(Message("Log", level="info", text="x"))
    a.hear(Message("Improved", partial=1))
    assert a.state is F
    a.hear(Message("Log", level="warning", text="x"))
    assert a.state is T

    class Converged(IsMessage):
        def on_improved(self, message: Message) -> bool:
            return message.partial < 1

    b = Converged("job-1")
    b.put(Message("Log", text="x"))
    b.put(Message("Improved", partial=2))
    assert b.state is F
    b.put(Message("Improved", partial=0))
    assert b.state is T

    for end in ("Aborted", "Error", "Completed", "Cancelled"):
        c = IsMessage("job-1", "Log")
        c.hear(Message(end))
        assert c.state is C

    class Broken(IsMessage):
        def on_improved(self, message: Message) -> bool:
            raise ZeroDivisionError

    d = Broken("job-1")
    with pytest.raises(ZeroDivisionError):
        d.put(Message("Improved", partial=2))
    assert d.state is C and "ZeroDivisionError" in d.reason
    assert copy.copy(d) is d
