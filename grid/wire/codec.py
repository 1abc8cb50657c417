"""Objects to bytes and back: C pickle where it can, code by value for exactly what the other side could not import.

Two ways, the first that works is taken:

1. The C pickler, protocol 5, large buffers out of band. What it can do at all, it does right.
2. The C pickler again, with a hook (`byvalue`) for single objects: lambdas, closures, local classes, and kinds that it
   does not know (modules, cells, locks, ...). Code carries a token, so that a class which comes back from a host is the
   very class that went there. Open files are dill's.

Definitions of `__main__` travel by reference after an image of them was sent (`mainimage`).

Byte code must not cross between Python versions: most of it loads there, and then crashes the interpreter or returns a
wrong result (tried between 3.9 and 3.13). So code by value names the version that it was made by and is refused by
any other, and the sender refuses beforehand where it knows the receiver's version.

Lives here: `dumps`, `loads`, what an object needs at the other side, which part of it is to blame.
Elsewhere:  which modules a pickle refers to (`mentions`), where the bytes go (`link`), large buffers (`bulk`), what the
            hook does (`byvalue`, `kinds`).
"""

from __future__ import annotations

import gc
import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from grid.errors import SerialisationError
from grid.wire import kinds, mainimage, randoms
from grid.wire.authkey import with_authkey
from grid.wire.byvalue import CodePickler
from grid.wire.mainimage import IN_BAND
from grid.wire.naming import describe, importable, name_of
from grid.wire.rebuilt import CACHE_TAG, same_version
from grid.wire.signals import came_by_signal

__all__ = [
    "CACHE_TAG",
    "IN_BAND",
    "Dumped",
    "dumps",
    "dumps_call",
    "dumps_instance",
    "dumps_whole",
    "importable",
    "loads",
]

_NOTHING: frozenset[str] = frozenset()


class Dumped:
    """A serialised object: the pickle, its out-of-band buffers (flat, of bytes), and what the other side must have.

    `by_value`: descriptions of code inside it that only the same Python version may load.
    `main_names`: names of `__main__` that it refers to. `modules`: modules that the code by value needs.
    """

    # made for every call, and a dataclass takes 1 us longer
    __slots__ = ("buffers", "by_value", "data", "main_names", "modules")

    def __init__(
        self,
        data: bytes,
        buffers: Sequence[memoryview] = (),
        by_value: tuple[str, ...] = (),
        main_names: frozenset[str] = _NOTHING,
        modules: frozenset[str] = _NOTHING,
    ) -> None:
        self.data = data
        self.buffers = buffers
        self.by_value = by_value
        self.main_names = main_names
        self.modules = modules

    @property
    def nbytes(self) -> int:
        """Length of pickle and buffers together, in bytes."""
        return len(self.data) + sum(len(buffer) for buffer in self.buffers)


def dumps(obj: object, what: str = "object", *, in_band: int = IN_BAND) -> Dumped:
    """Serialise `obj`; `what` names it in errors. Buffers of less than `in_band` bytes stay in the pickle.

    Raises:
        SerialisationError: It can't travel; the message names the part that is to blame.
    """
    if type(obj) in _SCALARS:  # what most calls return
        return Dumped(pickle.dumps(obj, 5))
    if not _holds_code(obj):
        buffers: list[memoryview] = []
        try:
            data = with_authkey(pickle.dumps(obj, 5, buffer_callback=_collect(buffers, in_band)))
        except Exception as plain:  # the hook may know better; if not, it says why
            if came_by_signal(plain):
                raise
        else:
            named_only = _BY_NAME in data  # maybe a method, and maybe not the one of that name
            if b"__main__" not in data and not named_only:
                return Dumped(data, buffers)
            names = None if named_only else mainimage.names_in_pickle(data)
            if names is not None:
                return Dumped(data, buffers, (), names)
    try:
        return _with_code(obj, in_band)
    except RecursionError:
        return _with_room(obj, what, in_band)
    except Exception as exc:
        if came_by_signal(exc):
            raise
        raise _refusal(obj, what, exc) from exc


def dumps_instance(instance: object) -> Dumped:
    """Serialise what is published.

    Raises:
        SerialisationError: It can't travel, or is nothing whose copy would be of use.
    """
    why = kinds.no_service(instance)
    if why:
        raise SerialisationError(
            f"a {type(instance).__module__}.{type(instance).__qualname__} can't be published: {why}",
            hint="Publish an object of a class that makes it on the server, in its __init__ or in a method",
        )
    return dumps(instance, f"the instance of {type(instance).__name__}")


