"""Which modules an object needs: those of the user's own that must be staged, and those that a host must have.

Lives here: reading the imports of a module's source, following them, and telling apart whose a module is. It
            reads files and imports nothing.
Elsewhere:  which modules an object refers to at all (noted while it is pickled), what a host can import (asked
            there), sending the files (`staging/manifest.py`).

    standard     part of Python                                             not reported
    installed    in site-packages, or recorded by a distribution            `Needs.installed`: the host must have it
    own          any other file: scripts, projects, editable installs       `Needs.own`: staged
    unknown      not found here either                                      `Needs.unknown`

An import is *optional* where the code copes without: in a `try` that catches ImportError, or behind a question
about the version of Python or the platform. It is staged if it is the user's own, and no error if it is missing.
Imports below `if TYPE_CHECKING` and `if __name__ == "__main__"` do not happen on a host and are left out.

A package travels as its whole tree, so that imports by a name made up at run time work inside of it, and what it reads
from beside its code is there: without hidden files, byte code, and extension modules that are not imported by name.
Of its data as much as `PACKAGE_DATA_BYTES`. A single module takes along the files beside it whose names stand in its
source. Namespace packages have no tree of their own: of those, the modules that are needed.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import logging
import os
import sys
import sysconfig
import tokenize
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from grid.errors import StagingError
from grid.limits import PACKAGE_DATA_BYTES
from grid.staging.select import StagedFile, select

logger = logging.getLogger(__name__)

CARRIED = ("joblib", "cloudpickle")
"""Packages that a part of grid's client needs at hosts. They are pure code, and travel as the user's own does where a
host lacks them."""

_NOT_OF_A_PACKAGE = ("__pycache__/", ".git/", ".svn/", ".hg/", ".tox/", ".nox/", ".venv/", "site-packages/")
_NOT_CARRIED = ("__pycache__/", "test/", "tests/")


@dataclass(frozen=True)
class ModuleNeeds:
    """Modules that must exist before the given modules can be imported.

    `own`: module or package -> its files, with the relative paths that make it importable from the staged root.
    `installed`, `unknown`: names of top-level modules. `optional`: those that are installed here, and that the
    code can do without.
    """

    own: dict[str, list[StagedFile]] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    @property
    def files(self) -> list[StagedFile]:
        """All files of `own`, sorted, each once."""
        by_path = {file.relative: file for files in self.own.values() for file in files}
        return [by_path[relative] for relative in sorted(by_path)]


def carried(lacking: Iterable[str]) -> tuple[list[str], list[StagedFile]]:
    """Of the modules that a host lacks those of `CARRIED`, and their files.

    Raises:
        StagingError: Files can't be read.
    """
    names = sorted({name.partition(".")[0] for name in lacking}.intersection(CARRIED))
    found: list[StagedFile] = []
    for name in names:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        for place in places:
            files = select(place, "*.py", exclude=_NOT_CARRIED).files
            found += [StagedFile(f"{name}/{file.relative}", file.source, file.size, file.mode) for file in files]
    return names, found


def find_needs(modules: Iterable[ModuleType | str], provided: Collection[str] = ("grid",)) -> ModuleNeeds:
    """Follow the imports of the modules, given as objects or by name, through all that is the user's own.

    `__main__` is read but is not staged: what it defines travels by value.

    Args:
        provided: Top-level modules that a host has in any case.
    Raises:
        StagingError: Files of a package of the user's can't be read.
    """
    search = _Search(provided)
    for module in modules:
        search.start(module)
    return search.run()


class _Import(NamedTuple):
    """One import as it stands in the source."""

    module: str  # may be empty for `from . import x`
    level: int  # leading dots
    names: tuple[str, ...]  # may be modules or attributes
    optional: bool


class _Search:
    """Breadth first from the modules asked about. A module met as optional and later as needed counts as needed."""

    def __init__(self, provided: Collection[str]) -> None:
        self._provided = provided
        self._specs: dict[str, ModuleSpec | None] = {}
        self._seen: dict[str, bool] = {}  # module -> only optionally so far
        self._waiting: list[tuple[str, bool]] = []
        self._needs = ModuleNeeds()

    def start(self, module: ModuleType | str) -> None:
        if isinstance(module, str):
            loaded = sys.modules.get(module)
        else:
            loaded, module = module, module.__name__
        if module == "__main__":
            self._read_main(loaded)
            return
        if loaded is not None:
            self._specs[module] = _spec_of(loaded)
        self._add(module, optional=False)

    def run(self) -> ModuleNeeds:
        while self._waiting:
            self._visit(*self._waiting.pop())
        needs = self._needs
        needs.optional.difference_update(needs.installed)
        return needs

    def _add(self, name: str, optional: bool) -> None:
        """Note a module and the packages that it is in: importing it imports those."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            above = ".".join(parts[:end])
            if self._seen.get(above, True) and self._seen.get(above) != optional:
                self._seen[above] = optional
                self._waiting.append((above, optional))

    def _visit(self, name: str, optional: bool) -> None:
        top = name.partition(".")[0]
        if top in self._provided:
            return
        spec = self._find(name)
        if spec is None:
            # `a.b` may be an attribute that looks like a module (os.path); only a missing `a` is news.
            if name == top and top not in sys.stdlib_module_names and top not in sys.builtin_module_names:
                (self._needs.optional if optional else self._needs.unknown).add(top)
            return
        origin = spec.origin if spec.has_location else None
        if origin is None:
            if spec.submodule_search_locations is None or top in sys.stdlib_module_names:
                return  # built into the interpreter, or frozen
            if all(_is_installed(place, name.count(".") + 1) for place in spec.submodule_search_locations):
                (self._needs.optional if optional else self._needs.installed).add(top)
            return  # a namespace package has no code
        if _is_standard(origin):
            return
        is_package = spec.submodule_search_locations is not None
        if _is_installed(origin, name.count(".") + 1 + is_package):
            (self._needs.optional if optional else self._needs.installed).add(top)
            return
        self._ship(name, spec, origin)
        self._read(origin, spec.parent or "", optional)

    def _ship(self, name: str, spec: ModuleSpec, origin: str) -> None:
        """Enter the files of an own module; for a package, or a part of one, those of the whole package."""
        if not os.path.isfile(origin):  # inside a zip file
            return
        package = self._outermost_package(name)
        files = self._needs.own.setdefault(package, [])
        place = name.replace(".", "/")
        if name == package and spec.submodule_search_locations is not None:
            if not files:
                files += _tree(os.path.dirname(origin), place)
        elif name == package or not origin.endswith(".py"):
            suffix = next((s for s in EXTENSION_SUFFIXES if origin.endswith(s)), Path(origin).suffix)
            if spec.submodule_search_locations is not None:  # a package whose __init__ is an extension
                place += "/__init__"
            for file in (_staged(origin, place + suffix), *_beside(origin, place.rpartition("/")[0])):
                if file not in files:
                    files.append(file)

    def _outermost_package(self, name: str) -> str:
        """`a.b.c` -> `a`; `ns.a.b` -> `ns.a`, where ns is a namespace package."""
        parts = name.split(".")
        for end in range(1, len(parts)):
            above = self._find(".".join(parts[:end]))
            if above is not None and above.has_location:
                return ".".join(parts[:end])
        return name

    def _read(self, path: str, package: str, optional: bool) -> None:
        if not path.endswith(".py"):
            return
        status = os.stat(path)
        for found in _imports_of(path, status.st_mtime_ns, status.st_size):
            self._follow(found, package, optional)

    def _follow(self, found: _Import, package: str, optional: bool) -> None:
        base = found.module
        if found.level:
            parts = package.split(".")
            if not package or found.level > len(parts):
                return  # a relative import out of its package fails here as it would there
            base = ".".join(filter(None, [*parts[: len(parts) - found.level + 1], found.module]))
        optional = optional or found.optional
        self._add(base, optional)
        if base.partition(".")[0] in sys.stdlib_module_names:
            return
        for name in found.names:
            if self._find(f"{base}.{name}") is not None:
                self._add(f"{base}.{name}", optional)

    def _read_main(self, main: ModuleType | None) -> None:
        path = getattr(main, "__file__", None)
        if path and path.endswith(".py") and os.path.isfile(path):
            self._read(path, getattr(main, "__package__", None) or "", optional=False)
            return
        for value in list(vars(main).values()) if main else []:  # typed in: what it holds is all we can know
            if isinstance(value, ModuleType):
                self.start(value)
            elif isinstance(home := getattr(value, "__module__", None), str) and home != "__main__":
                self._add(home, optional=False)

    def _find(self, name: str) -> ModuleSpec | None:
        """The spec of a module, without importing it or the packages above it."""
        if name not in self._specs:
            self._specs[name] = self._look_up(name)
        return self._specs[name]

    def _look_up(self, name: str) -> ModuleSpec | None:
        loaded = sys.modules.get(name)
        if loaded is not None and (spec := _spec_of(loaded)) is not None:
            return spec
        above, _, _ = name.rpartition(".")
        places = None
        if above:
            package = self._find(above)
            if package is None or package.submodule_search_locations is None:
                return None
            places = list(package.submodule_search_locations)
        for finder in sys.meta_path:  # the finders of editable installs are among them
            try:
                spec = finder.find_spec(name, places)
            except (ImportError, AttributeError, ValueError):
                continue
            if spec is not None:
                return spec
        return None


