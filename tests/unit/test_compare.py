"""Two runs of a capsule: what may make them differ, and in what they did."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from grid.capsule.compare import changes, outcome

pytestmark = pytest.mark.row("D08")
THEN: dict[str, Any] = {
    "sources": {"a.py": "1", "b.py": "2"},
    "python": {"version": "3.12", "implementation": "CPython", "machine": "x86_64"},
    "packages": {"numpy": "2.1"},
    "exit": 0,
    "output": {"sha256": "x", "text": "one\ntwo\n"},
}


def now(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(THEN), **more}


def test_equal_runs_differ_in_nothing() -> None:
    assert changes(THEN, now()) == [] and outcome(THEN, now()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"sources": {"a.py": "9"}}, ["a.py has changed", "b.py does not exist any more"]),
        ({"python": {**THEN["python"], "version": "3.13"}}, ["Python's version was 3.12 and is 3.13"]),
        ({"packages": {}}, ["numpy was 2.1 and is not installed"]),
        ({"packages": {"numpy": "2.2", "more": "1"}}, ["numpy was 2.1 and is 2.2"]),
        ({"sources": {**THEN["sources"], "new.py": "3"}}, []),
    ],
)
def test_what_may_make_them_differ(more: dict[str, Any], said: list[str]) -> None:
    assert changes(THEN, now(**more)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\nzwei\n", "line 2 of the output was 'two' and is 'zwei'"),
        ("one\n", "line 2 of the output was 'two' and is ''"),
        ("one\ntwo", "line 3 of the output was '' and is not there"),
        ("one\ntwo\n", "the output is another one"),
        (None, "the output is another one (it was too long to be kept)"),
    ],
)
def test_the_first_line_that_differs(text: str | None, said: str) -> None:
    assert outcome(THEN, now(output={"sha256": "y", "text": text})) == [said]
    assert outcome(THEN, now(exit=1, output={"sha256": "y", "text": text})) == ["it ended with 0 and now with 1", said]


def test_a_long_line_is_cut() -> None:
    (said,) = outcome(THEN, now(output={"sha256": "y", "text": "x" * 1000}))
    assert len(said) < 300 and "..." in said
