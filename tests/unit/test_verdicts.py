"""What each part of a job's condition is, as it is told to the page."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from grid.jobs.conditions.algebra import And, C, Condition, F, Not, Or, T, Value
from grid.jobs.conditions.atoms import IsCompleted
from grid.jobs.conditions.tree import from_tree, to_tree
from grid.web.verdicts import with_states

pytestmark = pytest.mark.row("J17")


def atom(number: int, state: Value) -> IsCompleted:
    made = IsCompleted(f"job-{number}", id=f"a{number}")
    if state is not F:
        made.decide(state, "")
    return made


def conditions(*states: Value) -> list[Condition]:
    a, b, c = (atom(number, state) for number, state in enumerate(states))
    return [a, a & b & c, a | b | c, ~a, (a | b) & ~c, ~(a & b) | c]


def told(condition: Condition, decided: Value | None = None) -> dict[str, Any]:
    return with_states(to_tree(condition), condition, decided)


def pairs(tree: dict[str, Any], condition: Condition) -> list[tuple[str, Condition]]:
    inner = [pairs(*each) for each in zip(tree.get("of", ()), condition.operands, strict=True)]
    return [(tree["state"], condition), *itertools.chain.from_iterable(inner)]


def test_each_part_is_what_the_condition_itself_says() -> None:
    for states in itertools.product((T, F, C), repeat=3):
        for condition in conditions(*states):
            for state, part in pairs(told(condition), condition):
                assert state == part.state.value, condition


def test_what_was_found_holds_for_the_whole_and_what_it_follows_of() -> None:
    a, b, c = atom(1, F), atom(2, C), atom(3, F)
    both = told(a & b, T)  # its job has begun, and b's was deleted since
    assert both["state"] == "satisfied" and [part["state"] for part in both["of"]] == ["satisfied", "satisfied"]
    one = told(Or(b, And(a, c)), T)  # one of them was, and nobody remembers which
    assert one["state"] == "satisfied" and [part["state"] for part in one["of"]] == ["cancelled", "pending"]
    none = told(Or(a, b), C)
    assert [part["state"] for part in none["of"]] == ["cancelled", "cancelled"]
    other = told(And(a, Not(c)), T)  # `not c` held while c was pending, so nothing is said of c
    assert [part["state"] for part in other["of"]] == ["satisfied", "satisfied"]
    assert other["of"][1]["of"][0]["state"] == "pending"


def test_a_tree_that_was_told_can_be_sent_again() -> None:
    for condition in conditions(T, F, C):
        assert to_tree(from_tree(told(condition))) == to_tree(condition)
