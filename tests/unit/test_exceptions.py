"""An exception taken apart and put together again without its `__init__`."""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

import pytest

from grid.wire.exceptions import reducer_of, take_apart

pytestmark = pytest.mark.row("S11")


class Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        way = reducer_of(obj) if isinstance(obj, BaseException) else None
        return NotImplemented if way is None else way(obj)


def travelled(exc: BaseException) -> Any:
    file = io.BytesIO()
    Pickler(file, 5).dump(exc)
    return pickle.loads(file.getvalue())


class Two(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.both = (a, b)


class One(Exception):
    def __init__(self, a: object) -> None:
        super().__init__(f"it was {a}")


class Slotted(ValueError):
    __slots__ = ("never", "set")


class Stateful(Exception):
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.told = sorted(state)


class Own(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return Own, ("made by itself",)


def test_it_is_not_made_of_its_own_message() -> None:
    two, one = travelled(Two(1, 2)), travelled(One(3))
    assert two.args == ("1 and 2",) and two.both == (1, 2) and one.args == ("it was 3",)


def test_slots_come_along_and_those_that_were_never_set_stay_so() -> None:
    exc = Slotted("x")
    exc.set = 5  # type: ignore[attr-defined]
    back = travelled(exc)
    assert back.set == 5 and not hasattr(back, "never")


@pytest.mark.parametrize(
    ("exc", "names"),
    [
        (FileNotFoundError(2, "no", "a", None, "b"), ("errno", "strerror", "filename", "filename2")),
        (SyntaxError("bad", ("f.py", 3, 4, "text")), ("msg", "filename", "lineno", "offset", "text")),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), ("encoding", "object", "start", "end", "reason")),
        (StopIteration(7), ("value",)),
        (SystemExit(3), ("code",)),
        (ImportError("no", name="n", path="p"), ("msg", "name", "path")),
        (KeyError("k"), ("args",)),
    ],
)
def test_what_kinds_of_the_library_keep_in_c(exc: BaseException, names: tuple[str, ...]) -> None:
    back = travelled(exc)
    assert type(back) is type(exc) and back.args == exc.args and str(back) == str(exc)
    assert [getattr(back, name) for name in names] == [getattr(exc, name) for name in names]


def test_an_attribute_errors_object_stays() -> None:
    try:
        io.StringIO().no_such  # type: ignore[attr-defined]  # noqa: B018
    except AttributeError as exc:
        back = travelled(exc)
    assert back.name == "no_such" and back.obj is None


def test_a_class_that_says_how_it_travels_is_asked() -> None:
    assert reducer_of(Own()) is None and travelled(Own("x")).args == ("made by itself",)
    assert travelled(Stateful("x")).args == ("x",)
    exc = Stateful("x")
    exc.b, exc.a = 1, 2  # type: ignore[attr-defined]
    assert travelled(exc).told == ["a", "b"]


def test_groups_keep_what_is_in_them() -> None:
    back = travelled(ExceptionGroup("several", [Two(1, 2), ValueError("x")]))  # noqa: F821 - Python 3.10 leaves this out
    assert back.message == "several" and [type(each) for each in back.exceptions] == [Two, ValueError]
    assert back.exceptions[0].both == (1, 2)


def test_a_value_that_this_python_does_not_know_is_passed_over() -> None:
    make, args, state, *_, fill = take_apart(OSError(2, "no"))
    exc = make(*args)
    fill(exc, (state[0], [(0, "no_such_member", 1), (99, "errno", 5)], {"note": "kept"}))
    assert exc.args == (2, "no") and exc.note == "kept"
    assert copyreg  # pickle's own table is not asked
