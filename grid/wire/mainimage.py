"""What `__main__` defines, carried to a process that started with an empty `__main__`.

A user's script or notebook is `__main__`; its classes can't be imported on a host. Sending a class by value with each
object that needs it is slow, and worse: every copy is another class, so `isinstance`, `==` of dataclasses and enums
fail, on the host and for results that come back. So we mirror the part of `__main__` that is needed, once: the host's
`__main__` gets the same names, and from then on both sides pickle by reference at full speed and agree on identity.

An *image* holds some names, and all that the code and the data behind them name in turn, which is found out while they
are pickled. It is a snapshot: a name bound anew (a notebook cell run again, `N = 6` after `N = 5`), or a class that got
another method, or a small table with other items, is sent again with the next message that mentions it. What is changed
deep inside of something is not.

What can't travel stays behind, by itself: its name, or the place in a class or a list where it was, holds something
that raises, with the reason, when it is used. A script's `main()` may mention the grid itself.

Lives here: reading names out of a pickle; which names a message lacks; packing and installing an image.
Elsewhere:  taking code apart (`byvalue`), when an image must be sent (`grids/hostlink.py`).
"""

from __future__ import annotations

import io
import pickle
import re
import sys
import types
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grid.errors import SerialisationError
from grid.wire import bulk, kinds, naming, rebuilt
from grid.wire.byvalue import CodePickler
from grid.wire.naming import importable, names_in_code
from grid.wire.signals import came_by_signal

_REPEATED = re.compile(rb"(?:h.|j.{4})\x93", re.DOTALL)
IN_BAND = 16 * 1024
"""Buffers below this many bytes stay inside the pickle: copying them is cheaper than carrying them apart."""
_NOT_CARRIED = frozenset(
    f"__{name}__" for name in ("name", "builtins", "loader", "spec", "package", "cached", "path", "annotations")
)


def names_in_pickle(data: bytes) -> frozenset[str] | None:
    """The names below `__main__` that a pickle of protocol 4 or 5 refers to, each the first part of its dotted name.

    May name too many (a class of another module that has a namesake in `__main__`), never too few. None: it can't be
    told like this, because a qualified name may stand in the pickle as data, too.
    """
    if _REPEATED.search(data):
        return None
    found = set()
    at = data.find(b"\x94\x93")  # a name that was remembered, and looked up
    while at >= 0:
        start = data.rfind(b"\x8c", max(0, at - 257), at)
        while start >= 0 and start + 2 + data[start + 1] != at:
            start = data.rfind(b"\x8c", max(0, at - 257), start)
        if start >= 0:
            found.add(data[start + 2 : at].partition(b".")[0].decode(errors="replace"))
        at = data.find(b"\x94\x93", at + 1)
    return frozenset(found & sys.modules["__main__"].__dict__.keys())


# -- what is lacking -----------------------------------------------------------------------------------------------


@dataclass
class _Entry:
    """A name as it was packed last: what it was bound to, in what state, and which names that needs."""

    obj: Any
    mark: object
    needs: set[str] = field(default_factory=set)


_entries: dict[str, _Entry] = {}
"""Of this process' own `__main__`; a name that is bound anew gets another entry when it is packed."""


def mark_of(obj: Any) -> object:
    """Equal as long as these are: a class's methods, a function's code, the items of a small table."""
    kind = type(obj)
    if kind in _TABLES:
        items = [*obj, *obj.values()] if kind is dict else obj
        if len(obj) > _SMALL:
            return len(obj)
        return tuple([each if type(each) in _SCALARS else id(each) for each in items])
    if kind is types.FunctionType:
        return id(obj.__code__)
    if isinstance(obj, type):
        return tuple(map(id, filter(_is_code, vars(obj).values())))
    return None


_TABLES = frozenset({list, dict, set, bytearray})
_SCALARS = frozenset({int, float, str, bool, bytes, type(None)})
_SMALL = 256
"""A table of up to this number of items is compared item by item, each time that it is mentioned."""