def _spec_of(module: ModuleType) -> ModuleSpec | None:
    spec = getattr(module, "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return spec
    path = getattr(module, "__file__", None)
    return importlib.util.spec_from_file_location(module.__name__, path) if path else None


# Whose a file is.


@lru_cache
def _standard_folders() -> tuple[str, ...]:
    return tuple({os.path.realpath(sysconfig.get_path(key)) + os.sep for key in ("stdlib", "platstdlib")})


def _in_site(path: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(path).parts)


def _is_standard(path: str) -> bool:
    return not _in_site(path) and os.path.realpath(path).startswith(_standard_folders())


def _is_installed(path: str, depth: int) -> bool:
    """Whether a distribution brought the file: by its place, or by the record of a `pip install --target`.

    Being below sys.prefix is no sign: people keep projects in their environments' folders.

    Args:
        depth: How many steps up the folder is that stands on sys.path.
    """
    if _in_site(path):
        return True
    folder = path
    for _ in range(depth):
        folder = os.path.dirname(folder)
    return os.path.realpath(path) in _recorded(folder)


@lru_cache(maxsize=64)
def _recorded(folder: str) -> frozenset[str]:
    """Files that the distributions in `folder` brought there. An .egg-info is left by editable installs: no sign."""
    found = set()
    for distribution in importlib.metadata.distributions(path=[folder]):
        if getattr(distribution, "_path", Path()).suffix == ".dist-info":
            found |= {os.path.realpath(str(distribution.locate_file(file))) for file in distribution.files or ()}
    return frozenset(found)


def _tree(folder: str, place: str) -> list[StagedFile]:
    code = select(folder, "*.py", exclude=_NOT_OF_A_PACKAGE).files
    return [
        StagedFile(f"{place}/{file.relative}", file.source, file.size, file.mode)
        for file in [*code, *_data_of(folder, place)]
    ]


def _data_of(folder: str, place: str) -> list[StagedFile]:
    """Files of a package that are no code, the smallest first, as many as may be sent."""
    try:
        found = list(select(folder, "*", exclude=(*_NOT_OF_A_PACKAGE, *_NO_DATA)).files)
    except StagingError as exc:
        logger.warning("package %s: its data files are not sent: %s", place, exc)
        return []
    found = [file for file in found if not any(part.startswith(".") for part in Path(file.relative).parts)]
    taken: list[StagedFile] = []
    left: list[StagedFile] = []
    total = 0
    for file in sorted(found, key=lambda file: file.size):
        if file.relative.endswith(".py"):
            continue
        total += file.size
        (taken if total <= PACKAGE_DATA_BYTES else left).append(file)
    if left:
        names = ", ".join(file.relative for file in left[:5])
        logger.warning(
            "package %s: %d data files are too large to be sent with it (%s): use copy_files", place, len(left), names
        )
    return taken


_NO_DATA = (".pyc", ".pyo", ".so", ".pyd", ".dylib", ".egg-info/")


def _beside(origin: str, place: str) -> list[StagedFile]:
    """Files in the folder of a single module that its source names."""
    if not origin.endswith(".py"):
        return []
    status = os.stat(origin)
    folder = os.path.dirname(origin)
    found = []
    for word in _words_of(origin, status.st_mtime_ns, status.st_size):
        path = os.path.join(folder, word)
        try:
            if os.path.isfile(path) and os.path.getsize(path) <= PACKAGE_DATA_BYTES:
                found.append(_staged(path, f"{place}/{word}" if place else word))
        except (OSError, ValueError):
            continue  # a word with a null byte, or longer than names may be
    return found


@lru_cache(maxsize=1024)
def _words_of(path: str, mtime_ns: int, size: int) -> tuple[str, ...]:
    """Constants in a source that could be names of files beside it."""
    tree = _parsed(path)
    words = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)) if tree is not None else ()
    fit = (word for word in words if isinstance(word, str) and 0 < len(word) < 200 and "\n" not in word)
    return tuple(
        dict.fromkeys(
            word
            for word in fit
            if not os.path.isabs(word) and ".." not in Path(word).parts and not word.startswith(".")
            if not word.endswith((".py", *_NO_DATA))
        )
    )