def holds_generator(obj: object, dumped: Dumped) -> bool:
    """Whether a random generator travels with `obj`, of which `dumped` was made."""
    if not randoms.may_hold(dumped.data):
        return False
    pickler = HandOver(io.BytesIO(), lambda _: False)
    try:
        pickler.dump(obj)
    except RecursionError:
        return True  # it is mentioned somewhere down there
    return pickler.random


def _holds_code(obj: object) -> bool:
    """Whether it is plain to see that the hook is needed: then the first way is not tried in vain."""
    for part in obj if type(obj) in (tuple, list) and len(obj) < _FEW else (obj,):  # type: ignore[arg-type,attr-defined]
        for each in part if type(part) is tuple and len(part) < _FEW else (part,):
            kind = type(each)
            if kind is types.MethodType or (kind is types.FunctionType and not importable(each)):
                return True
            if isinstance(each, BaseException):  # pickle would call its class with what is in `args`
                return True
    return False


_FEW = 8
_BY_NAME = b"getattr"
"""With which the C pickler names what is reached by an attribute: bound methods above all (`kinds._reduce_method`)."""


def _with_code(obj: object, in_band: int) -> Dumped:
    buffers: list[memoryview] = []
    stream = io.BytesIO()
    pickler = HandOver(stream, _collect(buffers, in_band))
    pickler.dump(obj)
    data = with_authkey(stream.getvalue())
    modules = pickler.modules - _ALWAYS_THERE
    return Dumped(data, buffers, tuple(pickler.by_value), frozenset(pickler.names), frozenset(modules))


_ALWAYS_THERE = {"__main__", "builtins"}


def _with_room(obj: object, what: str, in_band: int) -> Dumped:
    """Once more in a thread of its own: the caller's own depth counts against the limit."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(_with_code(obj, in_band))
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work, name="grid-deep", daemon=True)
    thread.start()
    thread.join()
    (value,) = outcome
    if isinstance(value, Dumped):
        return value
    if isinstance(value, RecursionError):
        raise SerialisationError(
            f"{what} is nested too deeply to be serialised (the recursion limit is {sys.getrecursionlimit()})",
            hint="Flatten it, let its class say what to keep by __reduce__, or raise the limit: sys.setrecursionlimit",
        ) from value
    raise _refusal(obj, what, value) from value


def _refusal(obj: object, what: str, exc: Exception) -> SerialisationError:
    if isinstance(exc, SerialisationError):
        return exc
    return SerialisationError(
        f"{what} can't be serialised: {_refused(obj) or culprit(obj, what) or exc}",
        hint="Leave that part out with __getstate__, or make it on the server",
    )


def dumps_call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dumped:
    """Serialise a call. The commonest, with numbers and words only, needs none of what `dumps` is prepared for."""
    if not kwargs and _SCALARS.issuperset(map(type, args)):
        return Dumped(pickle.dumps((method, args, kwargs), 5))
    return dumps((method, args, kwargs), f"an argument of {method!r}")


_SCALARS = frozenset({int, float, str, bool, type(None), bytes})


def loads(data: bytes | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """Rebuild what `dumps` took apart; arrays are writable when the buffers are."""
    if len(data) < MANY or not gc.isenabled():
        return pickle.loads(data, buffers=buffers)
    gc.disable()  # it would look through the new objects again and again, and find nothing
    try:
        return pickle.loads(data, buffers=buffers)
    finally:
        gc.enable()


MANY = 64 * 1024
"""Bytes of a pickle that may hold thousands of objects."""


def dumps_whole(obj: object, what: str = "object") -> bytes:
    """Serialise `obj` into one piece of bytes, buffers included."""
    return dumps(obj, what, in_band=sys.maxsize).data


def _collect(into: list[memoryview], in_band: int) -> Callable[[pickle.PickleBuffer], bool]:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < in_band:
            return True
        into.append(raw)
        return False

    return keep


# -- by value ------------------------------------------------------------------------------------------------------


class HandOver(CodePickler):
    """Code by value where it must be, and open files as dill takes them: opened there by their names."""

    def __init__(self, stream: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(stream, buffer_callback)
        self._kinds = _kinds_but_files()

    def _text(self, file: Any) -> Any:
        _check_read_only(file)
        try:
            return kinds.reduce_text(file)  # what is read travels as text
        except Exception as exc:
            if came_by_signal(exc):
                raise
            return self._by_dill(file)

    def by_reference(self, obj: Any) -> bool:
        """Whether its name leads to it; a name of `__main__` is noted, for the image."""
        found = importable(obj)
        if found and obj.__module__ == "__main__":
            self.names.add(name_of(obj).partition(".")[0])
        return found

    def other(self, obj: Any) -> Any:
        """Text files and random generators are looked at; the rest is the C pickler's affair."""
        kind = type(obj)
        self.random = self.random or randoms.is_generator(kind)
        if kind is io.TextIOWrapper:
            return self._text(obj)
        if kind in _dill_kinds():
            return self._by_dill(obj)
        if kind.__module__ == "__main__" and any(getattr(kind, each) is not getattr(object, each) for each in _REDUCE):
            named = obj.__reduce_ex__(5)
            if isinstance(named, str):
                self.names.add(named.partition(".")[0])
            return named
        return super().other(obj)

    def _by_dill(self, obj: Any) -> Any:
        import dill

        if isinstance(obj, io.IOBase):
            _check_read_only(obj)

        self.by_value.append(describe(obj))
        # without `recurse`: with it dill swaps sys.stdout while it looks for global names
        return _undill, (CACHE_TAG, dill.dumps(obj, protocol=5, recurse=False, byref=True))