def _is_code(value: object) -> bool:
    return isinstance(value, (types.FunctionType, classmethod, staticmethod, property, type))


@dataclass(frozen=True)
class Packed:
    """An image. `parts`: its pickle and the buffers of that; `entries`: its names, and what each was bound to;
    `behind`: what stayed behind, with the reason for each; `modules`: what it needs there; `by_value`: code in it;
    `refers`: names that it takes for granted; `random`: names that hold random generators."""

    parts: tuple[bytes | memoryview, ...]
    entries: dict[str, Any]
    behind: dict[str, str]
    modules: set[str]
    by_value: list[str]
    refers: set[str]
    random: set[str]

    @property
    def nbytes(self) -> int:
        """Length of all parts together, in bytes."""
        return sum(len(part) for part in self.parts)


class MainImage:
    """The sender's view of `__main__`: what of it a message needs, and the packed form of that."""

    def __init__(self, namespace: Mapping[str, Any] | None = None) -> None:
        self._space = sys.modules["__main__"].__dict__ if namespace is None else namespace

    def lacking(self, names: Iterable[str], have: Mapping[str, Any]) -> set[str]:
        """Which of `names`, and of what they need, are not as in `have` (name -> what it was bound to)."""
        space, lacking = self._space, set()
        todo, seen = list(names), set()
        while todo:
            name = todo.pop()
            if name in seen or name not in space or name in _NOT_CARRIED:
                continue
            seen.add(name)
            obj = space[name]
            known = _entries.get(name)
            if known is None or known.obj is not obj or known.mark != mark_of(obj):
                lacking.add(name)
                continue
            if have.get(name, have) is not obj:
                lacking.add(name)
            todo += known.needs
        return lacking

    def pack(self, names: Iterable[str], have: Mapping[str, Any] | None = None) -> Packed:
        """An image of `names` and all that they need, less what is as in `have`.

        Raises:
            SerialisationError: A class can't be carried by value.
        """
        wanted = [name for name in names if name in self._space and name not in _NOT_CARRIED]
        behind: dict[str, str] = {}
        while True:  # and again without that which turns out to stay
            packing = _Packing(self._space, have or {}, behind)
            try:
                return packing.run(wanted)
            except _Stays as stays:
                behind[stays.name] = stays.reason


class _Stays(Exception):
    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name)
        self.name, self.reason = name, reason


