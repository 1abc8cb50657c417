"""Generators in a server: opened, stepped, shut."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import GridError
from grid.kernel.yielding import STEP_S, Generators


def counting(upto: int, log: list[str] | None = None, fails: bool = False) -> Iterator[int]:
    try:
        yield from range(upto)
        if fails:
            raise ValueError("at its end")
    finally:
        if log is not None:
            log.append("ended")


@pytest.mark.row("A09")
@given(st.integers(0, 50), st.lists(st.integers(1, 20), max_size=60), st.booleans())
def test_all_values_come_once_in_order_whatever_is_asked(upto: int, asked: list[int], fails: bool) -> None:
    made = Generators()
    made.begin("k", "m", counting(upto, fails=fails))
    got: list[int] = []
    ends: list[Any] = []
    for most in [*asked, *[1] * (upto + 2)]:
        try:
            values, ended, _ = made.step("k", most)
        except ValueError as exc:
            ends.append(str(exc))
        else:
            assert len(values) <= most and (values or ended)
            got += values
            if ended:
                ends.append("end")
    assert got == list(range(upto))
    assert ends[0] == ("at its end" if fails else "end") and set(ends[1:]) <= {"end"}


@pytest.mark.row("A09")
def test_a_slow_generator_is_told_value_by_value() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(2 * STEP_S)
            yield number

    made = Generators()
    made.begin("k", "m", slow())
    assert [made.step("k", 9)[0] for _ in range(3)] == [[0], [1], [2]]
    assert made.step("k", 9) == ([], True, None)


@pytest.mark.row("A09")
def test_what_is_shut_ends_and_what_never_was_is_told() -> None:
    made, log = Generators(), list[str]()
    made.begin("k", "m", counting(9, log))
    made.step("k", 1)
    made.shut("k")
    assert log == ["ended"] and made.step("k", 1) == ([], True, None), "the client may have asked before it heard so"
    made.shut("k")
    with pytest.raises(GridError, match="the stream is not here"):
        made.step("another", 1)
    made.never("another")
    assert made.step("another", 1) == ([], True, None)
    with pytest.raises(TypeError, match="'m' gives int, and a stream needs"):
        made.begin("n", "m", 5)


@pytest.mark.row("A09")
def test_a_value_that_can_not_travel_ends_a_stream_behind_those_before_it() -> None:
    made, log = Generators(), list[str]()
    made.begin("k", "m", counting(9, log))
    values, _, _ = made.step("k", 4)

    def fits(value: int) -> None:
        if value == 2:
            raise TypeError("two can't travel")

    assert made.cut(values, fits) == ([0, 1], False, None) and log == ["ended"]
    with pytest.raises(TypeError, match="two can't travel"):
        made.step("k", 1)
    assert made.step("k", 1) == ([], True, None)
