"""Many commands: values of items, places of outputs, order, tries, errors, and an end in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from grid.commands.many import CommandRuns, OutputClaims, place_of
from grid.commands.template import values_of
from grid.errors import CommandFailed, StagingError

pytestmark = pytest.mark.row("A05")


def test_values_of_an_item() -> None:
    assert values_of({"a": 1}, ["x {a} {b}"], {"b": 2}) == {"a": 1, "b": 2}
    assert values_of("v", ["x {a} {b}"], {"b": 2}) == {"a": "v", "b": 2}
    for text in ("x {b}", "x {a} {c}"):
        with pytest.raises(ValueError, match="one field"):
            values_of("v", [text], {"b": 2})


def test_the_place_of_outputs() -> None:
    assert place_of(None, 3, {}) == Path.cwd()
    assert place_of("r/{n}/{a}", 3, {"a": "b c", "other": 5}) == Path.cwd() / "r" / "3" / "b c"
    with pytest.raises(ValueError, match="no value"):
        place_of("r/{x}", 1, {})


def test_two_runs_that_write_one_file() -> None:
    claims = OutputClaims()
    claims.claim(1, [Path("/a"), Path("/b")])
    claims.claim(1, [Path("/a")])
    with pytest.raises(StagingError, match="runs 1 and 2 both write '/b'"):
        claims.claim(2, [Path("/c"), Path("/b")])


class Starter:
    """Begins commands that the test ends."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, Any, Future[Any]]] = []

    def __call__(self, number: int, item: Any) -> Future[Any]:
        if item == "bad":
            raise StagingError("no such input")
        future: Future[Any] = Future()
        self.begun.append((number, item, future))
        if isinstance(item, str):
            future.set_result(item)
        return future


def test_in_order_and_as_they_end() -> None:
    for ordered in (True, False):
        start = Starter()
        runs = CommandRuns([0, 1, 2], start, ordered=ordered)
        runs._fill()
        for number, item, future in reversed(start.begun):
            future.set_result((number, item))
        found = list(runs)
        assert found == sorted(found, reverse=not ordered) == ([(1, 0), (2, 1), (3, 2)] if ordered else found)


def test_an_error_is_that_item_alone() -> None:
    runs = CommandRuns(["a", "bad", "c"], Starter())
    assert next(runs) == "a"
    with pytest.raises(StagingError):
        next(runs)
    assert runs.number == 2 and list(runs) == ["c"]
    given = list(CommandRuns(["a", "bad"], Starter(), exceptions=True))
    assert given[0] == "a" and isinstance(given[1], StagingError)


def test_a_command_that_fails_is_tried_again() -> None:
    tried: list[int] = []

    def start(number: int, item: Any) -> Future[Any]:
        tried.append(number)
        future: Future[Any] = Future()
        if number == 1 and tried.count(1) < 3:
            failed = CommandFailed("x", command="x", host="h", status=1, signal=0, stderr="", hint="")
            future.set_exception(failed)
        else:
            future.set_result(number)
        return future

    for ordered in (True, False):
        tried.clear()
        assert sorted(CommandRuns("ab", start, tries=3, ordered=ordered)) == [1, 2] and tried.count(1) == 3
        tried.clear()
        with pytest.raises(CommandFailed):
            list(CommandRuns("a", start, tries=2, ordered=ordered))


def test_an_endless_source_is_read_as_needed() -> None:
    read: list[int] = []

    def items() -> Iterator[str]:
        for number in count():
            read.append(number)
            yield str(number)

    with CommandRuns(items(), Starter(), ahead=4) as runs:
        assert [next(runs) for _ in range(10)] == [str(number) for number in range(10)] and len(read) <= 14
    assert list(runs) == []


def test_the_end_withdraws_what_is_under_way() -> None:
    start = Starter()
    with CommandRuns([1, 2], start, timeout=0.01) as runs:
        with pytest.raises(TimeoutError):
            next(runs)
    assert all(future.cancelled() for _, _, future in start.begun)


def test_time_that_is_up_loses_nothing() -> None:
    for ordered in (True, False):
        start = Starter()
        runs = CommandRuns([1], start, timeout=0.01, ordered=ordered)
        with pytest.raises(TimeoutError):
            next(runs)
        start.begun[0][2].set_result("late")
        assert list(runs) == ["late"]
