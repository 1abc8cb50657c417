"""Durations by name: number, average, least and greatest."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.tasks.statistics import Statistic, Statistics

pytestmark = pytest.mark.row("K42")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e6))))
def test_as_the_standard_library_counts(times: list[tuple[str, float]]) -> None:
    table = Statistics()
    for name, seconds in times:
        table.add(name, seconds)
    found = table.table()
    assert list(found) == list(dict.fromkeys(name for name, _ in times))
    for name, row in found.items():
        own = [seconds for each, seconds in times if each == name]
        assert row == {"n": len(own), "min": min(own), "max": max(own), "avg": pytest.approx(statistics.fmean(own))}


def test_of_none() -> None:
    assert Statistic().avg == 0.0 and Statistics().table() == {}
