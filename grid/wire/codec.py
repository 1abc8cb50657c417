"""Objects to bytes and back: C pickle where it can, dill for exactly what the other side could not import.

Three ways, tried in this order, the first that works is taken:

1. The C pickler, protocol 5, large buffers out of band. What it can do at all, it does right.
2. The C pickler again, with a hook that hands to dill single objects: lambdas, closures, local classes, and the kinds
   that only dill knows (modules, cells, generators' code, locks, ...). They carry a token, so that a class which comes
   back from a host is the very class that went there.
3. dill for the whole.

Definitions of `__main__` travel by reference after an image of them was sent (`mainimage`).

Byte code must not cross between Python versions: most of it loads there, and then crashes the interpreter or returns a
wrong result (tried between 3.9 and 3.13). So code by value names the version that it was made by and is refused by
any other, and the sender refuses beforehand where it knows the receiver's version.

Lives here: `dumps`, `loads`, the token registry, what an object needs at the other side.
Elsewhere:  where the bytes go (`link`), large buffers (`bulk`).
"""

from __future__ import annotations

import io
import pickle
import re
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from grid.errors import SerialisationError, VersionError
from grid.wire import mainimage
from grid.wire.signals import came_by_signal

IN_BAND = 16 * 1024
"""Buffers below this many bytes stay inside the pickle: copying them is cheaper than carrying them apart."""

CACHE_TAG = sys.implementation.cache_tag or "unknown"


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
        SerialisationError: Not even dill can do it; the message names the part that is to blame.
    """
    buffers: list[memoryview] = []
    try:
        data = pickle.dumps(obj, 5, buffer_callback=_collect(buffers, in_band))
        if b"__main__" not in data:
            return Dumped(data, buffers)
        return Dumped(data, buffers, (), mainimage.names_in_pickle(data))
    except Exception as plain:
        if came_by_signal(plain):
            raise
        buffers.clear()
        stream = io.BytesIO()
        pickler = _HandOver(stream, buffers, in_band)
        try:
            pickler.dump(obj)
            data = stream.getvalue()
            by_value, used, modules = pickler.by_value, pickler.globals_used, pickler.modules
        except Exception as handed:
            if came_by_signal(handed):
                raise
            buffers.clear()
            try:
                blob = _dill_dumps(obj, recurse=True)
                data = pickle.dumps(_Dilled(blob), 5)
                by_value, used, modules = [what], set(), mainimage.modules_of(blob)
            except Exception as last:
                if came_by_signal(last):
                    raise
                raise SerialisationError(
                    f"{what} can't be serialised: {_culprit(obj, what) or last}",
                    hint="Leave that part out with __getstate__, or make it on the server",
                ) from plain
    names = mainimage.names_in_pickle(data) | used if b"__main__" in data or used else _NOTHING
    return Dumped(data, buffers, tuple(by_value), names, frozenset(modules))


def dumps_call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Dumped:
    """Serialise a call. The commonest, with numbers and words only, needs none of what `dumps` is prepared for."""
    for arg in args:
        if type(arg) not in _SCALARS:
            break
    else:
        if not kwargs:
            return Dumped(pickle.dumps((method, args, kwargs), 5))
    return dumps((method, args, kwargs), f"an argument of {method!r}")


_SCALARS = frozenset({int, float, str, bool, type(None), bytes})


def loads(data: bytes | memoryview, buffers: Sequence[Any] = ()) -> Any:
    """Rebuild what `dumps` took apart; arrays are writable when the buffers are."""
    return pickle.loads(data, buffers=buffers)


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


# -- what dill takes over ------------------------------------------------------------------------------------------

_PLAIN = (int, float, complex, str, bytes, bytearray, tuple, list, dict, set, frozenset, bool, type(None))


class _HandOver(pickle.Pickler):
    """The C pickler, but single objects that the other side could not import are given to dill."""

    def __init__(self, stream: io.BytesIO, buffers: list[memoryview], in_band: int) -> None:
        super().__init__(stream, 5, buffer_callback=_collect(buffers, in_band))
        self.by_value: list[str] = []
        self.globals_used: set[str] = set()
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)):
            if importable(obj):
                return NotImplemented
        elif type(obj) not in _dill_kinds():
            return NotImplemented
        self.by_value.append(_describe(obj))
        # what the code names in `__main__` must be there when it runs
        self.globals_used |= {name for name in mainimage.globals_used(obj) if name in sys.modules["__main__"].__dict__}
        # Code of `__main__` finds its globals in the other `__main__`; other code takes along what it uses, so that
        # a lambda does not drag its whole module there.
        blob = _dill_dumps(obj, recurse=getattr(obj, "__module__", None) != "__main__")
        self.modules |= mainimage.modules_of(blob)
        return _restore, (_token_of(obj), CACHE_TAG, blob)


def importable(obj: Any) -> bool:
    """Whether `module.qualname` leads to this very object, so that a reference is enough."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    if found is None:
        return False
    try:
        for part in obj.__qualname__.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


