"""Which calls are made again: the rule."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import Attempt, Retry, ServerLost

pytestmark = pytest.mark.row("I08")


def lost() -> ServerLost:
    return ServerLost("it died", service_id="s", server="s/0", host="h", hint="", exit_status=None, signal=9)


CAUSES = {"lost": lost(), "named": ConnectionResetError(), "other": KeyError("x")}


def attempt(cause: str) -> Attempt:
    return Attempt("s/0", "h", 0.5, CAUSES[cause])


def limits(retry: Retry) -> dict[str, int]:
    """A second reading of the rule: how many failures of each cause are forgiven."""
    return {"lost": retry.lost, "named": retry.raised if retry.on else 0, "other": 0}


@given(st.lists(st.sampled_from(sorted(CAUSES)), min_size=1, max_size=12), st.integers(0, 4), st.integers(1, 4))
def test_a_call_is_made_again_until_one_cause_has_come_too_often(causes: list[str], often: int, raised: int) -> None:
    retry = Retry(lost=often, on=ConnectionError, raised=raised)
    attempts, made = [], 0
    for cause in causes:
        made += 1
        attempts.append(attempt(cause))
        if not retry.again(attempts):
            break
    forgiven = limits(retry)
    counts = itertools.accumulate(causes, lambda so_far, cause: [*so_far, cause], initial=[])
    first_too_many = next(
        (n for n, had in enumerate(counts) if had and had.count(had[-1]) > forgiven[had[-1]]), len(causes)
    )
    assert made == first_too_many


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({}, ValueError, "repeats nothing"),
        ({"lost": -1}, ValueError, "lost"),
        ({"lost": True}, TypeError, "lost"),
        ({"lost": 1.5}, TypeError, "lost"),
        ({"lost": 10_000}, ValueError, "1000 times, not 10000"),
        ({"lost": 1, "raised": 0}, ValueError, "raised"),
        ({"on": "ConnectionError"}, TypeError, "classes of exceptions"),
        ({"on": (KeyError, 3)}, TypeError, "classes of exceptions"),
        ({"on": KeyboardInterrupt}, TypeError, "classes of exceptions"),
        ({"on": ServerLost}, ValueError, "for lost servers say lost=2"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(words: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Retry(**words)
