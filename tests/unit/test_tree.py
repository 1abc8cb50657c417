"""Conditions travel as trees; what users may write for one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from grid.jobs import (
    And,
    Atom,
    Condition,
    ConditionError,
    HasServers,
    IsCancelled,
    IsComplete,
    IsCompleted,
    IsFetched,
    IsMessage,
    IsResult,
)
from grid.jobs.conditions.algebra import Value
from grid.jobs.conditions.tree import as_condition, from_tree, to_tree

T, F, C = Value.T, Value.F, Value.C


class Fixed(Atom):
    def __init__(self, state: Value, name: str | None = None) -> None:
        super().__init__(name)
        self._state = state
        self.begun = 0
        if state is C:
            self.reason = f"{self.id} went wrong"

    def _begin(self) -> None:
        self.begun += 1

    def become(self, state: Value) -> None:
        self._become(state, f"{self.id} went wrong" if state is C else "")


@pytest.mark.row("C23", "C09")
def test_conditions_travel_as_trees_and_keep_their_ids() -> None:
    made = (
        (IsCompleted("job-1") & ~IsCancelled("job-2"))
        | IsResult("job-3", "rss < 1")
        | (IsMessage("job-4", "Improved", where="partial['x'] > 1") & IsFetched("http://h/x", "ab", 3) & HasServers(2))
    )
    tree = to_tree(made)
    back = from_tree(tree)
    assert to_tree(back) == tree and back.depends == made.depends and str(back) == str(made)
    assert IsComplete is IsCompleted
    for wrong in ({}, [], {"op": "xor", "of": [tree]}, {"op": "not", "of": [tree, tree]}, {"atom": "nothing"}, None):
        with pytest.raises(ConditionError):
            from_tree(wrong)
    with pytest.raises(ConditionError, match="wrong arguments"):
        from_tree({"atom": "completed", "job": "j", "x": 1})
    deep: Condition = IsCompleted("job-1")
    for _ in range(300):
        deep = ~deep
    with pytest.raises(ConditionError, match="deeper"):
        to_tree(deep)


@pytest.mark.row("C23", "C21", "C17")
def test_code_of_the_client_is_not_sent() -> None:
    with pytest.raises(ConditionError, match="code of yours"):
        to_tree(IsResult("job-1", lambda value: True))
    with pytest.raises(ConditionError, match="code of yours"):
        to_tree(IsMessage("job-1", predicate=lambda message: True))
    with pytest.raises(ConditionError, match="can't be sent"):
        to_tree(Fixed(T))


@pytest.mark.row("C31", "C41")
def test_what_may_stand_for_a_condition() -> None:
    job = SimpleNamespace(iscompleted=IsCompleted("job-1"))
    assert as_condition(None) is None and as_condition([]) is None
    assert as_condition(job) is job.iscompleted
    both = as_condition([job, "http://host/file", HasServers(1), "job-7"])
    assert isinstance(both, And)
    assert [type(operand) for operand in both.operands] == [IsCompleted, IsFetched, HasServers, IsCompleted]
    for wrong in (7, object()):
        with pytest.raises(ConditionError):
            as_condition(wrong)