def _dill_kinds() -> frozenset[type]:
    global _kinds
    if _kinds is None:
        import dill

        ours = set(dill.Pickler.dispatch)
        _kinds = frozenset(ours - set(pickle._Pickler.dispatch) - set(_PLAIN))
    return _kinds


_kinds: frozenset[type] | None = None


def _dill_dumps(obj: object, *, recurse: bool) -> bytes:
    import dill

    data: bytes = dill.dumps(obj, protocol=5, recurse=recurse, byref=False)
    return data


class _Dilled:
    """A whole object as dill wrote it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return _undill, (CACHE_TAG, self.data)


def _undill(made_by: str, data: bytes) -> Any:
    import dill

    _same_version(made_by, "an object that only dill can carry")
    return dill.loads(data)


def _same_version(made_by: str, what: str) -> None:
    if made_by != CACHE_TAG:
        raise VersionError(
            f"{what} holds byte code of {made_by}, and this is {CACHE_TAG}",
            hint="Use the same minor version of Python on both sides, or move the code into a module",
        )


# -- identity of code by value -------------------------------------------------------------------------------------

_registry = threading.Lock()
_tokens: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_by_token: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def _token_of(obj: Any) -> str | None:
    try:
        with _registry:
            token = _tokens.get(obj)
            if token is None:
                token = uuid.uuid4().hex
                _tokens[obj] = token
                _by_token[token] = obj
            return token
    except TypeError:  # can't be referred to weakly, so it has no identity to keep
        return None


def _restore(token: str | None, made_by: str, blob: bytes) -> Any:
    import dill

    if token is not None:
        with _registry:
            known = _by_token.get(token)
        if known is not None:
            return known
    _same_version(made_by, "code sent by value")
    obj = dill.loads(blob)
    if token is not None:
        try:
            with _registry:
                _tokens[obj] = token
                _by_token[token] = obj
        except TypeError:
            pass
    return obj


# -- which modules a pickle mentions -------------------------------------------------------------------------------

_GLOBAL = re.compile(rb"\x8c.([A-Za-z_][\w.]{0,254})\x94(?:\x8c.[^\x94]{1,255}|h.|j.{4})\x94?\x93", re.DOTALL)


def modules_in(data: bytes) -> set[str]:
    """Modules whose members a pickle of protocol 5 refers to. May miss one whose name it also holds as data."""
    if b"\x93" not in data:
        return set()
    return {match.decode() for match in _GLOBAL.findall(data)} - {"__main__"}


# -- saying what is wrong ------------------------------------------------------------------------------------------


def _describe(obj: Any) -> str:
    name = getattr(obj, "__qualname__", None) or type(obj).__name__
    code = getattr(obj, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, types.CodeType) else ""
    kind = "class" if isinstance(obj, type) else type(obj).__name__
    return f"{kind} {name}{where}"


def _travels(obj: object) -> bool:
    try:
        _dill_dumps(obj, recurse=True)
    except Exception:
        return False
    return True


def _own_words(part: object, where: str) -> str:
    """Why an object does not travel, where its class refuses with words of its own."""
    if type(part).__reduce__ is object.__reduce__:
        return ""
    try:
        part.__reduce__()
    except TypeError as exc:
        return f"{where}: {exc}"
    return ""


def _culprit(obj: Any, path: str, depth: int = 4) -> str:
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
            deeper = _own_words(part, where) or (_culprit(part, where, depth - 1) if depth else "")
            return deeper or f"{where} is a {type(part).__module__}.{type(part).__qualname__}"
    return ""
