"""Objects that are no code and that the C pickler refuses, kind by kind: how each is taken apart, or why it stays.

Lives here: locks, type variables, weak references, caches, views; what must not be taken apart although it could be;
            what stands in the place of something that stayed behind.
Elsewhere:  functions and classes (`byvalue`), who asks (`byvalue`, `mainimage`).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import inspect
import io
import pickle
import queue
import random
import struct
import subprocess
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from grid.errors import SerialisationError
from grid.wire import exceptions, proven, tokens
from grid.wire.naming import importable

Reducer = Callable[[Any], Any]

_RLOCKS = {type(threading.RLock()), getattr(threading, "_PyRLock", type(threading.RLock()))}


@lru_cache(maxsize=1)
def reducers() -> dict[type, Reducer]:
    """By exact type: what takes an object apart, as `object.__reduce__` does."""
    found: dict[type, Reducer] = dict(proven.load().Pickler._dispatch_table)
    for known in (types.ModuleType, types.CellType, types.CodeType):
        found.pop(known, None)  # `byvalue` knows them
    kind: Any
    for kind in _RLOCKS:
        found[kind] = lambda lock: (threading.RLock, ())
    found[type(threading.Lock())] = lambda lock: (threading.Lock, ())
    found[queue.SimpleQueue] = _refusal("a SimpleQueue can't be looked into; use queue.Queue")
    found[weakref.ReferenceType] = lambda ref: (_make_ref, (ref(),))
    found[weakref.WeakValueDictionary] = lambda each: (weakref.WeakValueDictionary, (dict(each),))
    found[weakref.WeakKeyDictionary] = lambda each: (weakref.WeakKeyDictionary, (dict(each),))
    found[types.CodeType] = lambda code: proven.load()._code_reduce(code)
    found[types.WrapperDescriptorType] = _reduce_descriptor
    found[types.MethodDescriptorType] = _reduce_descriptor
    found[types.ClassMethodDescriptorType] = _reduce_descriptor
    found[types.MemberDescriptorType] = _reduce_descriptor
    found[struct.Struct] = lambda each: (struct.Struct, (each.format,))
    found[random.SystemRandom] = lambda _: (random.SystemRandom, ())
    found[types.MethodType] = _reduce_method
    found[super] = lambda each: (super, (each.__thisclass__, each.__self__))
    for kind in named():
        found.pop(kind, None)
    found[io.TextIOWrapper] = reduce_text
    for kind, name in _SENTINELS.items():
        if kind.__module__ == "dataclasses":  # since 3.15 they are `sentinel`s, which pickle knows
            found[kind] = _named_in("dataclasses", name)
    found[functools.partialmethod] = _reduce_partialmethod
    return found


@lru_cache(maxsize=1)
def named() -> dict[type, Reducer]:
    """By exact type: what is a definition like functions and classes, and how it goes by value."""
    found: dict[type, Reducer] = {type(functools.lru_cache(lambda: 0)): _reduce_cache}
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple", "TypeAliasType", "NewType"):
        if isinstance(kind := getattr(typing, name, None), type):
            found[kind] = _reduce_parameter
    return found


_SENTINELS: dict[type, str] = {
    type(dataclasses.MISSING): "MISSING",
    type(dataclasses.KW_ONLY): "KW_ONLY",
    type(dataclasses._HAS_DEFAULT_FACTORY): "_HAS_DEFAULT_FACTORY",  # type: ignore[attr-defined]
}
"""Objects that are compared by identity, and their names in their modules."""


def _named_in(module: str, name: str) -> Reducer:
    return lambda _: (getattr, (sys.modules[module], name))


def reducer_of(obj: Any) -> Reducer | None:
    """For kinds that are known by a class above theirs. A class that says how it travels, or why not, is asked."""
    if isinstance(obj, BaseException):
        return exceptions.reducer_of(obj)
    for kind, why in _stays():
        if isinstance(obj, kind):
            return None if _has_own_way(type(obj), kind) else _refusal(why)
    return None


def _has_own_way(cls: type, above: type) -> bool:
    return any(getattr(cls, each) is not getattr(above, each) for each in ("__reduce__", "__reduce_ex__"))


@lru_cache(maxsize=1)
def _always_stay() -> tuple[tuple[type, str], ...]:
    return (
        (threading.Thread, "a thread runs in the process that started it"),
        (concurrent.futures.Executor, "an executor has threads or processes of the process that made it"),
        (concurrent.futures.Future, "a future is settled in the process that made it"),
        (subprocess.Popen, "a child belongs to the process that started it"),
    )


def _stays() -> list[tuple[type, str]]:
    """What could be taken apart, and would be of no use, or harm."""
    found = list(_always_stay())
    if (ctypes := sys.modules.get("ctypes")) is not None:
        found.append((ctypes.CDLL, "a library is loaded at an address of this process; load it where it is used"))
    if (pool := sys.modules.get("multiprocessing.pool")) is not None:
        found.append((pool.Pool, "a pool has processes of the process that made it"))
    if (asyncio := sys.modules.get("asyncio")) is not None:
        found.append((asyncio.AbstractEventLoop, "an event loop runs in a thread of this process"))
    if (mock := sys.modules.get("unittest.mock")) is not None:
        found.append((mock.NonCallableMock, "a mock notes its calls in the process that made it; send another object"))
    if (tempfile := sys.modules.get("tempfile")) is not None:
        found.append((tempfile._TemporaryFileWrapper, "the end of a copy would remove the file; send its name"))
    return found


_NO_SERVICES: dict[type, str] = {
    **dict.fromkeys(
        (*_RLOCKS, type(threading.Lock()), threading.Condition, threading.Semaphore, threading.BoundedSemaphore),
        "a copy of a lock locks nothing here",
    ),
    **dict.fromkeys((threading.Event, threading.Barrier), "threads here would not hear of what happens to a copy"),
    **dict.fromkeys(
        (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO),
        "an open file belongs to the process that opened it",
    ),
}
"""What travels inside of an instance, and is of no use, or harm, as the instance itself."""


def no_service(instance: object) -> str:
    """Why an object is not published, where it can be told by its kind; else nothing."""
    return _NO_SERVICES.get(type(instance), "")


def _refusal(why: str) -> Reducer:
    def refuse(obj: Any) -> Any:
        raise pickle.PicklingError(f"a {type(obj).__module__}.{type(obj).__qualname__} can't travel: {why}")

    return refuse


def _make_ref(target: Any) -> Any:
    return weakref.ref(_Vanishing() if target is None else target)


class _Vanishing:
    """To what a reference refers whose object had ended."""


def _reduce_partialmethod(each: Any) -> Any:
    return _make_partialmethod, (each.func, each.args, each.keywords)


def _make_partialmethod(func: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return functools.partialmethod(func, *args, **keywords)


def _reduce_cache(cached: Any) -> Any:
    rules = cached.cache_parameters()
    return _make_cache, (cached.__wrapped__, rules["maxsize"], rules["typed"], dict(vars(cached)))


def _make_cache(function: Any, maxsize: int | None, typed: bool, attributes: dict[str, Any]) -> Any:
    made = functools.lru_cache(maxsize, typed)(function)
    vars(made).update(attributes)
    return made


def _reduce_method(method: Any) -> Any:
    """The very function and its instance.

    The C pickler asks the instance for an attribute of the function's name. That is another one where a decorator
    without `functools.wraps` made it, or where a subclass overrides what `super()` gave.
    """
    function, bound = method.__func__, method.__self__
    if not importable(function):
        classes: tuple[type, ...] = type(bound).__mro__
        if isinstance(bound, type):
            classes = (*bound.__mro__, *classes)
        for cls in classes:
            # A class by value may still lack its methods when this is rebuilt: there the function goes by value, too.
            if cls.__module__ == "__main__" or not importable(cls):
                continue
            for name, there in vars(cls).items():
                if _function_in(there) is function:
                    return _bind, (cls, name, bound)
    return types.MethodType, (function, bound)


def _bind(cls: type, name: str, bound: Any) -> Any:
    return types.MethodType(_function_in(vars(cls)[name]), bound)


def _function_in(there: Any) -> Any:
    return there.__func__ if isinstance(there, classmethod) else there


def _reduce_descriptor(each: Any) -> Any:
    return getattr, (each.__objclass__, each.__name__)


def _reduce_parameter(obj: Any) -> Any:
    """A type variable, a new type or an alias by value. The same one again is the same object there."""
    kind = type(obj).__name__
    facts: dict[str, Any] = {}
    if kind in ("TypeVar", "ParamSpec"):
        facts = {"bound": obj.__bound__, "covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
        if getattr(obj, "__infer_variance__", False):
            facts = {"bound": obj.__bound__, "infer_variance": True}
    positional: tuple[Any, ...] = getattr(obj, "__constraints__", ())
    if kind == "NewType":
        positional = (obj.__supertype__,)
    elif kind == "TypeAliasType":
        positional, facts = (obj.__value__,), {"type_params": obj.__type_params__}
    has_default = getattr(obj, "has_default", None)
    if has_default is not None and has_default():
        facts["default"] = obj.__default__
    return _make_parameter, (tokens.token_of(obj), type(obj), obj.__name__, obj.__module__, positional, facts)


def _make_parameter(
    token: str, kind: Any, name: str, module: str, positional: tuple[Any, ...], facts: dict[str, Any]
) -> Any:
    known = tokens.known(token)
    if known is not None:
        return known
    made = kind(name, *positional, **facts)
    try:
        made.__module__ = module
    except AttributeError:
        pass
    tokens.enter(made, token)
    return made


def reduce_text(file: Any) -> Any:
    """A text file that is read travels as its text; the standard streams are those of the other side."""
    if file is sys.__stdout__ or file is sys.__stderr__:
        return getattr, (sys, "stdout" if file is sys.__stdout__ else "stderr")
    return proven.load()._file_reduce(file)


def of_struct(cls: Any, fixed: dict[str, Any]) -> dict[str, Any]:
    """A class of msgspec's: puts what its fields are made of into `fixed`; returns the words that it is made with."""
    fixed.pop("__slots__", None)
    msgspec = sys.modules["msgspec"]
    own = fixed["__annotations__"] = inspect.get_annotations(cls)
    fields, defaults = cls.__struct_fields__, cls.__struct_defaults__
    for name, default in zip(fields[len(fields) - len(defaults) :], defaults, strict=True):
        if name in own and default is not msgspec.NODEFAULT:
            factory = getattr(default, "factory", None)
            fixed[name] = default if factory is None else msgspec.field(default_factory=factory)
    config = cls.__struct_config__
    return {word: getattr(config, word) for word in _OF_STRUCTS if hasattr(config, word)}


