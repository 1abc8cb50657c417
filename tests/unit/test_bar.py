"""A progress bar: the same values, and how many of how many."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from grid.services.bar import progress_bar

pytestmark = pytest.mark.row("G55")


def test_where_nobody_looks_nothing_is_shown() -> None:
    file = io.StringIO()
    assert list(progress_bar([1, 2, 3], file=file)) == [1, 2, 3] and file.getvalue() == ""


@pytest.mark.parametrize(
    ("values", "total", "shown"), [([1, 2, 3], None, "3/3"), (iter([1, 2]), 5, "2/5"), (iter([1]), None, "1/?")]
)
def test_how_many_of_how_many(values: Iterator[int], total: int | None, shown: str) -> None:
    file = io.StringIO()
    list(progress_bar(values, total, label="energy", file=file, always=True))
    assert shown in file.getvalue() and "energy" in file.getvalue()


def test_an_error_of_the_values_comes_through_after_those_before_it() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    file, got = io.StringIO(), []
    with pytest.raises(ZeroDivisionError):
        for value in progress_bar(broken(), 4, file=file, always=True):
            got.append(value)
    assert got == [1] and "1/4" in file.getvalue()


def test_who_stops_early_gets_his_last_count() -> None:
    file = io.StringIO()
    bar = progress_bar(range(10), file=file, always=True)
    assert [next(bar), next(bar)] == [0, 1]
    bar.close()  # type: ignore[attr-defined]
    assert "2/10" in file.getvalue()
