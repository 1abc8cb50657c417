"""What a grid offers and one of its parts does: public methods and attributes that name the part they belong to.

    class Grid(AbstractGrid):
        copy_files = verb("_engine.stager", Stager.copy_files)  # g.copy_files() is g._engine.stager.copy_files()
        copied_files = held("_engine.stager", "copied_files")

Signature, types and docstring are those of the part's method: said once, where the work is done.

Lives here: `verb`, `held`. Elsewhere: the parts (`stager.py`, `publishing.py`, ...).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Concatenate, Generic, TypeVar, overload

from typing_extensions import ParamSpec

P = ParamSpec("P")
R = TypeVar("R")


class Verb(Generic[P, R]):
    """See `verb`."""

    def __init__(self, part: str, method: Callable[Concatenate[Any, P], R]) -> None:
        self._part, self._method = attrgetter(part), method
        functools.update_wrapper(self, method)  # type: ignore[arg-type]

    @overload
    def __get__(self, grid: None, owner: type) -> Callable[Concatenate[Any, P], R]: ...

    @overload
    def __get__(self, grid: object, owner: type) -> Callable[P, R]: ...

    def __get__(self, grid: object | None, owner: type) -> Callable[..., R]:
        if grid is None:
            return self._method
        verb: Callable[..., R] = getattr(self._part(grid), self._method.__name__)
        return verb


def verb(part: str, method: Callable[Concatenate[Any, P], R]) -> Verb[P, R]:
    """A method of a grid that one of its parts does."""
    return Verb(part, method)


class held:  # reads as `property` does
    """An attribute of a grid that one of its parts has."""

    def __init__(self, part: str, name: str) -> None:
        self._get = attrgetter(f"{part}.{name}")
        owner, _, self._name = f"{part}.{name}".rpartition(".")
        self._owner = attrgetter(owner)

    def __get__(self, grid: object | None, owner: type) -> Any:
        return self if grid is None else self._get(grid)

    def __set__(self, grid: object, value: Any) -> None:
        setattr(self._owner(grid), self._name, value)
