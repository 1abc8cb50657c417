"""Methods and attributes of a grid that one of its parts has."""

from __future__ import annotations

import inspect

import pytest

from grid.grids.parts import held, verb

pytestmark = pytest.mark.row("G01", "U16")


class Part:
    def __init__(self) -> None:
        self.size = 3

    def work(self, a: int, *, b: str = "x") -> tuple[int, int, str]:
        """What it does."""
        return self.size, a, b


class Better(Part):
    def work(self, a: int, *, b: str = "x") -> tuple[int, int, str]:
        return -1, a, b


class Whole:
    work = verb("_inner.part", Part.work)
    size = held("_inner.part", "size")

    def __init__(self, part: Part) -> None:
        self._inner = type("Inner", (), {"part": part})()


def test_the_part_does_it() -> None:
    whole = Whole(Part())
    assert whole.work(1, b="y") == (3, 1, "y")
    whole.size = 5
    assert whole._inner.part.size == 5 and whole.size == 5 and whole.work(2) == (5, 2, "x")
    assert Whole(Better()).work(1) == (-1, 1, "x")  # that of the part's own class


def test_signature_and_docstring_are_said_once() -> None:
    assert inspect.signature(Whole.work) == inspect.signature(Part.work)
    assert Whole.work.__doc__ == "What it does." and Whole(Part()).work.__doc__ == "What it does."
    assert isinstance(Whole.size, held)


def test_a_mistake_is_that_of_the_part() -> None:
    with pytest.raises(TypeError, match=r"Part\.work"):
        Whole(Part()).work()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Whole(object()).size  # type: ignore[arg-type]  # noqa: B018
