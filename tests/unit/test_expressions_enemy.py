"""No expression costs more than its budget, whatever its shape; what people write fits into it."""

from __future__ import annotations

import pytest

from grid.jobs import ExpressionError
from grid.jobs.conditions.expressions import Expression
from grid.jobs.conditions.work import UNITS, Work
from tests import monsters


@pytest.mark.row("Y01")
@pytest.mark.parametrize("text", monsters.MONSTERS, ids=range(len(monsters.MONSTERS)))
def test_each_monster_is_decided_or_refused_within_its_budget(text: str) -> None:
    _, seconds, size = monsters.measure(text)
    assert seconds < monsters.MOST_S and size < monsters.MOST_BYTES


@pytest.mark.row("Y01")
def test_random_expressions_are_decided_or_refused_within_50_ms_and_10_mb() -> None:
    seen = set()
    for text in monsters.texts(2_000, seed=1):
        outcome, seconds, size = monsters.measure(text)
        seen.add(outcome)
        assert seconds < monsters.MOST_S and size < monsters.MOST_BYTES, text
    assert seen == {"true", "false", "refused", "given up"}  # the generator reaches all of them


@pytest.mark.row("Y01")
def test_what_people_write_about_large_results_fits_into_the_budget() -> None:
    trace = [float(n) for n in range(60_000)]
    value = {"trace": trace, "steps": list(range(2_000)), "rows": [{"rss": n / 7} for n in range(500)], "name": "fit"}
    for text in (
        "max(trace) > 59000 and min(trace) == 0",
        "sum(trace) / len(trace) > 10",
        "1999 in steps and sum(steps) > 3 and max(steps) == 1999",
        "rows[-1].rss < 100 and len(rows) == 500",
        "'fi' in name and name + 's' == 'fits'",
        "all(trace) or trace[0] == 0",
        "round(trace[7] / 3, 2) == 2.33 and 2 ** 64 > 10 ** 18",
    ):
        assert Expression(text)(value) is True, text


@pytest.mark.row("Y01")
def test_the_operations_that_are_paid_for_give_what_python_gives() -> None:
    names = {"a": [1, [2, "x"]], "b": [1, [2, "y"]], "n": 7, "f": 2.5, "t": "text", "d": {"k": [1]}, "z": None}
    texts = (
        *("a == a", "a == b", "a != b", "a < b", "a <= b", "a >= b", "b > a", "a <= a", "n == f", "t == n", "d == d"),
        *("d == a", "z == None", "z is None", "1 in a", "[2, 'x'] in a", "'ex' in t", "'k' in d"),
        *(
            "a + b",
            "a * 2",
            "t * 2",
            "t + t",
            "n - f",
            "n / 2",
            "n // 2",
            "n % 4",
            "f ** 2",
            "n ** 3",
            "-n",
            "+f",
            "not n",
        ),
        *("max(a[0], n, f)", "max([f, n])", "min(t)", "sum([1, 2, f])", "sum([[1], a], [])", "len(d)", "abs(-f)"),
        *(
            "round(f)",
            "round(n * 33, -1)",
            "round(f, 1)",
            "int(f)",
            "float(n)",
            "int('12') + n",
            "all(a)",
            "any([0, n])",
        ),
        *("1 < n <= 7 < 8", "n if f else t", "a[1][0] * n", "t[-1] * n", "nan == nan or n", "inf <= n", "nan <= f"),
    )
    import math

    for text in texts:
        expected = eval(text, {"inf": math.inf, "nan": math.nan}, dict(names))  # the second witness
        found = Expression(f"value and ({text})")(names)
        assert found == expected and type(found) is type(expected), text


@pytest.mark.row("Y01")
def test_a_budget_is_shared_by_all_that_is_asked_at_once() -> None:
    work = Work(UNITS)
    ask = Expression("max(trace) < 0")
    with pytest.raises(ExpressionError, match="was given up"):
        for _ in range(100):
            ask({"trace": [1.0] * 10_000}, work)
