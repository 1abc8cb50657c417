"""Exceptions on their way home: every form that people write, rebuilt as it was raised."""

from __future__ import annotations

import asyncio
import builtins
import configparser
import copyreg
import dataclasses
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from grid.errors import HostError, RemoteError, RemoteTraceback
from grid.wire import codec, raised

Group: Any = getattr(builtins, "ExceptionGroup", None)


class Broke(Exception):
    """The famous one: what it takes is not what it hands on."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b} broke")
        self.a, self.b = a, b


class Wrapped(Exception):
    """Rebuilt from its message it would be "bad value: bad value: 3", without an error."""

    def __init__(self, value: object) -> None:
        super().__init__(f"bad value: {value}")
        self.value = value


class ByKeyword(Exception):
    def __init__(self, *, code: int, why: str = "unknown") -> None:
        self.code, self.why = code, why


class Silent(Exception):
    def __init__(self, code: int, more: str) -> None:
        self.code = code


class Slotted(Exception):
    __slots__ = ("code", "none", "unset")

    def __init__(self, code: int) -> None:
        self.code, self.none = code, None
        super().__init__("slotted")


class Full(OSError):
    def __init__(self, place: str, left: int) -> None:
        super().__init__(28, "no space", place)
        self.left = left


class Undecodable(UnicodeDecodeError):
    def __init__(self, data: bytes, note: str) -> None:
        super().__init__("utf-8", data, 1, 2, "odd byte")
        self.note = note


class Missing(KeyError, AttributeError):
    def __init__(self, name: str, place: dict[str, int]) -> None:
        super().__init__(name)
        self.place = place


class Proxied(Exception):
    """Attributes that are looked up elsewhere: before `__init__` there is nothing to look in."""

    def __init__(self, inner: Any, extra: int) -> None:
        super().__init__(inner)
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclasses.dataclass
class Fielded(Exception):
    code: int
    text: str = "none"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    text: str


class OwnWay(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}/{b}")
        self.a, self.b = a, b

    def __reduce__(self) -> Any:
        return OwnWay, (self.a, self.b)


class WrongWay(OwnWay):
    """What it says about pickling is wrong."""

    def __reduce__(self) -> Any:
        return WrongWay, (self.a,)


class NoWay(OwnWay):
    def __reduce__(self) -> Any:
        raise TypeError("I am not to be pickled")


class OwnState(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("own state")
        self.a = a

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, restored=True)


def local(a: int) -> Exception:
    class Local(ValueError):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("local")
            self.one, self.two = one, two

    return Local(a, a)


def changed(exc: BaseException, **changes: Any) -> BaseException:
    for name, value in changes.items():
        setattr(exc, name, value)
    return exc


def noted(exc: BaseException) -> BaseException:
    vars(exc)["__notes__"] = ["in the third round", "on a Monday"]
    return exc


def caught(work: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as found:
        work()
    return found.value


FORMS: dict[str, Callable[[], BaseException]] = {
    "several arguments": lambda: Broke(1, 2),
    "its message is its only argument": lambda: Wrapped(3),
    "by keyword": lambda: ByKeyword(code=4),
    "never calls super": lambda: Silent(5, "x"),
    "slots": lambda: Slotted(6),
    "slots, and a name of the moment": lambda: changed(Slotted(6), hint="later"),
    "an OSError": lambda: Full("/tmp/x", 7),
    "a UnicodeDecodeError": lambda: Undecodable(b"abc", "n"),
    "two bases": lambda: Missing("k", {"k": 1}),
    "__getattr__": lambda: Proxied({"x": 1}, 8),
    "a dataclass": lambda: Fielded(code=9),
    "a frozen dataclass": lambda: Frozen(code=9, text="t"),
    "__reduce__ of its own": lambda: OwnWay(1, 2),
    "__reduce__ that is wrong": lambda: WrongWay(1, 2),
    "__reduce__ that refuses": lambda: NoWay(1, 2),
    "a local class": lambda: local(10),
    "attributes set later": lambda: changed(ValueError("v"), item=3, args=("v", "w")),
    "notes": lambda: noted(Broke(1, 2)),
    "args that were changed": lambda: changed(Broke(1, 2), args=(1, "else")),
    "KeyError": lambda: caught(lambda: {}["k"]),
    "OSError": lambda: caught(lambda: os.stat("/no/such/file")),
    "OSError, changed": lambda: changed(OSError(5, "io"), filename="f"),
    "ImportError": lambda: caught(lambda: __import__("no_such_module_at_all")),
    "SyntaxError": lambda: caught(lambda: compile("a b", "f.py", "exec")),
    "UnicodeEncodeError": lambda: caught(lambda: "\udc80".encode()),
    "StopIteration": lambda: StopIteration(3),
    "AttributeError": lambda: caught(lambda: threading.Lock().no_such_name),  # type: ignore[attr-defined]
    "CalledProcessError": lambda: subprocess.CalledProcessError(returncode=2, cmd=["x"], stderr=b"no"),
    "TimeoutExpired": lambda: subprocess.TimeoutExpired("x", 3.0),
    "IncompleteReadError": lambda: asyncio.IncompleteReadError(b"ab", 4),
    "BadZipFile": lambda: zipfile.BadZipFile("bad"),
    "ParsingError": lambda: configparser.NoOptionError("option", "section"),
    "our own": lambda: HostError("full", host="h", hint="Wait"),
}
MEMBERS = ("errno", "strerror", "filename", "filename2", "name", "path", "msg", "lineno", "offset", "text", "value")


def there_and_back(exc: BaseException, text: str = "") -> BaseException:
    return raised.heard(raised.told(exc, text), text, "call 'f'")


def looks(exc: BaseException) -> dict[str, Any]:
    members = {name: getattr(exc, name, None) for name in MEMBERS if name in dir(type(exc))}
    return {"args": exc.args, "text": str(exc), "state": vars(exc), "members": members, "code": getattr(exc, "code", 0)}


@pytest.mark.row("S11")
@pytest.mark.parametrize("form", FORMS)
def test_an_exception_comes_home_as_it_was_raised(form: str) -> None:
    exc = FORMS[form]()
    home = there_and_back(exc)
    assert type(home) is type(exc)
    assert looks(home) == looks(exc)
    assert home is not exc


@pytest.mark.row("S11")
def test_slots_are_as_they_were_set_or_not() -> None:
    home: Any = there_and_back(Slotted(1))
    assert home.none is None and not hasattr(home, "unset")


@pytest.mark.row("S11")
def test_its_init_does_not_run_again() -> None:
    made = []

    class Counted(Exception):
        def __init__(self, *args: int) -> None:
            super().__init__(*args)
            made.append(self)

    home = there_and_back(Counted(1, 2))
    assert home.args == (1, 2) and len(made) == 1


@pytest.mark.row("S11")
def test_a_state_that_its_class_restores_is_restored_by_it() -> None:
    home: Any = there_and_back(OwnState(1, 2))
    assert type(home) is OwnState and home.a == 1 and home.restored


@pytest.mark.row("S11")
def test_an_exception_that_is_a_value_comes_as_well() -> None:
    for value in (Broke(1, 2), [Broke(1, 2)], (3, Wrapped(4))):
        home = codec.loads(codec.dumps_whole(value))
        assert repr(home) == repr(value)
    assert home[1].value == 4


@pytest.mark.row("S11")
def test_the_ordinary_way_of_pickle_would_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails Python has mended it, and `grid/wire/exceptions.py` can go."""
    for kind in (Broke, Wrapped):  # Dask, once loaded, has another way for all exceptions that there are
        monkeypatch.delitem(copyreg.dispatch_table, kind, raising=False)
    with pytest.raises(TypeError, match="argument"):
        pickle.loads(pickle.dumps(Broke(1, 2)))
    assert str(pickle.loads(pickle.dumps(Wrapped(3)))) == "bad value: bad value: 3"


