"""What a batch job asks for, checked at once; times as batch systems write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch_systems.job import JobSpec, format_walltime, parse_walltime, seconds_of
from grid.errors import AllocationError

pytestmark = pytest.mark.row("B08", "L03")


@given(st.integers(1, 10**8))
def test_a_time_is_read_as_it_was_written(seconds: int) -> None:
    assert parse_walltime(format_walltime(seconds)) == seconds == seconds_of(format_walltime(seconds))


@given(st.floats(0.001, 1e6))
def test_a_time_is_rounded_up_to_whole_seconds(seconds: float) -> None:
    assert 0 <= parse_walltime(format_walltime(seconds)) - seconds < 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("01:00:00", 3600), ("2-03:00:00", 183_600), (" 5 ", 5), (2.5, 2.5), ("0:61", 61)],
)
def test_forms_of_a_walltime(text: str | float, seconds: float) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    "wrong", ["", "0", "1:", "a", "1h", "1-2", "-5", 0, -1, True, float("inf"), float("nan"), "1:2:3:4"]
)
def test_what_is_no_walltime(wrong: Any) -> None:
    with pytest.raises(AllocationError, match="walltime"):
        parse_walltime(wrong)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("UNLIMITED", None), ("1-00:00:00", 86400.0), ("1-12", 86412.0), ("", 0.0), ("::5", 5.0), ("NOT_SET", None)],
)
def test_times_that_systems_print(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("name", "1fit"), ("name", "a b"), ("name", "x" * 64), ("name", "fit\n"),
        ("nodes", 0), ("nodes", True), ("nodes", "n1; rm"), ("nodes", "n1\n"),
        ("ppn", 0), ("walltime_s", 0), ("walltime_s", float("nan")),
        ("resources", ("mem=2 gb",)), ("resources", ("a=$(x)",)), ("resources", ("=1",)),
        ("queue", "a b"), ("queue", ""), ("output", "a'b"), ("depend", "x;y"), ("parallel_environment", "$x"),
        ("variables", {"1A": "x"}), ("variables", {"A-B": "x"}), ("lines", ("#PBS -l a\n#PBS -q b",)),
    ],
)  # fmt: skip
def test_a_field_that_can_not_be_used_is_refused_by_name(field: str, wrong: Any) -> None:
    with pytest.raises(AllocationError) as caught:
        JobSpec(command="x", **{field: wrong})
    said = {"walltime_s": "walltime", "resources": "-l", "variables": "variable", "lines": "line"}.get(field, field)
    assert str(caught.value).startswith(said)


def test_values_of_variables_may_be_anything_and_slots_are_counted() -> None:
    spec = JobSpec(command="x", nodes=3, ppn=2, variables={"A": "x,y\n'z\""}, resources=("mem=2gb", "gpu"))
    assert spec.slots == 6
    assert JobSpec(command="x", nodes="n1:ppn=2+n2").slots is None and JobSpec(command="x", ppn=None).slots is None