_REDUCE = ("__reduce__", "__reduce_ex__")


def _check_read_only(file: Any) -> None:
    """A file that is written to stays behind: opened there by its name, it would be emptied, or written twice."""
    mode = getattr(file, "mode", "r")
    if file in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):  # those of the other side stand for them
        return
    if not file.closed and (file.writable() or not isinstance(mode, str) or set(mode) & set("wax+")):
        name = getattr(file, "name", "")
        raise pickle.PicklingError(
            f"a file that is open for writing ({name!r}) belongs to the process that opened it; send its name, "
            "and open it there"
        )


@lru_cache(maxsize=1)
def _kinds_but_files() -> dict[type, kinds.Reducer]:
    """Without that for which a method of the pickler would stand here: such a circle would keep the pickler's memo, and
    all that was pickled, until the collector comes by.
    """
    return {kind: reducer for kind, reducer in kinds.reducers().items() if kind is not io.TextIOWrapper}


@lru_cache(maxsize=1)
def _dill_kinds() -> frozenset[type]:
    """Kinds that only dill knows."""
    import weakref

    files = (io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)
    return frozenset({*files, weakref.ProxyType, weakref.CallableProxyType})


def _undill(made_by: str, data: bytes) -> Any:
    import dill

    same_version(made_by, "an object that only dill can carry")
    return dill.loads(data)


# -- saying what is wrong ------------------------------------------------------------------------------------------


def _travels(obj: object) -> bool:
    try:
        HandOver(io.BytesIO(), lambda _: False).dump(obj)
    except Exception:
        return False
    return True


def _refused(obj: object) -> str:
    """Why we refuse an object as it stands, whatever is in it."""
    refuse = kinds.reducer_of(obj)
    try:
        if refuse is not None:
            refuse(obj)
    except pickle.PicklingError as exc:
        return str(exc)
    return ""


def _own_words(part: object, where: str) -> str:
    """Why an object does not travel, where its class, or we, refuse with words of its own."""
    refuse = kinds.reducers().get(type(part)) or kinds.reducer_of(part)
    try:
        if refuse is not None:
            refuse(part)
    except pickle.PicklingError as exc:
        return f"{where}: {exc}"
    except Exception:  # a file that can't be read, say
        pass
    if type(part).__reduce__ is object.__reduce__:
        return ""
    try:
        part.__reduce__()
    except TypeError as exc:
        return f"{where}: {exc}"
    return ""


def culprit(obj: Any, path: str, depth: int = 4) -> str:
    """The smallest part of `obj` that can't travel, as a path, e.g. `instance.engine.socket (a _socket.socket)`."""
    parts: list[tuple[str, Any]] = []
    if isinstance(obj, dict):
        parts = [(f"{path}[{key!r}]", value) for key, value in obj.items()]
    elif isinstance(obj, (list, tuple, set, frozenset)):
        parts = [(f"{path}[{index}]", value) for index, value in enumerate(obj)]
    else:
        parts = [(f"{path}.{name}", value) for name, value in getattr(obj, "__dict__", {}).items()]
        if isinstance(obj, types.FunctionType) and obj.__closure__:
            names = obj.__code__.co_freevars
            parts += [
                (f"variable {name!r} of {obj.__qualname__}", cell.cell_contents)
                for name, cell in zip(names, obj.__closure__, strict=True)
            ]
    for where, part in parts:
        if not _travels(part):
            deeper = _own_words(part, where) or (culprit(part, where, depth - 1) if depth else "")
            return deeper or f"{where} is a {type(part).__module__}.{type(part).__qualname__}"
    return ""