def chained() -> BaseException:
    try:
        try:
            {}["missing"]
        except KeyError:
            raise Wrapped("inner") from None
    except Wrapped as inner:
        try:
            raise Broke(1, 2) from inner
        except Broke as broke:
            return broke
    raise AssertionError


@pytest.mark.row("S11")
def test_causes_and_contexts_come_and_the_traceback_stands_at_their_end() -> None:
    home = there_and_back(chained(), "Traceback ...")
    inner = home.__cause__
    assert type(inner) is Wrapped and inner.value == "inner"
    assert home.__context__ is inner, "one exception, not two"
    assert isinstance(inner.__context__, KeyError) and inner.__suppress_context__
    assert isinstance(inner.__cause__, RemoteTraceback) and inner.__cause__.text == "Traceback ..."
    alone = there_and_back(Broke(1, 2), "Traceback ...")
    assert isinstance(alone.__cause__, RemoteTraceback), "without a cause it is the cause"


@pytest.mark.row("S11")
def test_a_context_alone_is_no_cause() -> None:
    try:
        try:
            {}["missing"]
        except KeyError:
            raise Broke(1, 2)  # noqa: B904 - that is the point
    except Broke as broke:
        home = there_and_back(broke, "text")
    assert isinstance(home.__context__, KeyError)
    assert isinstance(home.__cause__, RemoteTraceback)


