"""What `__main__` defines, carried to a process that started with an empty `__main__`.

A user's script or notebook is `__main__`; its classes can't be imported on a host. Sending a class by value with each
object that needs it is slow, and worse: every copy is another class, so `isinstance`, `==` of dataclasses and enums
fail, on the host and for results that come back. So we mirror the part of `__main__` that is needed, once: the host's
`__main__` gets the same names, and from then on both sides pickle by reference at full speed and agree on identity.

An *image* holds the definitions reachable from the names that a pickle mentions: through global names in their code,
base classes, defaults, and data. It is a snapshot: a name bound anew (a notebook cell run again, `N = 6` after
`N = 5`) is sent again with the next message that mentions `__main__`; a list changed in place is not.

Lives here: reading names out of a pickle, the closure over code, packing and installing an image.
Elsewhere:  deciding when an image must be sent (`codec`).
"""

from __future__ import annotations

import enum
import io
import pickle
import pickletools
import re
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from grid.errors import SerialisationError

_QUALNAME = re.compile(rb"\x8c.([^\x94]{1,255}?)\x94\x93", re.DOTALL)
_REPEATED = re.compile(rb"(?:h.|j.{4})\x93", re.DOTALL)


def names_in_pickle(data: bytes) -> frozenset[str]:
    """The names below `__main__` that a pickle of protocol 4 or 5 refers to, each the first part of its dotted name.

    May name too many (a class of another module that has a namesake in `__main__`), never too few.
    """
    if _REPEATED.search(data):  # a qualified name that also stands in the pickle as data: take it apart properly
        return _names_by_opcode(data)
    found = {match.decode(errors="replace").partition(".")[0] for match in _QUALNAME.findall(data)}
    return frozenset(found & sys.modules["__main__"].__dict__.keys())


def _names_by_opcode(data: bytes) -> frozenset[str]:
    return frozenset(name.partition(".")[0] for module, name in references(data) if module == "__main__")


def references(data: bytes) -> Iterator[tuple[str, str]]:
    """What a pickle refers to by name: (module, qualified name). Exact, and slow: 10 us an object."""
    memo: list[object] = []
    last: object = None
    before: object = None
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"):
            before, last = last, argument
        elif name == "MEMOIZE":
            memo.append(last)
        elif name in ("BINGET", "LONG_BINGET"):
            before, last = last, memo[argument] if isinstance(argument, int) and argument < len(memo) else None
        elif name == "STACK_GLOBAL":
            if isinstance(before, str) and isinstance(last, str):
                yield before, last
            before, last = last, None
        elif name == "GLOBAL":
            if isinstance(argument, str):
                module, _, qualname = argument.partition(" ")
                yield module, qualname
            before, last = last, None
        elif name not in ("PROTO", "FRAME"):
            before, last = last, None


def modules_of(data: bytes) -> set[str]:
    """Modules that a pickle made by dill needs where it is loaded, besides what dill itself brings."""
    return {module for module, _ in references(data)} - _DILLS_OWN