def _staged(path: str, relative: str) -> StagedFile:
    try:
        status = os.stat(path)
    except OSError as exc:
        raise StagingError(f"can't read {path!r}: {exc.strerror}") from exc
    return StagedFile(relative, Path(path), status.st_size, status.st_mode & 0o777)


# What a source imports.


@lru_cache(maxsize=4096)
def _imports_of(path: str, mtime_ns: int, size: int) -> tuple[_Import, ...]:
    """The imports of a file in the state that time and size name; none if it is no Python of our version."""
    tree = _parsed(path)
    return () if tree is None else tuple(dict.fromkeys(_walk(tree)))


def _parsed(path: str) -> ast.Module | None:
    try:
        with tokenize.open(path) as source:
            return ast.parse(source.read(), path)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return None
    except OSError as exc:
        raise StagingError(f"can't read {path!r}: {exc.strerror}") from exc


def _walk(tree: ast.Module) -> Iterator[_Import]:
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]  # no recursion: sums of a thousand terms are that deep
    while waiting:
        node, optional = waiting.pop()
        below: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Import(alias.name, 0, (), optional)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names if alias.name != "*")
            yield _Import(node.module or "", node.level, names, optional)
        elif isinstance(node, ast.Call):
            if name := _imported_by_call(node):
                yield _Import(name, 0, (), optional)
        elif isinstance(node, ast.If):
            below = node.orelse if _never_on_a_host(node.test) else below
            optional = optional or _asks_where_we_are(node.test)
        elif isinstance(node, ast.Try):  # `except*` takes no part: nobody guards an import with it
            optional = optional or any(_catches_import_error(handler.type) for handler in node.handlers)
        elif isinstance(node, ast.With):
            optional = optional or any(_suppresses_import_error(item.context_expr) for item in node.items)
        waiting.extend((child, optional) for child in below)


def _imported_by_call(call: ast.Call) -> str | None:
    """The name in `importlib.import_module("name")` or `__import__("name")`."""
    if _last_name(call.func) in ("import_module", "__import__") and call.args:
        first = call.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
            return first.value
    return None


def _never_on_a_host(test: ast.expr) -> bool:
    if _last_name(test) == "TYPE_CHECKING":
        return True
    return (
        isinstance(test, ast.Compare)
        and _last_name(test.left) == "__name__"
        and isinstance(test.ops[0], ast.Eq)
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value == "__main__"
    )


def _asks_where_we_are(test: ast.expr) -> bool:
    asked = {"version_info", "platform", "implementation", "hexversion"}
    return any(
        isinstance(node, ast.Attribute) and (node.attr in asked or ast.unparse(node) == "os.name")
        for node in ast.walk(test)
    )


def _catches_import_error(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(map(_catches_import_error, kind.elts))
    return kind is None or _last_name(kind) in ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")


def _suppresses_import_error(context: ast.expr) -> bool:
    return (
        isinstance(context, ast.Call)
        and _last_name(context.func) == "suppress"
        and any(map(_catches_import_error, context.args))
    )


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
