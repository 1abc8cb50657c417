"""Writes docs/reference.md: every public name with its signature and the first sentence of its docstring.

Lives here: which names, how a signature and a docstring are shortened.
Elsewhere:  the command (`scripts/reference`), the test that the page is up to date (`unit/test_reference.py`), the
            long reference of the site (`scripts/docs_pages.py`).
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
ROOMS = {
    "grid": "Grids, hosts, calls",
    "grid.jobs": "Jobs",
    "grid.tasks": "Task systems",
    "grid.ensemble": "Ensembles",
}
EXTRA = {"grid": ("DaskGrid",)}
"""Public names that are not in `__all__`."""
RETURNED = {
    "grid.services.mapping": ("MapResult",),
    "grid.services.remote_value": ("RemoteValue",),
    "grid.compat.executor": ("GridExecutor",),
    "grid.compat.pool": ("GridPool",),
    "grid.grids.stager": ("CopyReport",),
    "grid.trace.record": ("Trace",),
    "grid.hooks": ("Hook",),
}
INSIDE = {"run", "deliver", "fail", "set_running_or_notify_cancel", "set_result", "set_exception"}
"""Methods that grid itself, or the standard library, calls."""
HEAD = """# Reference

Every public name, with its signature and the first sentence of its docstring. `help(grid.Grid.publish)` in Python
has the rest: units, errors, defaults. `scripts/reference` writes this page, and a test compares it with the code. The
commands are on [their own page](cli.md), the variables on [theirs](environment.md), and what to do about each error in
[troubleshooting](troubleshooting.md).
"""


def line_of(thing: Any) -> str:
    """The first sentence of its docstring."""
    return shortened(inspect.getdoc(thing) or "")


def shortened(text: str) -> str:
    """The first sentence of a docstring, as one line for a cell of a table."""
    first = " ".join(text.partition("\n\n")[0].split())
    sentence = re.match(r".*?\.(?= [A-Z`$]|$)", first)
    return (sentence.group(0) if sentence else first).rstrip(".;:").replace("|", "\\|")


def signature_of(thing: Any, *, method: bool = False) -> str:
    """Its parameters without types; a default that is no plain value is `...`."""
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return "()"
    if method and parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    parts, starred = [], False
    for each in parameters:
        if each.name.startswith("_"):
            continue
        if each.kind is each.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        parts.append(f"{stars}{each.name}{default_of(each.default)}")
    return f"({', '.join(parts)})"


def default_of(value: Any) -> str:
    """`=None`, `=...` or nothing."""
    if value is inspect.Parameter.empty:
        return ""
    is_plain = (
        value is None or value == () or (isinstance(value, (int, float, str)) and not isinstance(value, enum.Enum))
    )
    return f"={value!r}" if is_plain else "=..."


@functools.cache
def attributes_of(kind: type) -> dict[str, str]:
    """Public attributes that a string right behind them explains, in this class or its `__init__`: name -> sentence."""
    found: dict[str, str] = {}
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return found
    assert isinstance(tree, ast.ClassDef)
    inits = [node.body for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    for body in (tree.body, *inits):
        for node, after in itertools.pairwise(body):
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if target is None or not isinstance(after, ast.Expr) or not isinstance(after.value, ast.Constant):
                continue
            name = getattr(target, "attr", None) or getattr(target, "id", "_")
            if not name.startswith("_"):
                found[name] = shortened(str(after.value.value))
    return found


def members_of(kind: type, without: type = object) -> list[tuple[str, str]]:
    """(how it is written, sentence) of attributes, properties and methods of a class; not those as in `without`."""
    known = {name: value for base in reversed(without.__mro__) for name, value in vars(base).items()}
    told = {name for base in without.__mro__ if is_ours(base) for name in attributes_of(base)}
    rows: dict[str, tuple[str, str]] = {}
    for base in kind.__mro__:
        if not is_ours(base) or base in without.__mro__:
            continue
        for name, line in attributes_of(base).items():
            if name not in told:
                rows.setdefault(name, (name, line))
        for name, value in vars(base).items():
            if name.startswith("_") or name in INSIDE or inspect.isclass(value) or known.get(name) is value:
                continue
            if name in known and line_of(value) in ("", line_of(known[name])):
                continue  # as there
            if isinstance(value, property):
                rows.setdefault(name, (name, line_of(value)))
            elif isinstance(value, (staticmethod, classmethod)) or inspect.isfunction(inspect.unwrap(value)):
                function = inspect.unwrap(getattr(value, "__func__", value))
                written = name + signature_of(function, method=not isinstance(value, staticmethod))
                rows.setdefault(name, (written, line_of(function) or line_of(getattr(kind, name))))
    return [(written, line) for written, line in rows.values() if line]


def section(module: Any, name: str) -> list[str]:
    """The lines about one name."""
    thing = getattr(module, name)
    if name == "__version__":
        return ["### `__version__`", "", "The version of grid, as text.", ""]
    if inspect.isclass(thing) and issubclass(thing, enum.Enum):
        return [f"### `{name}`", "", f"{line_of(thing)}. {', '.join(f'`{each.name}`' for each in thing)}", ""]
    lines = [f"### `{name}{signature_of(thing)}`", "", f"{line_of(thing)}.", ""]
    if not inspect.isclass(thing):
        return lines
    base = next((base for base in thing.__mro__[1:] if base in public_classes()), object)
    if base is not object:
        lines += [f"It also has everything of `{base.__name__}`.", ""]
    rows = members_of(thing, base)
    if rows:
        lines += ["| | |", "| --- | --- |", *(f"| `{written}` | {line} |" for written, line in rows), ""]
    return lines


def page() -> str:
    """The whole page."""
    lines = HEAD.splitlines()
    for room, title in ROOMS.items():
        module = importlib.import_module(room)
        names = names_of(room)
        errors = [name for name in names if is_error(getattr(module, name))]
        lines += ["", f"## {title}: `{room}`", ""]
        for name in sorted(set(names) - set(errors), key=lambda each: (each.lower(), each)):
            lines += section(module, name)
        if errors:
            lines += [f"### Errors of `{room}`", "", "| | |", "| --- | --- |"]
            lines += [f"| `{name}` | {line_of(getattr(module, name))} |" for name in sorted(errors)]
    lines += ["", "## What these return", ""]
    for room, kinds in RETURNED.items():
        for name in kinds:
            lines += section(importlib.import_module(room), name)
    return "\n".join(lines).rstrip() + "\n"


def names_of(room: str) -> list[str]:
    """The public names of a room."""
    return [*importlib.import_module(room).__all__, *EXTRA.get(room, ())]


@functools.cache
def public_classes() -> frozenset[Any]:
    """Classes that have a section of their own."""
    return frozenset(getattr(importlib.import_module(room), name) for room in ROOMS for name in names_of(room))


def is_ours(kind: type) -> bool:
    """Whether a class is grid's, and not of a library or of Python."""
    return kind.__module__.startswith("grid.")


def is_error(thing: Any) -> bool:
    """Whether it can be raised."""
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def main(arguments: list[str]) -> int:
    """Write the page; with `--check` only compare."""
    text = page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in arguments:
        print("docs/reference.md is not up to date: scripts/reference writes it")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0
