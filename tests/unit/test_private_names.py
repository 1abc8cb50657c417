"""What we derive from the standard library keeps off its private names: on some Python a name of ours is one of theirs.

`threading.Thread` has had a `_context` since 3.14. A thread of ours that kept a socket's context there started nothing.
The classes are read and not imported, so that this looks at all of them on every Python, whatever else is installed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

GRID = Path(__file__).parents[2] / "grid"

MEANT = {
    # `wait` and `as_completed` of concurrent.futures, and asyncio, reach into a future by these names, on every Python:
    # a Reply has no lock and no list of waiters until they do.
    ("grid.services.result", "Reply"): {"_condition", "_waiters", "_state", "_exception", "_get_snapshot"},
    # Libraries ask an executor by these names how many workers it has and whether it is broken. None of the base's own
    # code ever runs on a grid's: it has its own of every method.
    ("grid.compat.executor", "GridExecutor"): {"_max_workers", "_broken"},
}


class Module:
    """One file: its classes, and what the names in it stand for."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        tree = ast.parse(text)
        self.classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        self.names: dict[str, tuple[str, str]] = {}  # local name -> (module, name in it; "" is the module itself)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.names[alias.asname or whole] = (whole, "")
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.names[alias.asname or alias.name] = (node.module, alias.name)


def read(root: Path, package: str) -> dict[str, Module]:
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path.read_text(encoding="utf-8"))
    return found


def bases(
    modules: dict[str, Module], module: Module, node: ast.ClassDef
) -> Iterator[type | tuple[Module, ast.ClassDef]]:
    """Bases that are classes of the standard library, and bases of ours; others are nobody's concern here."""
    for base in node.bases:
        if isinstance(base, ast.Subscript):  # Thread[int]
            base = base.value
        if not isinstance(base, (ast.Name, ast.Attribute)):
            continue  # made by a call, or one of many
        words = ast.unparse(base).split(".")
        if len(words) == 1 and words[0] in module.classes:
            yield module, module.classes[words[0]]
            continue
        where, name = module.names.get(words[0], ("builtins", words[0]))
        path = [word for word in (name, *words[1:]) if word]
        if where in modules:
            if len(path) == 1 and path[0] in modules[where].classes:
                yield modules[where], modules[where].classes[path[0]]
        elif where.partition(".")[0] in sys.stdlib_module_names:
            found: object = importlib.import_module(where)
            for part in path:
                found = getattr(found, part, None)
            if isinstance(found, type):
                yield found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def names_set(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of each attribute that a class has or gives to `self`."""
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Attribute) or not isinstance(inner.ctx, ast.Store):
            continue
        if isinstance(inner.value, ast.Name) and inner.value.id == "self":
            yield inner.lineno, inner.attr
    for statement in getattr(node, "body", ()):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement.lineno, statement.name
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                if isinstance(target, ast.Name):
                    yield target.lineno, target.id


@cache
def private_names(base: type) -> frozenset[str]:
    """What a class of the standard library calls its own on this Python, its bases included."""
    found = {name for name in dir(base) if is_private(name)}
    for each in base.__mro__:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        except (OSError, TypeError, SyntaxError):
            continue  # written in C: `dir` knows
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
    return frozenset(name for name in found if is_private(name) and not name.startswith("__"))


def collisions(modules: dict[str, Module]) -> tuple[list[str], int]:
    """What is wrong, and how many classes were looked at."""
    wrong, looked_at = [], 0
    for module in modules.values():
        for node in module.classes.values():
            theirs: set[type] = set()
            waiting = list(bases(modules, module, node))
            seen = set()
            while waiting:
                base = waiting.pop()
                if isinstance(base, type):
                    theirs.add(base)
                elif id(base[1]) not in seen:
                    seen.add(id(base[1]))
                    waiting += bases(modules, *base)
            looked_at += bool(theirs - {object})
            for line, name in names_set(node):
                for base in theirs:
                    meant = MEANT.get((module.name, node.name), ())
                    if is_private(name) and name not in meant and name in private_names(base):
                        wrong.append(f"{module.name}:{line}: {node.name}.{name} is {base.__qualname__}'s, too")
    return sorted(set(wrong)), looked_at


@pytest.mark.row("N02")
def test_no_class_of_ours_sets_a_private_name_of_the_standard_library() -> None:
    wrong, looked_at = collisions(read(GRID, "grid"))
    assert not wrong, "\n".join(wrong)
    assert looked_at > 50


@pytest.mark.row("N02")
@pytest.mark.parametrize(
    "body",
    [
        "def __init__(self): self._started = 1",
        "def __init__(self): self._target: int = 1",
        "def _bootstrap(self): pass",
        "_kwargs = {}",
        "def f(self):\n        for self._ident in (): pass",
    ],
)
def test_it_sees_a_collision(body: str) -> None:
    for base in ("threading.Thread", "Ours", "Far"):
        text = "import threading\nfrom other import Far\nclass Ours(threading.Thread): pass\n"
        text += f"class Mine({base}):\n    {body}\n"
        other = Module("other", "from threading import Thread as T\nclass Far(T): pass\n")
        wrong, _ = collisions({"mine": Module("mine", text), "other": other})
        assert len(wrong) == 1 and "is Thread's, too" in wrong[0], (base, wrong)


@pytest.mark.row("N02")
def test_the_case_that_taught_us() -> None:
    text = "import threading\nclass Watch(threading.Thread):\n    def __init__(self): self._context = 1\n"
    wrong, _ = collisions({"m": Module("m", text)})
    assert bool(wrong) == hasattr(threading.Thread(), "_context")
