"""Arithmetic and comparisons that are paid for: each operation says what it will cost before it is done.

One budget for one evaluation. What costs is what is touched: an element of a list, a digit of a whole number (30
bits, as Python keeps them), eight characters of a text. Whoever runs out of it gets an error, whatever the shape of
the expression was: there is no list of forbidden shapes that somebody could find a gap in. Values are None, truth
values, numbers, texts, bytes, lists and dicts; comparisons of lists and dicts are walked here, an element at a time,
so that none stays in C for long.

A unit is about 0.1 microseconds. What a loop of C does with an element costs `QUICK`, what Python does with it `WALK`.

Lives here: `Work`, the operations and functions of expressions.
Elsewhere:  the language itself (`expressions.py`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

UNITS = 200_000
"""Of one evaluation: 20 ms of work, and less than 8 MB, on a machine of today."""
QUICK = 0.25
"""One element in a loop of C."""
STEP = 5
"""One node of the expression."""
WALK = 20
"""One element that Python looks at, in lists that C may not compare: those whose elements are not of one size."""
NESTED = 120
"""Lists within lists that are compared."""
_DIGIT = 30
_SCALARS = (bool, int, float, type(None))
_SEQUENCES = (list, tuple)
_QUICK = frozenset({float, bool})


class TooMuch(Exception):
    """It costs more than was left."""


class Work:
    """What is left to be spent; shared by whatever must not cost more than that together."""

    __slots__ = ("left",)

    def __init__(self, units: float = UNITS) -> None:
        self.left = units

    def spend(self, units: float) -> None:
        """Pay before the work is done. Raises TooMuch."""
        self.left -= units
        if self.left < 0:
            raise TooMuch("it takes too much work")

    def touch(self, value: Any) -> None:
        """Pay for looking at all of one value, but not at what lies in it."""
        self.spend(_size(value))

    # -- operators -------------------------------------------------------------------------------------------------

    def add(self, left: Any, right: Any) -> Any:
        """`left + right`."""
        self._pair(left, right)
        return _listed(left) + _listed(right)

    def subtract(self, left: Any, right: Any) -> Any:
        """`left - right`."""
        self._pair(left, right)
        return left - right

    def multiply(self, left: Any, right: Any) -> Any:
        """`left * right`; of a list or a text and a number as many copies."""
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, (str, bytes, *_SEQUENCES)) and isinstance(times, int):
                self.spend(_size(sequence) * min(max(times, 0), UNITS))
                return _listed(sequence) * times
        self._product(left, right)
        return left * right

    def divide(self, left: Any, right: Any) -> Any:
        """`left / right`."""
        self._product(left, right)
        return left / right

    def floor(self, left: Any, right: Any) -> Any:
        """`left // right`."""
        self._product(left, right)
        return left // right

    def modulo(self, left: Any, right: Any) -> Any:
        """`left % right`, of numbers."""
        if isinstance(left, (str, bytes)):
            raise TypeError("texts are not formatted here")
        self._product(left, right)
        return left % right

    def power(self, left: Any, right: Any) -> Any:
        """`left ** right`."""
        if isinstance(left, int) and isinstance(right, int) and right > 0 and abs(left) > 1:
            digits = left.bit_length() * min(right, UNITS * _DIGIT) / _DIGIT
            self.spend(digits + digits * digits / 50)
        else:
            self._pair(left, right)
        return left**right

    def negate(self, value: Any) -> Any:
        """`-value`."""
        self.touch(value)
        return -value

    def plus(self, value: Any) -> Any:
        """`+value`."""
        self.touch(value)
        return +value

    def _pair(self, left: Any, right: Any) -> None:
        self.spend(_size(left) + _size(right))

    def _product(self, left: Any, right: Any) -> None:
        self.spend(1 + _digits(left) * _digits(right) / 50 + _digits(left) + _digits(right))

    # -- comparisons -----------------------------------------------------------------------------------------------

    def equal(self, left: Any, right: Any, depth: int = NESTED) -> bool:
        """`left == right`."""
        self.spend(WALK)
        if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
            _check_depth(depth)
            if len(left) != len(right):
                return False
            if self._is_quick(left) and self._is_quick(right):
                return all(map(operator.eq, left, right))
            return all(self.equal(a, b, depth - 1) for a, b in zip(left, right, strict=True))
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            _check_depth(depth)
            if len(left) != len(right):
                return False
            for key, value in left.items():
                self.spend(WALK + _size(key))
                if key not in right or not self.equal(value, right[key], depth - 1):
                    return False
            return True
        if not (_is_scalar(left) and _is_scalar(right)):
            return False  # of different kinds
        self.spend(min(_size(left), _size(right)))
        return bool(left == right)

    def differs(self, left: Any, right: Any) -> bool:
        """`left != right`."""
        return not self.equal(left, right)

    def less(self, left: Any, right: Any, depth: int = NESTED) -> bool:
        """`left < right`; lists by their first elements that differ."""
        self.spend(WALK)
        if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
            _check_depth(depth)
            for a, b in zip(left, right, strict=False):
                if not self.equal(a, b, depth - 1):
                    return self.less(a, b, depth - 1)
            return len(left) < len(right)
        if not (_is_scalar(left) and _is_scalar(right)):
            raise TypeError(f"{_kind(left)} and {_kind(right)} have no order")
        self.spend(min(_size(left), _size(right)))
        return bool(left < right)

    def less_or_equal(self, left: Any, right: Any) -> bool:
        """`left <= right`."""
        return self._ordered(left, right, operator.le)

    def greater(self, left: Any, right: Any) -> bool:
        """`left > right`."""
        return self.less(right, left)

    def greater_or_equal(self, left: Any, right: Any) -> bool:
        """`left >= right`."""
        return self._ordered(right, left, operator.le)

    def _ordered(self, left: Any, right: Any, compare: Callable[[Any, Any], Any]) -> bool:
        if isinstance(left, _SEQUENCES) and isinstance(right, _SEQUENCES):
            return self.less(left, right) or self.equal(left, right)
        self.less(left, right)  # checks and pays; nan is neither less nor equal, so the answer is asked for itself
        return bool(compare(left, right))

    def contains(self, value: Any, within: Any) -> bool:
        """`value in within`."""
        if isinstance(within, (str, bytes)):
            self.spend(2 * (_size(value) + _size(within)))
            return value in within
        if isinstance(within, Mapping):
            self._pair(value, 0)
            return isinstance(value, (str, *_SCALARS)) and value in within
        if not isinstance(within, _SEQUENCES):
            raise TypeError(f"nothing is in {_kind(within)}")
        return any(value is each or self.equal(value, each) for each in within)

    def lacks(self, value: Any, within: Any) -> bool:
        """`value not in within`."""
        return not self.contains(value, within)

    def part(self, value: Any, key: Any) -> Any:
        """`value[key]`. Raises KeyError, IndexError or TypeError with a short text."""
        self.touch(key)
        if isinstance(value, Mapping):
            if not isinstance(key, (str, *_SCALARS)) or key not in value:
                raise KeyError(f"there is no part {brief(key)}")
            return value[key]
        if isinstance(value, (*_SEQUENCES, str, bytes)):
            if not isinstance(key, int) or not -len(value) <= key < len(value):
                raise IndexError(f"{_kind(value)} of {len(value)} has no part {brief(key)}")
            return value[key]
        if hasattr(type(value), "__grid_plain__") and isinstance(key, (str, int)):
            return value[key]  # a reference
        raise TypeError(f"{_kind(value)} has no parts")

    # -- functions -------------------------------------------------------------------------------------------------

    def each(self, values: Any) -> Any:
        """A list whose elements C may look at, paid for; of others each is paid as it comes."""
        if isinstance(values, Mapping):
            self.spend(len(values))
            return list(values)
        if not isinstance(values, (*_SEQUENCES, str, bytes)):
            raise TypeError(f"{_kind(values)} has no elements")
        self.spend(len(values) * (8 if isinstance(values, (str, bytes)) else QUICK))
        return values

    def _is_quick(self, values: Any) -> bool:
        """Whether all are of a size that is known without looking at each."""
        self.spend(len(values) * QUICK)
        return _QUICK.issuperset(map(type, values))

    def every(self, values: Any) -> bool:
        """Whether all elements are true."""
        return all(self.each(values))

    def some(self, values: Any) -> bool:
        """Whether one element is true."""
        return any(self.each(values))

    def total(self, values: Any, start: Any = 0) -> Any:
        """Of numbers, and of lists where `start` is one."""
        values = self.each(values)
        if type(start) in (int, float) and _digits(start) < 100 and self._is_quick(values):
            return sum(values, start)
        for value in values:
            self.spend(WALK)
            start = self.add(start, value)
        return start

    def largest(self, *values: Any) -> Any:
        """The largest of some, or of the elements of one."""
        return self._extreme(values, max, self.greater)

    def smallest(self, *values: Any) -> Any:
        """The smallest of some, or of the elements of one."""
        return self._extreme(values, min, self.less)

    def _extreme(self, values: Any, quick: Callable[[Any], Any], better: Callable[[Any, Any], bool]) -> Any:
        if len(values) == 1:
            values = self.each(values[0])
        if not len(values):
            raise ValueError("there is no element")
        if self._is_quick(values):
            return quick(values)
        best = values[0]
        for value in values:
            if better(value, best):
                best = value
        return best

    def rounded(self, number: Any, digits: Any = None) -> Any:
        """As Python's."""
        if digits is None:
            self.touch(number)
            return round(number)
        if isinstance(number, int) and isinstance(digits, int) and digits < 0:
            self._product(self.power(10, -digits), number)
        self._pair(number, digits)
        return round(number, digits)

    def to_int(self, value: Any) -> Any:
        """As Python's."""
        return self._read(int, value)

    def to_float(self, value: Any) -> Any:
        """As Python's."""
        return self._read(float, value)

    def _read(self, kind: Callable[[Any], Any], value: Any) -> Any:
        if isinstance(value, (str, bytes)):
            self.spend(len(value) ** 2 / 50)  # reading digits takes the square of their number
        self.touch(value)
        return kind(value)

    def length(self, value: Any) -> int:
        """How many elements there are."""
        if not isinstance(value, (str, bytes, Mapping, *_SEQUENCES)):
            raise TypeError(f"{_kind(value)} has no length")
        return len(value)


