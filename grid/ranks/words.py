"""Words of MPI: constants, `Status`, operations of reductions.

Operations take values in the order of ranks and from the left, so that sums of floats are the same in every run.

Lives here: those. Elsewhere: who reduces (`collectives`, `arrays`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

ANY_SOURCE = -1
ANY_TAG = -1
PROC_NULL = -2
UNDEFINED = -32766
TAG_UB = 2**31 - 1


class Status:
    """What is known of a message: from which rank, its tag, its length in bytes."""

    def __init__(self) -> None:
        self.source, self.tag, self.error, self.count, self.cancelled = ANY_SOURCE, ANY_TAG, 0, 0, False

    def Get_source(self) -> int:
        """Its sender."""
        return self.source

    def Get_tag(self) -> int:
        """Its tag."""
        return self.tag

    def Get_error(self) -> int:
        """Always 0: an error raises."""
        return self.error

    def Get_count(self, datatype: Any = None) -> int:
        """Its length in elements of `datatype`, by default bytes."""
        return self.count // (getattr(datatype, "size", 1) or 1)

    Get_elements = Get_count

    def Is_cancelled(self) -> bool:
        """Always False."""
        return self.cancelled

    def _set(self, source: int, tag: int, count: int) -> None:
        self.source, self.tag, self.count = source, tag, count


class Op:
    """An operation that joins the values of two ranks; call it, or hand it to a reduction.

    Args:
        of_two: Of two values as they were sent.
        ufunc: The NumPy function for arrays; default: `of_two` itself.
    """

    def __init__(self, name: str, of_two: Callable[[Any, Any], Any], ufunc: str | None = None) -> None:
        self.name, self._of_two, self._ufunc = name, of_two, ufunc

    def __call__(self, x: Any, y: Any) -> Any:
        return self._of_two(x, y)

    def of_arrays(self, x: Any, y: Any) -> Any:
        """Element by element."""
        if self._ufunc is None:
            return self._of_two(x, y)
        import numpy as np

        return getattr(np, self._ufunc)(x, y)

    @classmethod
    def Create(cls, function: Callable[..., Any], commute: bool = False) -> Op:
        """One of your own: `function(x, y)`."""
        return cls(getattr(function, "__name__", "op"), function)

    def Free(self) -> None:
        """Nothing to do."""

    def __repr__(self) -> str:
        return f"<Op {self.name}>"


def _at(better: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """Of pairs (value, place): the better value; of equal ones the lower place."""

    def choose(x: Any, y: Any) -> Any:
        if better(x[0], y[0]):
            return x
        if better(y[0], x[0]):
            return y
        return x if x[1] <= y[1] else y

    return choose


def _max(x: Any, y: Any) -> Any:
    return _elementwise("maximum", x, y) if _is_array(x) else y if y > x else x


def _min(x: Any, y: Any) -> Any:
    return _elementwise("minimum", x, y) if _is_array(x) else y if y < x else x


def _is_array(x: Any) -> bool:
    return hasattr(x, "__array_interface__")


def _elementwise(name: str, x: Any, y: Any) -> Any:
    import numpy as np

    return getattr(np, name)(x, y)


SUM = Op("SUM", operator.add, "add")
PROD = Op("PROD", operator.mul, "multiply")
MAX = Op("MAX", _max, "maximum")
MIN = Op("MIN", _min, "minimum")
LAND = Op("LAND", lambda x, y: bool(x) & bool(y), "logical_and")
LOR = Op("LOR", lambda x, y: bool(x) | bool(y), "logical_or")
LXOR = Op("LXOR", lambda x, y: bool(x) ^ bool(y), "logical_xor")
BAND = Op("BAND", operator.and_, "bitwise_and")
BOR = Op("BOR", operator.or_, "bitwise_or")
BXOR = Op("BXOR", operator.xor, "bitwise_xor")
MAXLOC = Op("MAXLOC", _at(operator.gt))
MINLOC = Op("MINLOC", _at(operator.lt))
