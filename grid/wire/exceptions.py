"""One exception, taken apart and put together again without its `__init__`.

pickle calls the class with `args`, and these are what reached `BaseException.__init__`. So `Broke(a, b)` whose
`__init__` says `super().__init__(f"{a} and {b}")` can't be rebuilt; with one argument it is made of its own message,
in silence. Here the part of the class that is written in C makes an empty one, and that gets what the other had:
`args`, attributes, slots, and what kinds of the standard library keep in C (`errno`, `lineno`, `reason`, ...). A class
that says itself how it travels is asked.

Lives here: `reducer_of`, and what it writes. Elsewhere: what belongs to an exception that was raised (`raised`).
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable
from typing import Any

_WRITTEN_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_OWN_WAYS = ("__reduce__", "__reduce_ex__")
_IN_C = (types.MemberDescriptorType, types.GetSetDescriptorType)
_ARGS: Any = vars(BaseException)["args"]
_STAYS = frozenset({"__dict__", "__weakref__", "obj"})
"""`AttributeError.obj` may be anything, and large; Python's own pickle leaves it behind, too."""

Member = tuple[int, str, Any]
"""Which class of the order of resolution, which of its slots, and the value."""


def reducer_of(exc: BaseException) -> Callable[[Any], Any] | None:
    """How it travels; None: as its class says."""
    for cls in type(exc).__mro__:
        if cls.__flags__ & _WRITTEN_IN_PYTHON and any(each in vars(cls) for each in _OWN_WAYS):
            return None
    return take_apart if _part_in_c(type(exc)).__module__ == "builtins" else None


def take_apart(exc: BaseException) -> tuple[Any, ...]:
    """For pickle, as `__reduce__` gives it."""
    group = _GROUP is not None and isinstance(exc, _GROUP)
    made = (exc.message, exc.exceptions) if group else ()  # type: ignore[attr-defined]
    return _make, (type(exc), *made), (_ARGS.__get__(exc), _members(exc), vars(exc)), None, None, _fill


_GROUP: type[BaseException] | None = getattr(builtins, "BaseExceptionGroup", None)


def _part_in_c(cls: Any) -> Any:
    while cls.__flags__ & _WRITTEN_IN_PYTHON:
        cls = cls.__base__
    return cls


def _members(exc: BaseException) -> list[Member]:
    found: list[Member] = []
    for at, cls in enumerate(type(exc).__mro__):
        if cls is BaseException or cls is object:
            continue
        in_python = cls.__flags__ & _WRITTEN_IN_PYTHON
        for name, each in vars(cls).items():
            if not isinstance(each, _IN_C) or name in _STAYS:
                continue
            try:
                value = each.__get__(exc)
            except AttributeError:  # it was never set
                continue
            if in_python or value is not None:  # in C None is what was never set, and OSError knows the difference
                found.append((at, name, value))
    return found


def _make(cls: type[BaseException], *made: Any) -> BaseException:
    exc: BaseException = _part_in_c(cls).__new__(cls, *made)
    return exc


def _fill(exc: BaseException, state: tuple[tuple[Any, ...], list[Member], dict[str, Any]]) -> None:
    args, members, attributes = state
    _ARGS.__set__(exc, args)
    order = type(exc).__mro__
    for at, name, value in members:
        try:
            vars(order[at])[name].__set__(exc, value)
        except (AttributeError, LookupError, TypeError):  # read only: it was made with it; or another Python lacks it
            pass
    own = next((vars(cls)["__setstate__"] for cls in order if "__setstate__" in vars(cls)), None)
    if attributes and isinstance(own, types.FunctionType):
        own(exc, attributes)
    else:
        vars(exc).update(attributes)
