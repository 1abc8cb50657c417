"""Code and odd objects by value: functions and classes that the other side can't import, locks, type variables.

One C pickler with a hook. What the hook does for most kinds is cloudpickle's (`proven`); what differs here, and why:

- A class that comes back is the class that went, and what was done to its copy is not done to it. (Tokens.)
- A class is made there without its hooks (`__init_subclass__`, a metaclass's `__new__`, `__set_name__`): these have run
  where it was written, and what they did is part of it. Else a registry is entered twice, or misses its arguments.
- Methods are there before the data of a class, so that instances among that data are rebuilt by their own methods.
- Variables that two closures share stay shared.
- Members of enums keep what their own `__init__` or `__new__` gave them, and named tuples their methods.
- Locks arrive open: who holds one here does not hold it there, and would never let it go.
- Code keeps the name of its file, for tracebacks.

Serialising changes nothing in this process, and prints nothing: dill's way of finding global names swaps `sys.stdout`.

Lives here: `CodePickler`, and what it writes.
Elsewhere:  the functions that rebuild it (`rebuilt`), what code names (`naming`), when it is used (`codec`), names of
            `__main__` (`mainimage`), kinds that are data (`kinds`).
"""

from __future__ import annotations

import enum
import io
import marshal
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

from grid.wire import kinds, proven, randoms
from grid.wire.naming import describe, filled, importable, main_globals, name_of, names_in_code, names_in_hints
from grid.wire.rebuilt import (
    CACHE_TAG,
    fill_cell,
    fill_class,
    fill_function,
    fill_methods,
    import_module,
    main_module,
    make_class,
    make_enum,
    make_function,
)
from grid.wire.tokens import token_of

_BY_NAME = (types.BuiltinFunctionType, types.BuiltinMethodType)


