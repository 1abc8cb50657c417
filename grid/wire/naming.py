"""What code and classes are called, and what they name in turn: globals, attributes, words in annotations.

Lives here: looking at functions, classes and code objects; nothing is changed, and nothing imported.
Elsewhere:  what follows from it (`byvalue`, `mainimage`, `edited`, `kinds`).
"""

from __future__ import annotations

import dis
import re
import sys
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from grid.wire.signals import came_by_signal

_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"})
_WORD = re.compile(r"[^\W\d]\w*")


def importable(obj: Any) -> bool:
    """Whether `module.qualname` leads to this very object, so that a reference is enough."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    if found is None:
        return False
    try:
        for part in name_of(obj).split("."):
            found = getattr(found, part)
    except Exception as exc:  # a module's own __getattr__ may raise what it likes
        if came_by_signal(exc):
            raise
        return False
    return found is obj


def name_of(obj: Any) -> str:
    """By which a definition says that its module knows it; type variables have one name only."""
    name: str = getattr(obj, "__qualname__", None) or obj.__name__
    return name


def main_globals() -> dict[str, Any]:
    """The names of this process' `__main__`."""
    return sys.modules["__main__"].__dict__


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those of the functions and classes that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


@lru_cache(maxsize=4096)
def names_in_code(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """What a piece of code names: (globals, in all code below it as well; globals and attributes)."""
    used: set[str] = set()
    named: set[str] = set()
    for each in codes(code):
        named.update(each.co_names)
        used.update(op.argval for op in dis.get_instructions(each) if op.opname in _GLOBAL_OPS)
    return frozenset(used), frozenset(named)


def names_in_hints(obj: Any) -> set[str]:
    """Words in those annotations of a class or function that are still text, and may be looked up."""
    try:
        hints = vars(obj).get("__annotations__") or getattr(obj, "__annotations__", {})
    except Exception:  # it names what exists for type checkers alone
        return set()
    return {word for hint in hints.values() if isinstance(hint, str) for word in _WORD.findall(hint)}


def filled(cell: types.CellType) -> bool:
    """Whether a variable of a closure has a value: not before its assignment has run."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def describe(obj: Any) -> str:
    """A function or class for people: kind, name, file and line."""
    name = getattr(obj, "__qualname__", None) or type(obj).__name__
    code = getattr(obj, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, types.CodeType) else ""
    kind = "class" if isinstance(obj, type) else type(obj).__name__
    return f"{kind} {name}{where}"
