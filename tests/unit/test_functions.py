"""Which function is which: known by itself or by its looks, held weakly, dropped when nobody can call it any more."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest

from grid.compat import functions
from grid.compat.functions import Function, Functions


def plain(x: int) -> int:
    return x + 1


class Model:
    def __init__(self, scale: int) -> None:
        self.scale = scale

    def times(self, x: int) -> int:
        return self.scale * x


def taken(known: Functions, function: Any) -> Function:
    """Used once, and given back."""
    entry, _ = known.take(function)
    known.give_back(entry)
    return entry


@pytest.mark.row("E05")
def test_a_plain_function_is_known_by_itself() -> None:
    known = Functions()
    assert taken(known, plain) is taken(known, plain) and not known.is_new(plain)
    assert taken(known, len) is taken(known, len)
    assert taken(known, plain) is not taken(known, lambda x: x + 1)


@pytest.mark.row("E05")
def test_one_that_carries_data_is_known_by_how_it_looks_now() -> None:
    known, model = Functions(), Model(2)
    assert known.is_new(model.times) and not known.is_new(model.times), "it was seen"
    first = taken(known, model.times)
    assert taken(known, model.times) is first and taken(known, Model(2).times) is first
    model.scale = 3
    assert taken(known, model.times) is not first


@pytest.mark.row("E05")
@pytest.mark.parametrize(
    "make", [lambda: Model(5).times, lambda: partial(plain, 5), lambda: (lambda d: lambda x: d)([5])]
)
def test_it_goes_with_the_last_who_could_call_it(make: Any) -> None:
    known, words = Functions(), list[int]()
    known.on_death(lambda: words.append(1))
    function = make()
    holder = getattr(function, "__self__", None)
    entry = taken(known, function)
    assert known.bury() == [] and entry.function is None, "nobody uses it, so it holds no data"
    del function, holder
    gc.collect()
    assert words and known.bury() == [entry]


@pytest.mark.row("E05")
def test_what_is_in_use_stays_until_it_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "KEPT", 1)
    known = Functions()
    first, _ = known.take(plain)
    known.share(first)
    others = [lambda x, n=n: x + n for n in range(3)]
    entries = [known.take(other)[0] for other in others]
    assert known.give_back(first) == [], "it is used once more"
    dropped = [each for entry in entries for each in known.give_back(entry)]
    assert first not in dropped
    dropped += known.give_back(first)
    assert len({id(each) for each in dropped}) == len(dropped) == 3, "one stays, although nothing uses it"


@pytest.mark.row("E06")
def test_how_long_an_item_runs_is_remembered() -> None:
    entry = taken(Functions(), plain)
    assert entry.run_s is None
    entry.ran(10, 1.0)
    assert entry.run_s == pytest.approx(0.1)
    entry.ran(10, 3.0)
    assert entry.run_s == pytest.approx(0.2)