class CodePickler(pickle.Pickler):
    """Protocol 5 into `stream`; see the module.

    `by_value`: descriptions of code inside it that only the same Python version may load. `modules`: what it needs to
    import there. `names`: names of `__main__` that its code uses. `random`: whether a random generator is in it.
    """

    def __init__(
        self, stream: io.BytesIO, buffer_callback: Callable[[pickle.PickleBuffer], bool] | None = None
    ) -> None:
        super().__init__(stream, 5, buffer_callback=buffer_callback)
        self.by_value: list[str] = []
        self.modules: set[str] = set()
        self.names: set[str] = set()
        self.random = False
        self._main = main_globals()
        self._plain: set[type] = set()  # kinds that the C pickler does alone
        self._cells: set[int] = set()  # variables whose contents come with a function
        self._spaces: dict[int, dict[str, Any]] = {}  # globals of functions of one module are one dictionary there, too
        self._children: dict[str, list[str]] | None = None
        self._kinds, self._named = kinds.reducers(), kinds.named()
        # The C pickler finds it here as well as in a class. The memo is ours, too: no cycle may keep it alive.
        self.reducer_override = _quick(self._plain, weakref.ref(self))  # type: ignore[method-assign]

    # -- what others decide ----------------------------------------------------------------------------------------

    def by_reference(self, obj: Any) -> bool:
        """Whether a class or function is found by its name at the other side."""
        return importable(obj)

    def other(self, obj: Any) -> Any:
        """An object of no special kind: the C pickler's affair."""
        if not isinstance(obj, _BY_NAME):
            self._plain.add(type(obj))
            self.random = self.random or randoms.is_generator(type(obj))
        elif isinstance(obj.__module__, str):
            self.modules.add(obj.__module__)
        return NotImplemented

    # -- the hook --------------------------------------------------------------------------------------------------

    def reduce(self, obj: Any) -> Any:
        """Called by the C pickler for all but the commonest kinds."""
        kind = type(obj)
        if kind is types.FunctionType:
            return self._function(obj)
        if kind is _Part or kind is _Code:
            return obj.__reduce__()
        reducer = self._kinds.get(kind)
        if reducer is not None:
            return reducer(obj)
        if kind is type or issubclass(kind, type):
            return self._class(obj)
        if kind in self._named:
            if not self.by_reference(obj):
                return self._named[kind](obj)
            self.modules.add(obj.__module__)
            return name_of(obj)
        if kind is types.CellType:
            return self._cell(obj)
        if kind is types.ModuleType or issubclass(kind, types.ModuleType):
            return self._module(obj)
        reducer = kinds.reducer_of(obj)
        return reducer(obj) if reducer is not None else self.other(obj)

    # -- modules, cells --------------------------------------------------------------------------------------------

    def _module(self, module: types.ModuleType) -> Any:
        name = module.__name__
        if module is sys.modules.get("__main__"):
            return main_module, ()
        if sys.modules.get(name) is module:
            self.modules.add(name)
            return import_module, (name,)
        space = {key: value for key, value in vars(module).items() if key not in ("__builtins__", "__loader__")}
        return proven.load().dynamic_subimport, (name, space)

    def _cell(self, cell: types.CellType) -> Any:
        if id(cell) in self._cells or not filled(cell):
            return types.CellType, ()
        return types.CellType, (), cell.cell_contents, None, None, fill_cell

    def _parts_used(self, named: frozenset[str], values: list[Any]) -> list[str]:
        """Modules inside of packages that code reaches by attributes: `import a.b`, and then `a.b.f()`."""
        packages = [value.__name__ for value in values if isinstance(value, types.ModuleType) and _is_package(value)]
        found = []
        while packages:
            package = packages.pop()
            for part in self._parts_of(package):
                if part in named:
                    found.append(f"{package}.{part}")
                    packages.append(f"{package}.{part}")
        self.modules.update(found)
        return found

    def _parts_of(self, package: str) -> list[str]:
        if self._children is None:
            self._children = {}
            for name in list(sys.modules):
                above, _, part = name.rpartition(".")
                if above:
                    self._children.setdefault(above, []).append(part)
        return self._children.get(package, [])

    # -- functions -------------------------------------------------------------------------------------------------

    def _function(self, func: types.FunctionType) -> Any:
        if self.by_reference(func):
            self.modules.add(func.__module__)
            return NotImplemented
        self.by_value.append(describe(func))
        space = func.__globals__
        used, named = names_in_code(func.__code__)
        names = [name for name in used if name in space]
        cells = func.__closure__ or ()
        values = [space[name] for name in names] + [cell.cell_contents for cell in cells if filled(cell)]
        parts = self._parts_used(named, values)
        own: dict[str, Any] | None
        if space is self._main:
            self.names.update(names)
            own, taken = None, {}
        else:
            own = self._spaces.get(id(space))
            if own is None:
                keys = ("__name__", "__package__", "__path__", "__file__")
                own = self._spaces[id(space)] = {key: space[key] for key in keys if key in space}
            taken = {name: space[name] for name in names}
        self._cells.update(map(id, cells))
        attributes: dict[str, Any] = {
            "__qualname__": func.__qualname__,
            "__module__": func.__module__,
            "__doc__": func.__doc__,
            "__defaults__": func.__defaults__,
            "__kwdefaults__": func.__kwdefaults__,
        }
        for name in ("__annotations__", "__type_params__"):
            try:
                if value := getattr(func, name, None):
                    attributes[name] = value
            except NameError:  # of something that exists for type checkers alone
                pass
        # One that has no state may be the same object every time; one that has gets the state of now.
        again = not (cells or func.__dict__ or func.__defaults__ or func.__kwdefaults__)
        state = (attributes, dict(func.__dict__), taken, [_contents(cell) for cell in cells], parts)
        made = (token_of(func), again, CACHE_TAG, pack_code(func.__code__), func.__name__, own, cells)
        return make_function, made, state, None, None, fill_function

    # -- classes ---------------------------------------------------------------------------------------------------

    def _class(self, cls: type) -> Any:
        if cls in _NAMELESS:
            return type, (_NAMELESS[cls],)
        if cls in proven.load()._BUILTIN_TYPE_NAMES:
            return getattr, (types, proven.load()._BUILTIN_TYPE_NAMES[cls])
        if self.by_reference(cls):
            self.modules.add(cls.__module__)
            return NotImplemented
        if not cls.__flags__ & _HEAP_TYPE:
            raise pickle.PicklingError(f"class {cls.__qualname__} of an extension can't be imported by its name")
        _refuse_ctypes(cls)
        self.by_value.append(describe(cls))
        if issubclass(cls, enum.Enum) and cls.__members__:
            return self._enum(cls)
        given = vars(cls)
        if cls.__module__ == "__main__":
            self.names.update(names_in_hints(cls) & self._main.keys())
        fixed = {key: given[key] for key in _FIXED if key in given}
        fixed["__qualname__"] = cls.__qualname__
        if isinstance(given.get("__dict__"), property):
            fixed["__dict__"] = given["__dict__"]
        meta, words = type(cls), {}
        if (msgspec := sys.modules.get("msgspec")) is not None and isinstance(cls, type(msgspec.Struct)):
            words = kinds.of_struct(cls, fixed)
        methods, data = _state_of(cls, set(fixed))
        late = {}
        if "__new__" in methods and not (hasattr(cls, "__getnewargs__") or hasattr(cls, "__getnewargs_ex__")):
            # instances among the data are made without it, as the state that it looks at is not there yet
            late["__new__"] = methods.pop("__new__")
        made = (token_of(cls), CACHE_TAG, meta, self._core(meta), cls.__name__, cls.__bases__, fixed, words)
        return make_class, made, (stamp(cls), _Part(cls, methods), {**data, **late}), None, None, fill_class

    def _core(self, meta: type) -> type | None:
        """The part of a metaclass that the other side has as it is, where the metaclass itself goes by value."""
        if self.by_reference(meta):
            return type if meta.__name__ == "_TypedDictMeta" else None
        return next(each for each in meta.__mro__ if each.__module__ != "__main__" and importable(each))

    def _enum(self, cls: type[enum.Enum]) -> Any:
        members = {name: member._value_ for name, member in cls.__members__.items()}
        methods, data = _state_of(cls, {"__module__", *members, *_OF_ENUMS})
        extra = {name: _extra_of(member) for name, member in cls.__members__.items() if name == member._name_}
        made = (token_of(cls), CACHE_TAG, type(cls), cls.__name__, cls.__qualname__, cls.__module__, cls.__bases__)
        state = (stamp(cls), _Part(cls, methods), {**data, "__members__": extra})
        return make_enum, (*made, members), state, None, None, fill_class


