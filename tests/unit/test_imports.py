"""Imports of grid point one way, from the command line down to plain values; those for types, too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GRID = Path(__file__).parents[2] / "grid"

# From the bottom up. A module imports from its own room and from lower floors.
FLOORS = (
    ("causes",),
    ("errors", "_version", "arguments", "lazy", "limits", "text", "trust"),
    ("extras", "hooks", "openmetrics"),
    ("slots",),
    ("batch_systems",),  # words only: texts in, texts out
    ("hosts", "trace"),
    ("wire",),
    ("kernel", "failures"),
    ("services", "keeping"),
    ("launch", "staging", "compat"),  # compat is handed a grid, and never makes one
    ("environments", "commands", "ranks", "runs"),
    ("batch", "care"),
    ("grids",),
    ("testing", "ensemble"),
    ("jobs", "capsule"),
    ("tasks", "programs"),
    ("web",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What runs on a host stands on the standard library, pyzmq and dill, and on nothing else of ours.
ON_HOSTS = {"wire", "kernel", "slots"}
OF_OURS = {"grid.causes", "grid.errors", "grid.limits", "grid._version", "grid.text", "grid.trust", "grid.wire"}
OF_OURS |= {"grid.kernel", "grid.slots"}
ALLOWED_ON_HOSTS = {*OF_OURS, "zmq", "dill"}

# Files that import each other in a circle, for types or inside of functions. A list that only shrinks.
CIRCLES = {
    frozenset(f"grid.{name}" for name in circle.split())
    for circle in (
        "grids.batch grids.grid",
        "grids.between grids.home",
        "jobs.client.context jobs.client.proxy",
        "jobs.host.runner jobs.host.service jobs.host.units",
        "testing.simulated_hosts testing.simulated_presence testing.simulation",
        "wire.edited wire.mainimage",
    )
}
FEW = 3
"""Files that may form a circle within a room."""

# ... but for what only ever runs at the client, inside a function that is never called on a host.
AT_THE_CLIENT = {("grid/wire/keys.py", "cryptography")}  # the certificate of a grid is made at its client


def room_of(module: str) -> str:
    """`grid.wire.link` -> `wire`; `grid` itself -> ``."""
    return [*module.split("."), ""][1]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(GRID.rglob("*.py")):
        parts = ["grid", *path.relative_to(GRID).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_for_types_only(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def imports(path: Path, module: str, *, types: bool = False) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of each import that runs, inside functions too; and of those for type checkers alone."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while waiting:
        node = waiting.pop()
        if is_for_types_only(node) and not types:
            assert isinstance(node, ast.If)
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base == "grid":  # `from grid import wire` names a room; other names come from the front door
                yield from ((node.lineno, f"grid.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module, _ in modules()} - {"", "__main__"}
    assert rooms <= FLOOR.keys(), "say in FLOORS where the new room stands"


@pytest.mark.row("G69")
def test_imports_point_down() -> None:
    wrong = []
    for module, path in modules():
        room = room_of(module)
        if room in ("", "__main__"):
            continue  # the front door imports whatever it offers
        for line, name in imports(path, module, types=True):
            if name.split(".")[0] != "grid":
                continue
            other = room_of(name)
            if other == room or (other in FLOOR and FLOOR[other] < FLOOR[room]):
                continue
            wrong.append(f"{path.relative_to(GRID.parent)}:{line}: {room} must not import {name}")
    assert not wrong, "\n".join(wrong)


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules, more than one each, of which every one leads to every other."""
    reached = {}
    for start in graph:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            more = graph[waiting.pop()] - seen
            seen |= more
            waiting += more
        reached[start] = seen
    found = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph}
    return {circle for circle in found if len(circle) > 1}


@pytest.mark.row("G69")
def test_files_form_no_circle_but_those_that_are_known() -> None:
    """An `__init__` hands names on: a way through one is no circle."""
    files = {module: path for module, path in modules() if path.name != "__init__.py"}
    graph: dict[str, set[str]] = {module: set() for module in files}
    for module, path in files.items():
        package = module.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names} & files.keys()
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: say the whole name; {package} may move"
                named = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= {node.module or "", *named} & files.keys()
    found = circles(graph)
    large = [sorted(circle) for circle in found if len(circle) > FEW]
    assert not large, f"more than {FEW} files import each other: {large}"
    assert found <= CIRCLES, f"new circles: {[sorted(circle) for circle in found - CIRCLES]}"
    assert found >= CIRCLES, f"take these off the list, they are none any more: {CIRCLES - found}"


@pytest.mark.row("D02", "G69")
def test_what_runs_on_hosts_needs_only_python_pyzmq_and_dill() -> None:
    wrong = []
    for module, path in modules():
        if room_of(module) not in ON_HOSTS:
            continue
        for line, name in imports(path, module):
            parts, file = name.split("."), str(path.relative_to(GRID.parent))
            known = parts[0] in sys.stdlib_module_names or parts[0] in ALLOWED_ON_HOSTS
            known = known or ".".join(parts[:2]) in ALLOWED_ON_HOSTS or (file, parts[0]) in AT_THE_CLIENT
            if not known:
                wrong.append(f"{file}:{line}: {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.row("D02", "G69")
def test_the_kernel_starts_where_nothing_else_is_installed() -> None:
    blocked = {"paramiko", "cryptography", "rich", "click", "yaml"}
    names = [module for module, _ in modules() if room_of(module) in ON_HOSTS and not module.endswith("__main__")]
    program = f"""
import sys
for name in {sorted(blocked)!r}:
    sys.modules[name] = None  # importing it is now an ImportError
for name in {names!r}:
    __import__(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=GRID.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.row("D02")
def test_importing_grid_is_light() -> None:
    program = "import sys, grid; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=GRID.parent).split()
    heavy = {"paramiko", "cryptography", "rich", "click", "yaml", "numpy"} & set(loaded)
    assert not heavy, f"`import grid` takes {', '.join(sorted(heavy))} with it"
