"""Edited code is new code: what tells that a function, a class or a module is not what it was when it was sent.

A module that a server has imported stays as it was there, whatever becomes of its file. So each message that refers to
modules of the user's own is preceded by word of those that were edited since the server was told last: by
`importlib.reload`, or by a change of the file. The server runs their source anew, those that import them after them.

Installed modules (site-packages, the standard library) are taken to stay as they are.

Lives here: editions of modules, `Mark` of a callable, `refresh` at the other side.
Elsewhere:  names of `__main__` bound anew (`mainimage.mark_of`), telling a server (`grids/hostlink.py`).
"""

from __future__ import annotations

import functools
import linecache
import os
import pickle
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from grid.errors import SerialisationError
from grid.wire import naming
from grid.wire.mainimage import _SCALARS, globals_used, mark_of

_lock = threading.Lock()
_editions: dict[str, _Edition] = {}
_broken: dict[str, types.ModuleType] = {}  # modules whose last edit could not be loaded here
_others: set[str] = set()  # modules that are not the user's own, by their names


class _Edition:
    """A module of the user's own: how often it was edited since it was first looked at, and which others it uses."""

    def __init__(self, module: types.ModuleType, file: str) -> None:
        self.module, self.file = module, file
        self.seen = self.look()
        self.number = 0
        self.uses = self._uses()

    def look(self) -> tuple[object, int, int]:
        """What changes with an edit: the loading (its spec is new after a reload), time and size of the file."""
        try:
            status = os.stat(self.file)
        except OSError:
            return self.module.__spec__, 0, 0
        return self.module.__spec__, status.st_mtime_ns, status.st_size

    def brought_up(self) -> int:
        """The number, after another look."""
        now = self.look()
        if now[0] is not self.seen[0] or now[1:] != self.seen[1:]:
            self.seen, self.number, self.uses = now, self.number + 1, self._uses()
        return self.number

    def _uses(self) -> tuple[str, ...]:
        found = set()
        for value in list(vars(self.module).values()):
            name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            if isinstance(name, str) and name != self.module.__name__:
                found.add(name)
        return tuple(sorted(found))


@functools.lru_cache(maxsize=1)
def _standard() -> tuple[str, ...]:
    return tuple({os.path.realpath(sysconfig.get_path(key)) + os.sep for key in ("stdlib", "platstdlib")})


def _is_own(file: str) -> bool:
    return {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts) and not os.path.realpath(file).startswith(
        _standard()
    )


def _edition(name: str) -> _Edition | None:
    if name in _others:
        return None
    known = _editions.get(name)
    module = sys.modules.get(name)
    if known is not None and known.module is module:
        return known
    file = getattr(module, "__file__", None)
    if module is None or name == "__main__" or name.partition(".")[0] == "grid" or not file or not _is_own(file):
        if module is not None:
            _others.add(name)
        return None
    found = _editions[name] = _Edition(module, file)
    if known is not None:
        found.number = known.number + 1  # imported anew, after it was deleted from sys.modules
    return found


def editions(modules: Iterable[str]) -> dict[str, int]:
    """Of modules of the user's own, and of those that they use: how often each was edited; users come last."""
    found: dict[str, int] = {}
    with _lock:
        for name in modules:
            _visit(name, found, set())
    return found


def _visit(name: str, found: dict[str, int], above: set[str]) -> None:
    if name in found or name in above or name in _others:
        return
    edition = _edition(name)
    if edition is None:
        return
    number = edition.brought_up()
    above.add(name)
    for other in edition.uses:
        _visit(other, found, above)
    found[name] = number + sum(found.get(other, 0) for other in edition.uses)


def edited_since(modules: Iterable[str], told: dict[Any, Any]) -> list[str]:
    """The modules that a process must run anew, in this order; `told` (what it has) is brought up to date."""
    own = [name for name in modules if name not in _others]
    if not own:
        return own
    fresh = []
    for name, number in editions(own).items():
        before = told.get(("module", name))
        if before != number:
            told["module", name] = number
            if before is not None or number:
                fresh.append(name)
    return fresh


def as_they_are() -> dict[Any, Any]:
    """What a process that starts now has to be told nothing of."""
    with _lock:
        known = list(_editions)
    return {("module", name): number for name, number in editions(known).items()}