@pytest.mark.row("S11")
def test_causes_in_a_circle_and_very_long_chains_end() -> None:
    one, two = Broke(1, 2), Wrapped(3)
    one.__cause__, two.__cause__ = two, one
    home = there_and_back(one, "text")
    assert home.__cause__ is not None and type(home.__cause__) is Wrapped
    long = error = Broke(1, 2)
    for _ in range(5000):
        error.__cause__ = Broke(3, 4)
        error = error.__cause__
    home = there_and_back(long, "text")
    assert type(home) is Broke and len(raised.chain(home)) == raised.MOST


@pytest.mark.row("S11")
def test_a_cause_that_cannot_travel_is_stood_for_and_the_exception_comes() -> None:
    broke = Broke(1, 2)
    broke.__cause__ = changed(Wrapped(3), held=(n for n in range(3)))
    home = there_and_back(broke, "text")
    assert type(home) is Broke and home.a == 1
    assert isinstance(home.__cause__, RemoteError)
    assert "Wrapped: bad value: 3" in str(home.__cause__) and "Wrapped.held" in str(home.__cause__)


@pytest.mark.row("S11")
@pytest.mark.skipif(Group is None, reason="Python 3.10 has no groups")
def test_a_group_comes_with_its_members() -> None:
    class Errors(Group):  # type: ignore[misc]
        def __new__(cls, errors: list[Exception], status: int) -> Any:
            made = super().__new__(cls, f"status {status}", errors)
            made.status = status
            return made

        def derive(self, errors: Any) -> Any:
            return Errors(errors, self.status)

    within = Group("within", [Broke(1, 2), Wrapped(3)])
    home: Any = there_and_back(noted(Group("out", [within, ValueError(4)])), "text")
    assert type(home) is Group and home.message == "out" and home.__notes__
    assert home.exceptions[0].exceptions[0].a == 1
    matching, rest = home.split(Wrapped)
    assert matching is not None and rest is not None
    home = there_and_back(Errors([Broke(1, 2)], 7))
    assert (
        type(home) is Errors
        and home.status == 7
        and home.exceptions[0].b == 2
        and str(home) == "status 7 (1 sub-exception)"
    )
    bad = Group("bad", [Broke(1, 2), changed(Wrapped(3), held=(n for n in range(3)))])
    home = there_and_back(bad, "text")
    assert type(home) is Group and type(home.exceptions[0]) is Broke
    assert isinstance(home.exceptions[1], RemoteError) and "Wrapped.held" in str(home.exceptions[1])


@pytest.mark.row("S11")
def test_a_stand_in_says_which_class_and_why() -> None:
    home: Any = there_and_back(changed(Broke(1, 2), held=(n for n in range(3))), "Traceback of it")
    assert type(home) is RemoteError
    assert home.kind == f"{__name__}.Broke" and home.remote_traceback == "Traceback of it"
    assert "1 and 2 broke" in str(home) and "Broke.held is a builtins.generator" in str(home)
    assert isinstance(home.__cause__, RemoteTraceback)


@pytest.mark.row("S11")
def test_a_class_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = raised.told(Broke(1, 2), "text")
    monkeypatch.delattr(sys.modules[__name__], "Broke")
    home: Any = raised.heard(data, "text")
    assert type(home) is RemoteError
    assert home.kind == f"{__name__}.Broke" and "1 and 2 broke" in str(home) and "importable here" in str(home)


@pytest.mark.row("S11")
def test_what_would_end_the_client_is_stood_for() -> None:
    for exc in (SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()):
        home: Any = there_and_back(exc, "text")
        assert type(home) is RemoteError and type(exc).__qualname__ in home.kind
    assert there_and_back(SystemExit(3)).code == 3  # type: ignore[attr-defined]
    wrapped = ValueError("v")
    wrapped.__cause__ = SystemExit(3)
    assert isinstance(there_and_back(wrapped).__cause__, SystemExit), "as a cause it does no harm"


@pytest.mark.row("S11")
def test_what_was_heard_is_passed_on_with_its_traceback() -> None:
    first = there_and_back(chained(), "the text")
    again = raised.heard(*raised.passed_on(first), "elsewhere")
    assert type(again) is Broke and type(again.__cause__) is Wrapped
    end = again.__cause__.__cause__
    assert isinstance(end, RemoteTraceback) and "the text" in end.text