class _Packing:
    """One image in the making: a pickle for each name, one after another, that share what they have in common."""

    def __init__(self, space: Mapping[str, Any], have: Mapping[str, Any], behind: dict[str, str]) -> None:
        self.space, self.have, self.behind = space, have, behind
        self.stream = io.BytesIO()
        self.buffers: list[memoryview] = []
        self.pickler = _ImagePickler(self, self.stream)
        self.order: deque[str] = deque()
        self.entries: dict[str, _Entry] = {}
        self.current = ""
        self.refers: set[str] = set()

    def run(self, names: Iterable[str]) -> Packed:
        self._begin()
        self.order.extend(sorted(names))
        while self.order:
            name = self.order.popleft()
            if name not in self.pickler.done:
                self._add(name)
        pickler = self.pickler
        pickler.dump(None)  # no more names
        _entries.update(self.entries)
        told = pickle.dumps(list(self.pickler.done), 5)
        parts: tuple[bytes | memoryview, ...] = (self.stream.getvalue(), told, *self.buffers)
        bound = {name: entry.obj for name, entry in self.entries.items()}
        behind = {**self.behind, **pickler.behind}
        return Packed(parts, bound, behind, pickler.modules, pickler.by_value, self.refers, pickler.holders)

    def _begin(self) -> None:
        """The namespace as such, which some libraries keep in their objects, is that of the other side."""
        pickler, marker = self.pickler, rebuilt.Namespace()
        pickler.dump(marker)
        memo = pickler.memo.copy()
        place, _ = memo.pop(id(marker))
        space = naming.main_globals()
        pickler.memo = {**memo, id(space): (place, space)}

    def _add(self, name: str) -> None:
        pickler, obj = self.pickler, self.space[name]
        self.current = name
        entry = self.entries.setdefault(name, _Entry(obj, mark_of(obj)))
        pickler.done.add(name)
        pickler.names = set()
        if name in self.behind:
            obj = kinds.StayedBehind(repr(name), self.behind[name])
        try:
            pickler.dump(name)
            pickler.dump(obj)
        except SerialisationError:
            raise
        except Exception as exc:
            if came_by_signal(exc):
                raise
            if isinstance(obj, type):
                raise SerialisationError(
                    f"class {name!r} of the script can't be serialised ({exc})",
                    hint="Move it into a module of its own, which is sent as a file",
                ) from exc
            raise _Stays(name, _reason(exc)) from exc
        self.needs(entry, pickler.names)

    def needs(self, entry: _Entry, names: Iterable[str]) -> None:
        """Note which names something needs, and have those that the other side lacks packed, too."""
        for other in names:
            if other in self.space and other not in _NOT_CARRIED:
                entry.needs.add(other)
                if self.has(other):
                    self.refers.add(other)
                elif other not in self.pickler.done:
                    self.order.append(other)

    def has(self, name: str) -> bool:
        """Whether the other side has it as it is now."""
        obj = self.space.get(name)
        known = _entries.get(name)
        current = known is not None and known.obj is obj and known.mark == mark_of(obj)
        return current and self.have.get(name, self) is obj

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """What the pickler asks of a large buffer: whether it goes into the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < IN_BAND:
            return True
        self.buffers.append(raw)
        return False


def _reason(exc: BaseException) -> str:
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    return str(exc) or type(exc).__name__


class _ImagePickler(CodePickler):
    """Definitions of `__main__` by value, and what can't travel left out where it stands."""

    def __init__(self, packing: _Packing, stream: io.BytesIO) -> None:
        super().__init__(stream, packing.keep)
        self._packing = packing
        self.done: set[str] = set()
        self.behind: dict[str, str] = {}
        self.holders: set[str] = set()
        self._held = {id(held): name for name, held in packing.have.items() if packing.has(name)}
        self._approved: set[int] = set()
        self._kept: list[Any] = []  # so that no id in `_approved` is used again

    def by_reference(self, obj: Any) -> bool:
        if not importable(obj):
            return False
        if obj.__module__ != "__main__":
            return True
        packing, root = self._packing, naming.name_of(obj).partition(".")[0]
        self.names.add(root)
        if packing.has(root):
            packing.refers.add(root)
            return True
        if root != packing.current and root not in packing.entries:
            # It is taken along here, so what it needs is what the current name needs: tie the two together.
            held = packing.space.get(root)
            packing.entries[root] = _Entry(held, mark_of(held), {packing.current})
        return False

    def reduce(self, obj: Any) -> Any:
        try:
            return super().reduce(obj)
        except (SerialisationError, RecursionError):
            raise
        except Exception as exc:
            if isinstance(obj, type) or came_by_signal(exc):
                raise
            return self._left(obj, exc)

    def other(self, obj: Any) -> Any:
        if isinstance(obj, (types.BuiltinFunctionType, kinds.StayedBehind)):
            return super().other(obj)
        if (held := self._held.get(id(obj))) is not None and held != self._packing.current:
            self.names.add(held)
            return rebuilt.of_main, (held,)
        if id(obj) in self._approved:
            return NotImplemented
        named = self._by_its_name(obj)
        if named is not None:
            return named
        trial = CodePickler(io.BytesIO(), lambda _: False)
        trial.memo = {id(self._main): (0, self._main)}
        try:
            trial.dump(obj)
        except Exception as exc:
            if came_by_signal(exc):
                raise
            return self._left(obj, exc)
        if trial.random:
            self.holders.add(self._packing.current)
        memo = trial.memo.copy()
        self._kept.append(memo)
        self._approved.update(memo)
        self._approved.add(id(obj))
        return NotImplemented

    def _by_its_name(self, obj: Any) -> Any:
        """For what says that its name will do (`__reduce__` gives a string), and whose name is one of `__main__`."""
        if all(getattr(type(obj), name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__")):
            return None
        try:
            found = obj.__reduce_ex__(5)
        except Exception as exc:
            if came_by_signal(exc):
                raise
            return None
        if isinstance(found, str) and self._packing.space.get(found) is obj:
            return type(obj).__new__, (type(obj),), dict(getattr(obj, "__dict__", {})) or None
        return None

    def _left(self, obj: Any, exc: BaseException) -> Any:
        packing = self._packing
        kind = f"{type(obj).__module__}.{type(obj).__qualname__}"
        whole = packing.space.get(packing.current) is obj
        name = repr(packing.current) if whole else f"a part of {packing.current!r}, a {kind},"
        reason = _reason(exc)
        self.behind[packing.current] = reason
        return kinds.StayedBehind(name, reason).__reduce__()


# -- at the other side ---------------------------------------------------------------------------------------------


def install(parts: Sequence[Any]) -> None:
    """Define the image's names in this process' `__main__`. `parts`: of a `Packed`.

    Raises:
        SerialisationError: Something can be taken apart, but not be put together again; the message names it.
    """
    main = sys.modules["__main__"].__dict__
    data, names, *buffers = parts
    load = pickle.Unpickler(io.BytesIO(data), buffers=buffers).load
    load()  # the namespace
    name, came = "", set()
    try:
        while (name := load()) is not None:
            main[name] = load()
            came.add(name)
    except Exception as exc:
        reason = f"{name!r} can't be put together here ({type(exc).__name__}: {exc})"
        for lost in set(pickle.loads(names)) - came:
            main[lost] = kinds.StayedBehind(repr(lost), reason)
        hint = "Move that into a module, or into the method"
        if isinstance(exc, SyntaxError):
            hint = "Mend that module: it was sent as it stands in its file"
        raise SerialisationError(f"what the script defines did not arrive: {reason}", hint=hint) from exc


def wrap(parts: Sequence[Any]) -> bytes:
    """An image as one piece of bytes, for a message."""
    return pickle.dumps([bytes(part) for part in parts], 5)


def arrive(data: Any, store: bulk.BlobStore | None = None) -> None:
    """Install an image that came in a message: itself, or the name of a blob and the sizes of the parts in it.

    Before it, where there are any, the names of modules that were edited (`edited.told_of`).
    """
    found = pickle.loads(data)
    if isinstance(found, dict):
        from grid.wire import edited

        edited.refresh(found["edited"])
        if not (data := found["image"]):
            return
        found = pickle.loads(data)
    if isinstance(found, tuple):
        assert store is not None
        install(store.read(*found, drop=False))
        return
    first, *others = found
    install([first, *map(bytearray, others)])  # buffers must be writable


def globals_used(obj: object) -> set[str]:
    """Global names in the code of a function, or of anything in a class. May name too many, never too few."""
    found: set[str] = set()
    seen: set[int] = set()
    todo: list[object] = [obj]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, types.FunctionType):
            found |= names_in_code(item.__code__)[0]
            todo += list(item.__defaults__ or ()) + list((item.__kwdefaults__ or {}).values())
            todo += [cell.cell_contents for cell in item.__closure__ or () if naming.filled(cell)]
            todo.append(getattr(item, "__wrapped__", None))
        elif isinstance(item, (staticmethod, classmethod)):
            todo.append(item.__func__)
        elif isinstance(item, property):
            todo += [item.fget, item.fset, item.fdel]
        elif isinstance(item, types.MethodType):
            todo += [item.__func__, item.__self__]
        elif isinstance(item, type):
            if _of_main(item) or "<locals>" in item.__qualname__:
                todo += list(vars(item).values()) + list(item.__bases__) + [type(item)]
                if _of_main(item):
                    found.add(item.__qualname__.partition(".")[0])
        elif _of_main(type(item)):
            found.add(type(item).__qualname__.partition(".")[0])
    return found


def _of_main(obj: object) -> bool:
    return getattr(obj, "__module__", None) == "__main__"