_OF_STRUCTS = (
    *("frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults", "forbid_unknown_fields"),
    *("weakref", "dict", "cache_hash", "tag", "tag_field"),
)


# -- in the place of what is not there -----------------------------------------------------------------------------


class AbsentModule:
    """In place of a module that this host lacks: complains when it is used, not before."""

    def __init__(self, name: str, reason: str) -> None:
        self.__dict__["_absent"] = (name, reason)

    def __getattr__(self, attribute: str) -> Any:
        name, reason = self.__dict__["_absent"]
        text = f"{name}.{attribute} was used, but this host has no module {name!r} ({reason})"
        raise ModuleNotFoundError(text, name=name)


class StayedBehind:
    """In place of something of a script that can't travel: each use of it raises, with the reason."""

    def __init__(self, name: str, reason: str) -> None:
        object.__setattr__(self, "_stayed", (name, reason))

    def __reduce__(self) -> Any:
        return StayedBehind, object.__getattribute__(self, "_stayed")

    def __repr__(self) -> str:
        name, reason = object.__getattribute__(self, "_stayed")
        return f"<{name} of the script, which stayed behind: {reason}>"

    def __getattribute__(self, attribute: str) -> Any:
        if attribute in _OF_STAND_INS:
            return object.__getattribute__(self, attribute)
        raise _used(self)


