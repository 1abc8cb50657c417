"""What code and classes are called, and what they name in turn."""

from __future__ import annotations

import json
import sys
import types
from typing import Any, TypeVar

import pytest

from grid.wire.naming import codes, describe, filled, importable, name_of, names_in_code, names_in_hints

pytestmark = pytest.mark.row("S01", "S06")
T = TypeVar("T")


class Outer:
    class Inner:
        pass

    def method(self) -> None:
        pass


@pytest.mark.parametrize("obj", [json.dumps, Outer, Outer.Inner, Outer.method, T, len, json.JSONDecoder.decode])
def test_what_can_be_imported(obj: Any) -> None:
    assert importable(obj)


def test_what_can_not() -> None:
    def local() -> None:
        pass

    renamed = types.FunctionType(Outer.method.__code__, {}, "method")
    renamed.__module__, renamed.__qualname__ = __name__, "Outer.method"
    lost = type("Gone", (), {"__module__": "no.such.module"})
    for each in (local, lambda: 0, renamed, lost, type("Nameless", (), {"__module__": None})):
        assert not importable(each)


def test_a_module_whose_getattr_raises_has_it_not(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("odd_module")

    def refuse(name: str) -> Any:
        raise ZeroDivisionError(name)

    module.__getattr__ = refuse  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "odd_module", module)
    assert not importable(type("X", (), {"__module__": "odd_module"}))


def outer() -> Any:
    global written
    written = json.dumps(1)

    def inner() -> Any:
        return sorted(sys.path, key=lambda each: Outer)

    return inner


def test_names_in_code_and_in_all_below_it() -> None:
    used, named = names_in_code(outer.__code__)
    assert used == {"json", "written", "sorted", "sys", "Outer"} and used | {"dumps", "path"} <= named
    within = {code.co_name for code in codes(outer.__code__)} - {"__annotate__"}  # newer Pythons have that as well
    assert within == {"outer", "inner", "<lambda>"}


def test_words_in_annotations_that_are_text() -> None:
    def hinted(a: Outer, b: dict[str, Any]) -> None:
        pass

    assert names_in_hints(hinted) == {"Outer", "dict", "str", "Any", "None"} and names_in_hints(5) == set()
    assert names_in_hints(type("C", (), {"__annotations__": {"a": int, "b": "x.Y1 | None"}})) == {"x", "Y1", "None"}


def test_variables_of_closures() -> None:
    full, empty = types.CellType(3), types.CellType()
    assert filled(full) and not filled(empty)


def test_how_people_are_told() -> None:
    assert name_of(Outer.Inner) == "Outer.Inner" and name_of(T) == "T"
    assert describe(Outer.Inner) == "class Outer.Inner"
    assert describe(outer).startswith(
        "function outer ("
    ) and f"test_naming.py:{outer.__code__.co_firstlineno})" in describe(outer)
    assert describe(5) == "int int"
