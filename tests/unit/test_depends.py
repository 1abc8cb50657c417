"""The register of dependencies: each condition fires once, and a change costs what it decides."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grid.jobs import (
    And,
    Atom,
    Condition,
    Depends,
    Message,
)
from grid.jobs.conditions.algebra import Value

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


TABLE = [
    (T, T, T, T),
    (T, F, F, T),
    (F, T, F, T),
    (F, F, F, F),
    (T, C, C, T),
    (C, T, C, T),
    (F, C, C, F),
    (C, F, C, F),
    (C, C, C, C),
]


class Model:
    """The table, written once more, as a model of random formulas."""

    @staticmethod
    def both(a: Value, b: Value) -> Value:
        return next(row[2] for row in TABLE if row[:2] == (a, b))

    @staticmethod
    def either(a: Value, b: Value) -> Value:
        return next(row[3] for row in TABLE if row[:2] == (a, b))


NAMES = "pqrst"


formulas = st.recursive(
    st.sampled_from(NAMES),
    lambda inner: st.tuples(st.just("~"), inner) | st.tuples(st.sampled_from("&|"), inner, inner),
    max_leaves=12,
)


def build(formula: object, atoms: dict[str, Atom]) -> Condition:
    if isinstance(formula, str):
        return atoms[formula]
    if formula[0] == "~":  # type: ignore[index]
        return ~build(formula[1], atoms)  # type: ignore[index]
    _, left, right = formula  # type: ignore[misc]
    a, b = build(left, atoms), build(right, atoms)
    return a & b if formula[0] == "&" else a | b  # type: ignore[index]


def model(formula: object, values: dict[str, Value]) -> Value:
    if isinstance(formula, str):
        return values[formula]
    if formula[0] == "~":  # type: ignore[index]
        return {T: F, F: T, C: C}[model(formula[1], values)]  # type: ignore[index]
    _, left, right = formula  # type: ignore[misc]
    combine = Model.both if formula[0] == "&" else Model.either  # type: ignore[index]
    return combine(model(left, values), model(right, values))


@pytest.mark.row("C12", "C13")
@settings(max_examples=150)
@example(("~", ("|", "p", ("~", "p"))), [("p", T)])
@given(formulas, st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([T, C, F])), max_size=12))
def test_a_registered_formula_fires_once_when_the_table_says_so(
    formula: object, events: list[tuple[str, Value]]
) -> None:
    atoms = {name: Fixed(F, name) for name in NAMES}
    values = dict.fromkeys(NAMES, F)
    calls: list[str] = []
    expected: list[str] = []

    def look() -> None:
        value = model(formula, values)
        if not expected and value is not F:
            expected.append("ready" if value is T else "cancel")

    depends = Depends()
    look()
    depends.register(build(formula, atoms), lambda: calls.append("ready"), lambda reason: calls.append("cancel"))
    assert calls == expected
    for name, value in events:
        values[name] = value
        look()
        atoms[name].become(value)
        assert calls == expected
    if expected:
        assert len(depends) == 0


changes = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([T, C, F])), max_size=5)


@pytest.mark.row("C12", "C13")
@settings(max_examples=150)
@example(("&", ("~", "p"), "q"), [[("q", T), ("p", C)]])
@example(("&", ("~", "p"), "q"), [[("p", C), ("q", T)]])
@given(formulas, st.lists(changes, max_size=5))
def test_changes_of_one_event_are_judged_together(formula: object, events: list[list[tuple[str, Value]]]) -> None:
    atoms = {name: Fixed(F, name) for name in NAMES}
    values = dict.fromkeys(NAMES, F)
    calls: list[str] = []
    expected: list[str] = []
    depends = Depends()
    depends.register(build(formula, atoms), lambda: calls.append("ready"), lambda reason: calls.append("cancel"))
    for event in [[], *events]:
        with depends.together():
            for name, value in event:
                values[name] = value
                atoms[name].become(value)
                assert calls == expected
        found = model(formula, values)
        if not expected and found is not F:
            expected.append("ready" if found is T else "cancel")
        assert calls == expected


@pytest.mark.row("C12", "C13")
def test_atoms_that_are_decided_as_they_start_are_one_event_too() -> None:
    for order in (("p", "q"), ("q", "p")):  # whichever comes first
        atoms = {"p": Starts("p", C), "q": Starts("q", T)}
        calls: list[str] = []
        formula = ~atoms["p"] & atoms["q"] if order[0] == "p" else atoms["q"] & ~atoms["p"]
        Depends().register(formula, lambda calls=calls: calls.append("ready"), calls.append)  # type: ignore[misc]
        assert calls == ["p went wrong"]


class Starts(Fixed):
    """Decided by its start."""

    def __init__(self, name: str, after: Value) -> None:
        super().__init__(F, name)
        self.after = after

    def _begin(self) -> None:
        self.become(self.after)


@pytest.mark.row("C12", "C13", "C16")
def test_the_register_fires_at_once_ignores_repeats_and_isolates_errors(caplog: pytest.LogCaptureFixture) -> None:
    depends = Depends()
    calls: list[str] = []
    depends.register(Fixed(T), lambda: calls.append("now"), lambda reason: None)
    depends.register(~Fixed(F), lambda: calls.append("not"), lambda reason: None)
    depends.register(Fixed(C, "x"), lambda: None, calls.append)
    assert calls == ["now", "not", "x went wrong"]
    a = Fixed(F, "a")
    depends.register(a, lambda: 1 / 0, lambda reason: None)
    depends.register(a, lambda: calls.append("after"), lambda reason: None)
    gone = depends.register(a, lambda: calls.append("never"), lambda reason: None)
    gone.unregister()
    gone.unregister()
    a.satisfy()
    assert calls[3:] == ["after"] and "call-back" in caplog.text
    assert depends.resolve("a") == 0 == depends.resolve("nobody") and len(depends) == 0
    assert len(Depends()) == 0  # another manager has another register


@pytest.mark.row("C12")
def test_an_or_with_one_side_fired_ignores_the_other() -> None:
    depends, a, b = Depends(), Fixed(F, "a"), Fixed(F, "b")
    calls: list[str] = []
    depends.register(a | b, lambda: calls.append("ready"), calls.append)
    a.satisfy()
    b.cancel("late")
    depends.resolve("b")
    assert calls == ["ready"]


@pytest.mark.row("C14", "C15")
def test_the_register_listens_to_notices() -> None:
    depends, a, b = Depends(), Fixed(F, "a"), Fixed(F, "b")
    calls: list[str] = []
    depends.register(a, lambda: calls.append("a"), calls.append)
    depends.register(b, lambda: calls.append("b"), lambda reason: calls.append("b cancelled"))
    depends.put(Message("Notify", atom="a", status="ready"))
    depends.put(Message("Notify", atom="b", status="pending"))
    depends.put(Message("Notify", atom="b", status="cancelled"))
    depends.put(Message("Other", atom="b"))
    assert calls == ["a", "b cancelled"]


@pytest.mark.row("C13", "C25")
def test_ten_thousand_jobs_on_a_chain_cost_one_step_each() -> None:
    n = 10_000
    depends = Depends()
    atoms = [Fixed(F, f"c{i}") for i in range(n + 1)]
    for i in range(n):
        # each job, once ready, completes and so satisfies the next one's atom: not recursively
        depends.register(atoms[i], lambda: None, lambda reason: None)
    depends.steps, began = 0, time.process_time()
    for atom in atoms:
        atom.satisfy()
    assert depends.steps == n
    assert time.process_time() - began < 5.0


@pytest.mark.row("C13")
def test_ten_thousand_atoms_of_one_condition_cost_one_count_each() -> None:
    n = 10_000
    depends, calls = Depends(), []
    atoms = [Fixed(F, f"c{i}") for i in range(n)]
    depends.register(And(*atoms), lambda: calls.append(1), lambda reason: None)
    depends.steps = 0
    for atom in atoms:
        assert not calls
        atom.satisfy()
    assert calls == [1] and depends.steps <= 2 * n
