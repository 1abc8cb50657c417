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

Lives here: `CodePickler`, what it writes, and the functions that rebuild it.
Elsewhere:  when it is used (`codec`), names of `__main__` (`mainimage`), kinds that are data (`kinds`).
"""

from __future__ import annotations

import dis
import enum
import io
import marshal
import pickle
import re
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from grid.errors import VersionError
from grid.wire import kinds, proven, randoms
from grid.wire.signals import came_by_signal

CACHE_TAG = sys.implementation.cache_tag or "unknown"

_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"})
_BY_NAME = (types.BuiltinFunctionType, types.BuiltinMethodType)


def importable(obj: Any) -> bool:
    """Whether `module.qualname` leads to this very object, so that a reference is enough."""
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "")
    if found is None:
        return False
    try:
        for part in name_of(obj).split("."):
            found = getattr(found, part)
    except Exception as exc:  # a module's own __getattr__ may raise what it likes
        if came_by_signal(exc):
            raise
        return False
    return found is obj


def name_of(obj: Any) -> str:
    """By which a definition says that its module knows it; type variables have one name only."""
    name: str = getattr(obj, "__qualname__", None) or obj.__name__
    return name


def main_globals() -> dict[str, Any]:
    """The names of this process' `__main__`."""
    return sys.modules["__main__"].__dict__


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and those of the functions and classes that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