_OF_STAND_INS = frozenset({"__class__", "__reduce__", "__reduce_ex__", "__doc__", "__module__", "__dict__"})


def _used(stand_in: StayedBehind) -> SerialisationError:
    name, reason = object.__getattribute__(stand_in, "_stayed")
    return SerialisationError(
        f"{name} of the script was used here, but it stayed behind, because it can't travel: {reason}",
        hint="Make it where it is used: in the method, or in the module that needs it",
    )


def _guard(operation: str) -> Any:
    def use(self: StayedBehind, *_: Any, **__: Any) -> Any:
        raise _used(self)

    use.__name__ = operation
    return use


for _operation in (
    *("call", "enter", "exit", "aenter", "aexit", "await", "aiter", "anext", "iter", "next", "len", "bool"),
    *("contains", "neg", "pos", "abs", "invert", "round", "reversed", "format", "array", "fspath"),
    *("getitem", "setitem", "delitem", "setattr", "delattr", "str", "bytes", "int", "float", "complex", "index"),
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"),
    *("radd", "rsub", "rmul", "rmatmul", "rtruediv", "rfloordiv", "rmod", "rpow", "rand", "ror", "rxor"),
    *("lt", "le", "gt", "ge"),
):
    setattr(StayedBehind, f"__{_operation}__", _guard(f"__{_operation}__"))
