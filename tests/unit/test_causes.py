"""Errors of many hosts: which have one cause, and the line that stands for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.causes import SHOWN, cause, listed, together

pytestmark = pytest.mark.row("M01")


@given(st.lists(st.text("abc", min_size=1, max_size=2)))
def test_a_list_names_all_or_counts_the_rest(names: list[str]) -> None:
    known, said = list(dict.fromkeys(names)), listed(names)
    if len(known) <= SHOWN + 1:
        assert said == ", ".join(known)
    else:
        assert said == ", ".join(known[:SHOWN]) + f" and {len(known) - SHOWN} more"


def test_numbers_and_names_of_one_host_are_no_cause() -> None:
    assert cause("n1: 10.0.0.1 refused after 3.5 s", "n1") == cause("n2: 10.0.0.2 refused after 4 s", "n2")
    assert cause("n1: refused", "n1") != cause("n1: no route", "n1")
    # The longer name first, else "n1" would take a part of "n1.local"; an empty name is in every text.
    assert cause("n1.local says no", "n1", "n1.local", "") == "* says no"


def test_one_line_for_each_cause_in_order_of_appearance() -> None:
    errors = [("a", "a is down"), ("b", "b has no Python"), ("c", "c is down"), ("d", "d is down")]
    assert together(errors) == ["3 hosts with one cause (a, c, d); a is down", "b has no Python"]
    assert together([]) == []
