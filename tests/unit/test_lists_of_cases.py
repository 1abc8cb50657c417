"""A list of cases that is made from what a machine has can't fail: the cases vanish in silence."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LOOKS = {"which", "exists", "is_file", "is_dir", "find_spec", "missing_parts"}


def looks_at_import(tree: ast.Module) -> Iterator[int]:
    """Lines at which a module looks, while it is imported, at what the machine has."""
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += node.decorator_list if not isinstance(node, ast.Lambda) else []  # the body runs later
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in LOOKS:
            yield node.lineno
        waiting += ast.iter_child_nodes(node)


@pytest.mark.row("M19")
def test_no_test_module_makes_its_cases_from_what_is_there() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for line in looks_at_import(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.row("M19")
def test_such_lists_are_found() -> None:
    bad = "A = [s for s in ('csh',) if shutil.which(s)]\n@mark(x for x in y if Path(x).exists())\ndef f(): which(1)\n"
    assert sorted(looks_at_import(ast.parse(bad))) == [1, 2]
