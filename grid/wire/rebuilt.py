"""Functions and classes that came by value, made again: in two steps, so that what refers to itself can be.

What comes back to where it is from is the very object that went, and keeps its state (`tokens`).

Lives here: the functions that a pickle of `byvalue` calls.
Elsewhere:  what is written, and why in this order (`byvalue`).
"""

from __future__ import annotations

import enum
import marshal
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

from grid.errors import VersionError
from grid.wire import kinds, tokens
from grid.wire.naming import main_globals

CACHE_TAG = sys.implementation.cache_tag or "unknown"

_stamps: weakref.WeakKeyDictionary[type, int] = weakref.WeakKeyDictionary()


def same_version(made_by: str, what: str) -> None:
    """Raise VersionError unless byte code that `made_by` made can be used here."""
    if made_by != CACHE_TAG:
        raise VersionError(
            f"{what} holds byte code of {made_by}, and this is {CACHE_TAG}",
            hint="Use the same minor version of Python on both sides, or move the code into a module",
        )


def make_function(
    token: str, again: bool, made_by: str, code: Any, name: str, space: dict[str, Any] | None, cells: tuple[Any, ...]
) -> types.FunctionType:
    """A function without its state, or the one that has come or gone before."""
    known = tokens.known(token)
    if known is not None and (again or known not in tokens.received):
        return known  # type: ignore[no-any-return]
    same_version(made_by, f"function {name!r}, sent by value,")
    code = marshal.loads(code) if isinstance(code, bytes) else code
    if space is None:
        space = main_globals()
    space.setdefault("__builtins__", __builtins__)
    made = types.FunctionType(code, space, name, None, cells or None)
    tokens.enter(made, token)
    return made


def fill_function(func: types.FunctionType, state: tuple[Any, ...]) -> None:
    """Give it its state; one of our own that has come back keeps that which it has here."""
    if func not in tokens.received:
        return
    attributes, own, space, contents, parts = state
    for name in parts:
        import_module(name)
    func.__globals__.update(space)
    for name, value in attributes.items():
        setattr(func, name, value)
    func.__dict__.update(own)
    for cell, held in zip(func.__closure__ or (), contents, strict=True):
        if held:
            (cell.cell_contents,) = held


def fill_cell(cell: types.CellType, contents: Any) -> None:
    """Give a variable of a closure its value."""
    cell.cell_contents = contents


def make_class(
    token: str,
    made_by: str,
    meta: Any,
    core: type | None,
    name: str,
    bases: tuple[type, ...],
    fixed: dict[str, Any],
    words: dict[str, Any],
) -> type:
    """A class without its methods and data, or the one that has come or gone before."""

    def make() -> type:
        if core is not None:
            return core.__new__(meta, name, bases, dict(fixed))  # type: ignore[no-any-return]
        return types.new_class(name, bases, {"metaclass": meta, **words}, lambda space: space.update(fixed))

    return _made(token, made_by, f"class {name!r}", bases, make)


def _made(token: str, made_by: str, what: str, bases: tuple[type, ...], make: Callable[[], type]) -> type:
    known = tokens.known(token)
    if known is not None:
        return known  # type: ignore[no-any-return]
    same_version(made_by, f"{what}, sent by value,")
    with tokens.registry, _without_hooks(bases):
        made = make()
        tokens.enter(made, token)
    return made


class _without_hooks:
    """While a class that has been made elsewhere is made again, bases that came by value are not told."""

    def __init__(self, bases: tuple[type, ...]) -> None:
        mro = [each for base in bases for each in base.__mro__]
        self._hooks = [(each, vars(each)["__init_subclass__"]) for each in mro if "__init_subclass__" in vars(each)]
        self._hooks = [(each, hook) for each, hook in self._hooks if each in tokens.received]

    def __enter__(self) -> None:
        for each, _ in self._hooks:
            type.__setattr__(each, "__init_subclass__", classmethod(_no_hook))

    def __exit__(self, *_: object) -> None:
        for each, hook in self._hooks:
            type.__setattr__(each, "__init_subclass__", hook)


def _no_hook(_cls: type, /, **_: Any) -> None:
    pass


def make_enum(
    token: str,
    made_by: str,
    meta: Any,
    name: str,
    qualname: str,
    module: str,
    bases: tuple[type, ...],
    members: dict[str, Any],
) -> type:
    """An enum with its members, which no method of its own has touched yet; or the one that has come or gone before."""

    def make() -> type:
        space = meta.__prepare__(name, bases)
        for key, value in members.items():
            space[key] = value
        made: type = enum.EnumMeta.__new__(meta, name, bases, space)
        type.__setattr__(made, "__module__", module)
        type.__setattr__(made, "__qualname__", qualname)
        return made

    return _made(token, made_by, f"enum {name!r}", bases, make)


def fill_methods(cls: type, methods: dict[str, Any]) -> dict[str, Any]:
    """Set the methods of a class that came by value."""
    if cls in tokens.received:
        for key, value in methods.items():
            type.__setattr__(cls, key, value)
    return methods


def fill_class(cls: Any, state: tuple[int, dict[str, Any], dict[str, Any]]) -> None:
    """Give a class its data; one of our own that has come back keeps that which it has here."""
    if cls not in tokens.received:
        return
    mark, _, data = state
    if _stamps.get(cls) == mark:
        return
    extra = data.pop("__members__", None) if isinstance(cls, enum.EnumMeta) else None
    registered = data.pop("_abc_impl", None)
    for key, value in data.items():
        try:
            type.__setattr__(cls, key, value)
        except (AttributeError, TypeError):  # read only: the class has one already
            if key not in vars(cls):
                raise
    for name, own in (extra or {}).items():
        cls.__members__[name].__dict__.update(own)
    for each in registered or ():
        cls.register(each)
    if "__firstlineno__" in data:  # setting anything else takes it away (3.13)
        type.__setattr__(cls, "__firstlineno__", data["__firstlineno__"])
    _stamps[cls] = mark


class Namespace:
    """Stands for the namespace of `__main__` itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return main_globals, ()


def of_main(name: str) -> Any:
    """What `__main__` has under this name here."""
    return main_globals()[name]


def main_module() -> types.ModuleType:
    """The `__main__` of this process."""
    return sys.modules["__main__"]


def import_module(name: str) -> Any:
    """The module; in its place, where this host lacks it, something that says so when it is used."""
    try:
        __import__(name)
    except ImportError as exc:
        return kinds.AbsentModule(name, str(exc))
    return sys.modules[name]