def _of_number(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(work: Work, *numbers: Any) -> Any:
        for number in numbers:
            if not isinstance(number, (int, float)):
                raise TypeError(f"{_kind(number)} is no number")
            work.touch(number)
        return function(*numbers)

    return call


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _of_number(getattr(math, name)) for name in ("exp", "isfinite", "log", "log10", "sqrt")},
    "abs": _of_number(abs),
    "all": Work.every,
    "any": Work.some,
    "float": Work.to_float,
    "int": Work.to_int,
    "len": Work.length,
    "max": Work.largest,
    "min": Work.smallest,
    "round": Work.rounded,
    "sum": Work.total,
}
"""Name -> what does it, given the work and the arguments."""


def truth(value: Any) -> bool:
    """Whether a value counts as true: by its kind or its length, never by walking it."""
    return bool(value)


def brief(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a long number"
    if isinstance(value, (str, bytes)):
        return repr(value[:60])
    return repr(value) if isinstance(value, _SCALARS) else _kind(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (*_SCALARS, str, bytes))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_depth(depth: int) -> None:
    if depth <= 0:
        raise TooMuch(f"it compares values nested deeper than {NESTED}")


def _digits(value: Any) -> int:
    return value.bit_length() // _DIGIT + 1 if isinstance(value, int) else 1


def _size(value: Any) -> int:
    if isinstance(value, int):
        return value.bit_length() // _DIGIT // 8 + 1
    if isinstance(value, (str, bytes)):
        return len(value) // 8 + 1
    return len(value) + 1 if isinstance(value, _SEQUENCES) else 1
