"""The algebra of conditions is a table: and, or, not, with causes and explanations."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs import (
    And,
    Atom,
    Cancelled,
    Condition,
    ConditionError,
    Depends,
    Not,
    Or,
    WaitTimeout,
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


def check(condition: Condition, expected: Value, depends: set[Atom]) -> None:
    assert condition.state is expected
    assert condition.cancelled is (expected is C)
    assert condition.depends == depends
    if expected is C:
        with pytest.raises(Condition.Cancelled):
            _ = condition.ready
    else:
        assert condition.ready is (expected is T)


@pytest.mark.row("C02", "C04", "C05", "C07", "C08")
@pytest.mark.parametrize(("left", "right", "both", "either"), TABLE)
def test_every_pair_of_the_table(left: Value, right: Value, both: Value, either: Value) -> None:
    a, b = Fixed(left), Fixed(right)
    check(a & b, both, {a, b})
    check(a | b, either, {a, b})


@pytest.mark.row("C06", "C08")
@pytest.mark.parametrize(("inner", "outer"), [(T, F), (F, T), (C, C)])
def test_not(inner: Value, outer: Value) -> None:
    a = Fixed(inner)
    check(~a, outer, {a})
    check(-a, outer, {a})


@pytest.mark.row("C07", "C08")
def test_nested_ones_and_the_same_atom_twice() -> None:
    t, f, c = Fixed(T, "T"), Fixed(F, "F"), Fixed(C, "C")
    check((t | f) & t, T, {t, f})
    check((c | t) & f, F, {c, t, f})
    check(~(c | f), T, {c, f})
    check(~(c | c), C, {c})
    check((f & c) | t, T, {f, c, t})
    check(c & c, C, {c})
    assert str((t | f) & ~c) == "((T or F) and (not C))"


@pytest.mark.row("C03", "C42")
def test_cancelled_names_the_atoms_that_did_it_and_explain_tells_all() -> None:
    t, f, c, d = Fixed(T, "T"), Fixed(F, "F"), Fixed(C, "C"), Fixed(C, "D")
    with pytest.raises(Cancelled, match="C went wrong") as caught:
        _ = (t & (f & c)).ready
    assert caught.value.atoms == (c,) and caught.value.reasons == ("C went wrong",)
    assert Condition.Cancelled is Cancelled
    explained = ((c | d) & f).explain()
    assert "is cancelled" in explained and "C is cancelled: C went wrong" in explained and "D is cancelled" in explained
    assert "F is pending" in (t & f).explain() and "T is" not in (t & f).explain()


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


@pytest.mark.row("C07", "C08")
@given(formulas, st.tuples(*[st.sampled_from([T, F, C])] * len(NAMES)))
def test_any_formula_has_the_value_of_the_table(formula: object, states: tuple[Value, ...]) -> None:
    values = dict(zip(NAMES, states, strict=True))
    atoms = {name: Fixed(value, name) for name, value in values.items()}
    assert build(formula, atoms).state is model(formula, values)


@pytest.mark.row("C09", "C10", "C11")
def test_an_atom_has_an_id_is_started_once_and_tells_of_changes() -> None:
    a, b = Fixed(F), Fixed(F)
    assert a != b and a.depends == {a} and hash(a) == hash(Fixed(F, a.id)) and Fixed(F, a.id) == a
    depends = Depends()
    depends.register(a & b, lambda: None, lambda reason: None)
    depends.register(a, lambda: None, lambda reason: None)
    a.start()
    assert a.begun == 1
    told: list[str] = []
    a.notify = lambda atom: told.append(atom.id)
    a.satisfy()
    a.satisfy()
    assert told == [a.id]
    with pytest.raises(NotImplementedError):
        Atom().start()


@pytest.mark.row("C02")
def test_waiting_for_a_condition_and_awaiting_it() -> None:
    a, b = Fixed(F, "a"), Fixed(F, "b")
    with pytest.raises(WaitTimeout, match=r"\(a and b\) is still pending after 0.05 s"):
        (a & b).wait(0.05)

    async def both() -> None:
        waiting = asyncio.ensure_future(_await(a & b))
        await asyncio.sleep(0.01)
        a.satisfy()
        b.satisfy()
        await waiting

    asyncio.run(both())
    (a & b).wait(0)
    with pytest.raises(Cancelled):
        (a & Fixed(C)).wait(10)


async def _await(condition: Condition) -> None:
    await condition


def test_conditions_are_no_truth_values() -> None:
    with pytest.raises(TypeError):
        bool(Fixed(T))
    with pytest.raises(ConditionError):
        And()
    with pytest.raises(ConditionError):
        Or(1)  # type: ignore[arg-type]
    assert isinstance(~Fixed(T), Not)