def _quick(plain: set[type], pickler: weakref.ref[CodePickler]) -> Callable[[Any], Any]:
    """The hook. It is called for each object, and takes half as long without a `self` to look things up in."""

    def hook(obj: Any) -> Any:
        if type(obj) in plain:
            return NotImplemented
        owner = pickler()
        assert owner is not None
        return owner.reduce(obj)

    return hook


_NAMELESS = {type(None): None, type(Ellipsis): Ellipsis, type(NotImplemented): NotImplemented}
_FIXED = ("__module__", "__slots__", "__orig_bases__")
_OF_ENUMS = (
    *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_"),
    *("_hashable_values_", "_unhashable_values_", "_unhashable_values_map_", "_use_args_"),
)
_OF_MEMBERS = ("_value_", "_name_", "__objclass__", "_sort_order_")
_HEAP_TYPE = 1 << 9


def _is_package(module: types.ModuleType) -> bool:
    return getattr(module, "__path__", None) is not None


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    return (cell.cell_contents,) if filled(cell) else ()


def _extra_of(member: enum.Enum) -> dict[str, Any]:
    return {key: value for key, value in vars(member).items() if key not in _OF_MEMBERS}


def _refuse_ctypes(cls: type) -> None:
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None and issubclass(cls, (ctypes.Structure, ctypes.Union, ctypes.Array)):
        raise pickle.PicklingError(f"ctypes lays class {cls.__qualname__} out in memory, from its source")


def _state_of(cls: type, without: set[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is set on a class once it is made: methods and their like, and the data after them."""
    given = proven.load()._class_getstate(cls)[0]
    methods: dict[str, Any] = {}
    data: dict[str, Any] = {}
    for key in [*[key for key in vars(cls) if key in given], *[key for key in given if key not in vars(cls)]]:
        value = given[key]
        if key in without or key in ("__weakref__", "__dict__", "__qualname__", "__annotate_func__", "__annotate__"):
            continue
        if isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)) and value.__objclass__ is cls:
            continue
        of_class = isinstance(value, (types.FunctionType, classmethod, staticmethod, property))
        (methods if of_class else data)[key] = value
    if sys.version_info >= (3, 14):
        try:
            data["__annotations__"] = cls.__annotations__
        except Exception:  # it names what exists for type checkers alone
            data.pop("__annotations__", None)
        data.pop("__annotations_cache__", None)
    return methods, data


class _Part:
    """The methods of a class, set while its data is still to be read."""

    def __init__(self, cls: type, methods: dict[str, Any]) -> None:
        self.cls, self.methods = cls, methods

    def __reduce__(self) -> tuple[Any, ...]:
        return fill_methods, (self.cls, self.methods)


def stamp(cls: type) -> int:
    """Another number for another state of the class in this process: what its names are bound to."""
    return hash(tuple((key, id(value)) for key, value in vars(cls).items()))


def pack_code(code: types.CodeType) -> Any:
    """Code as bytes that keep its file's name; or itself, where its constants are of no usual kind."""
    try:
        return marshal.dumps(code)
    except ValueError:
        return _Code(code)


class _Code:
    def __init__(self, code: types.CodeType) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return proven.load()._code_reduce(self.code)
