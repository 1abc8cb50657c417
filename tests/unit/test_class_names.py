"""No two public classes share a name: who reads one knows which is meant. The list of those that do only shrinks."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = frozenset(
    ["Answer", "Call", "Cancelled", "Completed", "End", "HostState", "JobState", "Place", "Server", "Service", "State"]
)


def shared_names(package: Path) -> dict[str, list[str]]:
    """Names of public classes that stand in several modules, with these."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(package)))
    return {name: paths for name, paths in found.items() if len(paths) > 1}


@pytest.mark.row("D08")
def test_no_two_public_classes_share_a_name() -> None:
    found = shared_names(ROOT / "grid")
    assert {name: paths for name, paths in found.items() if name not in SHARED} == {}
    assert set(found) == SHARED, "these are alone by now: take them off the list"


@pytest.mark.row("D08")
def test_such_names_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class One: pass\nclass _Own: pass\nclass Two: pass\n")
    (tmp_path / "b.py").write_text("class One: pass\nclass _Own: pass\ndef f():\n    class Two: pass\n")
    assert shared_names(tmp_path) == {"One": ["a.py", "b.py"]}
