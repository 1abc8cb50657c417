"""Arguments as users give them: each is compared with its annotation, and the error names the argument.

Lives here: `check` and its kin: what a value must be, in words.
Elsewhere:  which arguments there are (the signatures), rules for particular ones (the classes that take them).
"""

from __future__ import annotations

import numbers
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, fields
from functools import cache
from types import NoneType
from typing import Any, TextIO, get_args, get_type_hints


def _is_flag(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_") or (isinstance(value, int) and value in (0, 1))  # bool_: NumPy's


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value  # not nan


def _are_texts(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)


def _are_mappings(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(each, Mapping) for each in value)


_KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    NoneType: ("None", lambda value: value is None),
    bool: ("True or False", _is_flag),
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    str: ("text", lambda value: isinstance(value, str)),
    os.PathLike[str]: ("a path", lambda value: isinstance(value, os.PathLike)),
    TextIO: ("a file to write text to (sys.stderr, say)", lambda value: callable(getattr(value, "write", None))),
    Sequence[str]: ("a list of texts", _are_texts),
    Mapping[str, str]: ("a mapping of texts", lambda value: isinstance(value, Mapping)),
    Mapping[str, Any]: ("a mapping", lambda value: isinstance(value, Mapping)),
    Sequence[Mapping[str, Any]]: ("a list of mappings", _are_mappings),
    Callable[..., Any]: ("a callable", callable),
}


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 120


def shown(value: Any) -> str:
    """A value in an error, whatever it is: short, in one line, and its own text may fail."""
    return _shown.repr(value).replace("\n", " ")


def check(name: str, value: Any, kind: Any) -> None:
    """Raise TypeError, with the argument's name, unless the value is of that kind.

    Args:
        kind: An annotation: one of the kinds that are listed here, a class, or a union of those.
    """
    words = []
    for each in get_args(kind) if kind not in _KINDS and get_args(kind) else (kind,):
        word, fits = _KINDS.get(each) or (f"a {each.__name__}", each.__instancecheck__)
        if fits(value):
            return
        words.append(word)
    wanted = ", ".join(words[:-1]) + f" or {words[-1]}" if len(words) > 1 else words[0]
    raise TypeError(f"{name} must be {wanted}, not {shown(value)}")


def check_number(name: str, value: Any, least: float, kind: Any = int) -> None:
    """The same for numbers that are not below `least`; None, where the kind allows it, is none.

    Raises:
        TypeError, ValueError: It is another kind of thing, or too small.
    """
    check(name, value, kind)
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least:g}, not {shown(value)}")


def check_fields(made: Any) -> None:
    """Each field of a dataclass, as far as the class itself says what it is. Raises TypeError."""
    owner: Any = type(made)
    for name, kind in _kinds_of(owner).items():
        check(name, getattr(made, name), kind)


@cache
def _kinds_of(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, localns={"KW_ONLY": type(KW_ONLY)})  # Python 3.10 takes types alone
    return {each.name: hints[each.name] for each in fields(kind)}