def told_of(fresh: list[str], image: bytes | None) -> bytes:
    """What goes with a message: these modules are to be run anew, and then the image is to be installed, if any."""
    return pickle.dumps({"edited": fresh, "image": image}, 5)


def refresh(names: Iterable[str]) -> None:
    """Run the source of modules anew, of those that this process has imported.

    Raises:
        SerialisationError: One can't be run, or is no source; it is imported again when it is needed next.
    """
    for name in names:
        module = sys.modules.get(name) or _broken.get(name)
        file = getattr(module, "__file__", None)
        if module is None or not file:
            continue
        linecache.checkcache(file)
        try:
            if not file.endswith(".py"):
                raise ImportError("it is no source, and can't be loaded twice: publish again, or start the grid anew")
            # not importlib.reload: it may take byte code of an edit within the same second for this one
            exec(compile(Path(file).read_bytes(), file, "exec"), module.__dict__)
            sys.modules[name] = module
            _broken.pop(name, None)
        except Exception as exc:
            sys.modules.pop(name, None)
            _broken[name] = module  # those that imported it hold this very object: the next edit goes into it
            raise SerialisationError(
                f"module {name!r} was edited and can't be loaded anew here ({type(exc).__name__}: {exc})",
                hint=f"See {file}",
            ) from exc


class Mark:
    """What a callable was made of when this was made: names of `__main__`, modules, code, variables of a closure."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._names = {name: (value, mark_of(value)) for name, value in _names_of_main(function).items()}
        self._modules = _modules_of(function)
        self._editions = editions(self._modules)
        self._own = _state(function)

    def is_stale(self, function: Callable[..., Any] | None) -> bool:
        """Whether any of that is another now: then it has to be sent again. Without `function`: its variables aside.

        The function is not kept here: data that it carries goes when its caller lets it go.
        """
        main = naming.main_globals()
        return (
            any(main.get(name) is not value or mark_of(value) != mark for name, (value, mark) in self._names.items())
            or (bool(self._editions) and editions(self._modules) != self._editions)
            or (function is not None and self._own != _state(function))
        )


def code_of(instance: object) -> object:
    """Equal as long as the class of an instance (a function itself) has the code that it had."""
    if isinstance(instance, types.FunctionType):
        return id(instance.__code__), editions({instance.__module__})
    mro = [each for each in type(instance).__mro__ if each.__module__ != "builtins"]
    return [mark_of(each) for each in mro], editions({each.__module__ for each in mro})


def _state(function: object) -> object:
    if not isinstance(function, types.FunctionType):
        return mark_of(function)
    cells = function.__closure__ or ()
    held = [cell.cell_contents for cell in cells if naming.filled(cell)]
    return function.__code__, id(function.__defaults__), [_held(each) for each in held]


def _held(value: object) -> object:
    if type(value) in _SCALARS:
        return value
    return id(value), mark_of(value)


def _modules_of(function: Any) -> set[str]:
    """Modules where the code of a callable and of what it holds comes from."""
    found: set[str] = set()
    todo, depth = [function], 0
    while todo and depth < _FEW:
        item, depth = todo.pop(), depth + 1
        for each in (item, type(item)):
            if isinstance(name := getattr(each, "__module__", None), str):
                found.add(name)
        if isinstance(item, functools.partial):
            todo += [item.func, *item.args]
        elif isinstance(item, types.MethodType):
            todo += [item.__self__]
        elif isinstance(item, types.FunctionType):
            space, (used, _) = item.__globals__, naming.names_in_code(item.__code__)
            for name in used:
                value = space.get(name)
                home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
                if isinstance(home, str):
                    found.add(home)
            todo += [cell.cell_contents for cell in item.__closure__ or () if naming.filled(cell)]
    return found


_FEW = 50


def _names_of_main(function: Callable[..., Any]) -> dict[str, Any]:
    """What the code uses by name of `__main__`, and what is used there, with what is bound to each now."""
    main = naming.main_globals()
    found: dict[str, Any] = {}
    todo: list[object] = [function]
    while todo:
        item = todo.pop()
        if isinstance(item, (type, types.FunctionType)) and item.__module__ != "__main__":
            continue
        for name in globals_used(item):
            if name in main and name not in found and not name.startswith("__"):
                found[name] = main[name]
                if isinstance(main[name], (type, types.FunctionType)):
                    todo.append(main[name])
    return found