@lru_cache(maxsize=4096)
def names_in_code(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """What a piece of code names: (globals, in all code below it as well; globals and attributes)."""
    used: set[str] = set()
    named: set[str] = set()
    for each in codes(code):
        named.update(each.co_names)
        used.update(op.argval for op in dis.get_instructions(each) if op.opname in _GLOBAL_OPS)
    return frozenset(used), frozenset(named)


def names_in_hints(obj: Any) -> set[str]:
    """Words in those annotations of a class or function that are still text, and may be looked up."""
    try:
        hints = vars(obj).get("__annotations__") or getattr(obj, "__annotations__", {})
    except Exception:  # it names what exists for type checkers alone
        return set()
    return {word for hint in hints.values() if isinstance(hint, str) for word in _WORD.findall(hint)}


_WORD = re.compile(r"[^\W\d]\w*")


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
            return _main_module, ()
        if sys.modules.get(name) is module:
            self.modules.add(name)
            return import_module, (name,)
        space = {key: value for key, value in vars(module).items() if key not in ("__builtins__", "__loader__")}
        return proven.load().dynamic_subimport, (name, space)

    def _cell(self, cell: types.CellType) -> Any:
        if id(cell) in self._cells or not _filled(cell):
            return types.CellType, ()
        return types.CellType, (), cell.cell_contents, None, None, _fill_cell

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
        values = [space[name] for name in names] + [cell.cell_contents for cell in cells if _filled(cell)]
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


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    return (cell.cell_contents,) if _filled(cell) else ()


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


def describe(obj: Any) -> str:
    """A function or class for people: kind, name, file and line."""
    name = getattr(obj, "__qualname__", None) or type(obj).__name__
    code = getattr(obj, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if isinstance(code, types.CodeType) else ""
    kind = "class" if isinstance(obj, type) else type(obj).__name__
    return f"{kind} {name}{where}"


# -- at the other side ---------------------------------------------------------------------------------------------

_registry = threading.RLock()
_tokens: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_by_token: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_received: weakref.WeakSet[Any] = weakref.WeakSet()
_stamps: weakref.WeakKeyDictionary[type, int] = weakref.WeakKeyDictionary()


def token_of(obj: Any) -> str:
    """By which a function or class is known again, wherever it is sent to."""
    with _registry:
        try:
            token = _tokens.get(obj)
            if token is None:
                token = _tokens[obj] = uuid.uuid4().hex
                _by_token[token] = obj
        except TypeError:  # it can't be referred to weakly, so it has no identity to keep
            return ""
        return token


def _known(token: str) -> Any:
    with _registry:
        return _by_token.get(token)


def _enter(obj: Any, token: str) -> None:
    if not token:
        return
    with _registry:
        _tokens[obj] = token
        _by_token[token] = obj
        _received.add(obj)


def forget_all() -> None:
    """As if nothing had come or gone by value; for tests that play both sides in one process."""
    with _registry:
        _tokens.clear()
        _by_token.clear()
        _received.clear()


def same_version(made_by: str, what: str) -> None:
    """Raise VersionError unless byte code that `made_by` made can be used here."""
    if made_by != CACHE_TAG:
        raise VersionError(
            f"{what} holds byte code of {made_by}, and this is {CACHE_TAG}",
            hint="Use the same minor version of Python on both sides, or move the code into a module",
        )


def make_function(
    token: str, again: bool, made_by: str, code: Any, name: str, space: dict[str, Any] | None, cells: tuple[Any, ...]
) -> types.FunctionType:
    """A function without its state, or the one that has come or gone before."""
    known = _known(token)
    if known is not None and (again or known not in _received):
        return known  # type: ignore[no-any-return]
    same_version(made_by, f"function {name!r}, sent by value,")
    code = marshal.loads(code) if isinstance(code, bytes) else code
    if space is None:
        space = main_globals()
    space.setdefault("__builtins__", __builtins__)
    made = types.FunctionType(code, space, name, None, cells or None)
    _enter(made, token)
    return made


def fill_function(func: types.FunctionType, state: tuple[Any, ...]) -> None:
    """Give it its state; one of our own that has come back keeps that which it has here."""
    if func not in _received:
        return
    attributes, own, space, contents, parts = state
    for name in parts:
        import_module(name)
    func.__globals__.update(space)
    for name, value in attributes.items():
        setattr(func, name, value)
    func.__dict__.update(own)
    for cell, held in zip(func.__closure__ or (), contents, strict=True):
        if held:
            (cell.cell_contents,) = held


def _fill_cell(cell: types.CellType, contents: Any) -> None:
    cell.cell_contents = contents


def make_class(
    token: str,
    made_by: str,
    meta: Any,
    core: type | None,
    name: str,
    bases: tuple[type, ...],
    fixed: dict[str, Any],
    words: dict[str, Any],
) -> type:
    """A class without its methods and data, or the one that has come or gone before."""
    known = _known(token)
    if known is not None:
        return known  # type: ignore[no-any-return]
    same_version(made_by, f"class {name!r}, sent by value,")
    with _registry, _without_hooks(bases):
        made: type
        if core is not None:
            made = core.__new__(meta, name, bases, dict(fixed))
        else:
            made = types.new_class(name, bases, {"metaclass": meta, **words}, lambda space: space.update(fixed))
        _enter(made, token)
    return made


class _without_hooks:
    """While a class that has been made elsewhere is made again, bases that came by value are not told."""

    def __init__(self, bases: tuple[type, ...]) -> None:
        mro = [each for base in bases for each in base.__mro__]
        self._hooks = [(each, vars(each)["__init_subclass__"]) for each in mro if "__init_subclass__" in vars(each)]
        self._hooks = [(each, hook) for each, hook in self._hooks if each in _received]

    def __enter__(self) -> None:
        for each, _ in self._hooks:
            type.__setattr__(each, "__init_subclass__", classmethod(_no_hook))

    def __exit__(self, *_: object) -> None:
        for each, hook in self._hooks:
            type.__setattr__(each, "__init_subclass__", hook)


def _no_hook(_cls: type, /, **_: Any) -> None:
    pass


def make_enum(
    token: str,
    made_by: str,
    meta: Any,
    name: str,
    qualname: str,
    module: str,
    bases: tuple[type, ...],
    members: dict[str, Any],
) -> type:
    """An enum with its members, which no method of its own has touched yet; or the one that has come or gone before."""
    known = _known(token)
    if known is not None:
        return known  # type: ignore[no-any-return]
    same_version(made_by, f"enum {name!r}, sent by value,")
    with _registry, _without_hooks(bases):
        space = meta.__prepare__(name, bases)
        for key, value in members.items():
            space[key] = value
        made: type = enum.EnumMeta.__new__(meta, name, bases, space)
        type.__setattr__(made, "__module__", module)
        type.__setattr__(made, "__qualname__", qualname)
        _enter(made, token)
    return made


def fill_methods(cls: type, methods: dict[str, Any]) -> dict[str, Any]:
    """Set the methods of a class that came by value."""
    if cls in _received:
        for key, value in methods.items():
            type.__setattr__(cls, key, value)
    return methods


def fill_class(cls: Any, state: tuple[int, dict[str, Any], dict[str, Any]]) -> None:
    """Give a class its data; one of our own that has come back keeps that which it has here."""
    if cls not in _received:
        return
    mark, _, data = state
    if _stamps.get(cls) == mark:
        return
    extra = data.pop("__members__", None) if isinstance(cls, enum.EnumMeta) else None
    registered = data.pop("_abc_impl", None)
    for key, value in data.items():
        try:
            type.__setattr__(cls, key, value)
        except (AttributeError, TypeError):  # read only: the class has one already
            if key not in vars(cls):
                raise
    for name, own in (extra or {}).items():
        cls.__members__[name].__dict__.update(own)
    for each in registered or ():
        cls.register(each)
    if "__firstlineno__" in data:  # setting anything else takes it away (3.13)
        type.__setattr__(cls, "__firstlineno__", data["__firstlineno__"])
    _stamps[cls] = mark


class Namespace:
    """Stands for the namespace of `__main__` itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return main_globals, ()


def of_main(name: str) -> Any:
    """What `__main__` has under this name here."""
    return main_globals()[name]


def _main_module() -> types.ModuleType:
    return sys.modules["__main__"]


def import_module(name: str) -> Any:
    """The module; in its place, where this host lacks it, something that says so when it is used."""
    try:
        __import__(name)
    except ImportError as exc:
        return kinds.AbsentModule(name, str(exc))
    return sys.modules[name]