_DILLS_OWN = {"__main__", "__builtin__", "builtins", "dill._dill", "dill.dill", "_dill", "grid.wire.mainimage"}


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


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
            for code in _codes(item.__code__):
                found.update(code.co_names)
            todo += list(item.__defaults__ or ()) + list((item.__kwdefaults__ or {}).values())
            todo += [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
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


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _of_main(obj: object) -> bool:
    return getattr(obj, "__module__", None) == "__main__"


def _is_definition(obj: object) -> bool:
    return isinstance(obj, (type, types.FunctionType)) and _of_main(obj)


class MainImage:
    """The sender's view of `__main__`: which of its names a set of names drags along, and their packed form."""

    def __init__(self, namespace: Mapping[str, Any] | None = None) -> None:
        self._namespace = sys.modules["__main__"].__dict__ if namespace is None else namespace

    def closure(self, names: set[str]) -> dict[str, Any]:
        """Everything below `__main__` that `names` need, themselves included; names that it lacks are left out."""
        space = self._namespace
        closed: dict[str, Any] = {}
        todo = [name for name in names if name in space and not name.startswith("__")]
        while todo:
            name = todo.pop()
            if name in closed:
                continue
            obj = closed[name] = space[name]
            if _is_definition(obj):
                used = globals_used(obj)
            elif isinstance(obj, types.ModuleType):
                continue
            else:
                try:
                    data = pickle.dumps(obj, 5)
                    used = set(names_in_pickle(data)) if b"__main__" in data else set()
                except Exception:  # a lambda, or what can't travel: `pack` decides
                    used = globals_used(obj)
            todo += [other for other in used if other in space and other not in closed and not other.startswith("__")]
        return closed

    def pack(self, entries: Mapping[str, Any]) -> tuple[bytes, dict[str, str], set[str]]:
        """Bytes for `install`; the names that had to stay behind, with the reason for each; modules that it needs.

        What stays behind matters only if the code really uses it: a script's `main()` may mention the grid itself.

        Raises:
            SerialisationError: A class or function can't be carried by value.
        """
        enums: dict[str, bytes] = {}
        rest: dict[str, Any] = {}
        behind: dict[str, str] = {}
        for name, obj in entries.items():
            if _is_enum(obj):
                enums[name] = _by_value(_enum_recipe(obj))
            elif isinstance(obj, types.ModuleType):
                rest[name] = _ModuleName(obj.__name__)
            else:
                try:
                    _by_value(obj)
                except Exception as exc:
                    if _is_definition(obj) and isinstance(obj, type):
                        raise SerialisationError(
                            f"class {name!r} of the script can't be serialised ({exc})",
                            hint="Move it into a module of its own, which is sent as a file",
                        ) from exc
                    behind[name] = str(exc)
                    continue
                rest[name] = obj
        blob = _by_value(rest)
        modules = {obj.name for obj in rest.values() if isinstance(obj, _ModuleName)}
        modules = modules.union(modules_of(blob), *map(modules_of, enums.values()))
        return pickle.dumps((enums, blob), 5), behind, modules


def install(image: bytes) -> None:
    """Define the image's names in this process' `__main__`."""
    main = sys.modules["__main__"].__dict__
    enums, rest = pickle.loads(image)
    for name, recipe in enums.items():
        main[name] = _make_enum(*_load(recipe))
    entries = _load(rest)
    for name, obj in entries.items():
        main[name] = obj.load() if isinstance(obj, _ModuleName) else obj


class _ModuleName:
    """Stands for a module that `__main__` imported under some name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> types.ModuleType | _AbsentModule:
        try:
            __import__(self.name)
        except ImportError as exc:
            return _AbsentModule(self.name, str(exc))
        return sys.modules[self.name]


class _AbsentModule:
    """In place of a module that this host lacks: complains when it is used, not before."""

    def __init__(self, name: str, reason: str) -> None:
        self.__dict__["_absent"] = (name, reason)

    def __getattr__(self, attribute: str) -> Any:
        name, reason = self.__dict__["_absent"]
        text = f"{name}.{attribute} was used, but this host has no module {name!r} ({reason})"
        raise ModuleNotFoundError(text, name=name)


def _by_value(obj: object) -> bytes:
    import dill

    class Pickler(dill.Pickler):  # type: ignore[misc]
        def persistent_id(self, item: Any) -> str | None:
            return item.__qualname__ if _is_enum(item) else None

    buffer = io.BytesIO()
    # recurse=False: functions keep `__main__` itself as their globals, which the image fills on the other side
    Pickler(buffer, protocol=5, recurse=False, byref=False).dump(obj)
    return buffer.getvalue()


def _load(data: bytes) -> Any:
    import dill

    class Unpickler(dill.Unpickler):  # type: ignore[misc]
        def persistent_load(self, qualname: str) -> Any:
            found: Any = sys.modules["__main__"]
            for part in qualname.split("."):
                found = getattr(found, part)
            return found

    return Unpickler(io.BytesIO(data)).load()


def _is_enum(obj: object) -> bool:
    # Plain dill can't load an enum of `__main__` (0.4.1), so an image defines enums first and refers to them.
    return isinstance(obj, enum.EnumMeta) and _of_main(obj) and "." not in obj.__qualname__


_MADE_BY_ENUM = {"__new__", "__reduce_ex__", "__format__", "_new_member_", "_generate_next_value_", "_value_repr_"}


def _enum_recipe(cls: type[enum.Enum]) -> tuple[Any, ...]:
    members = {name: member.value for name, member in cls.__members__.items()}
    extra: dict[str, Any] = {
        name: value
        for name, value in vars(cls).items()
        if isinstance(value, (types.FunctionType, staticmethod, classmethod, property))
        and name not in members
        and name not in _MADE_BY_ENUM
    }
    if cls.__doc__:
        extra["__doc__"] = cls.__doc__
    return cls.__name__, cls.__qualname__, cls.__bases__, members, extra


def _make_enum(
    name: str, qualname: str, bases: tuple[type, ...], members: Mapping[str, Any], extra: Mapping[str, Any]
) -> type:
    meta = type(next(base for base in bases if isinstance(base, enum.EnumMeta)))
    namespace = meta.__prepare__(name, bases)
    for key, value in members.items():
        namespace[key] = value
    for key, value in extra.items():
        namespace[key] = value
    namespace["__module__"] = "__main__"
    namespace["__qualname__"] = qualname
    made: type = meta(name, bases, namespace)
    return made
