"""The pages keep their word: their scripts run, their links lead somewhere, the tests that they name exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grid.services.roster import MOVES, State
from grid.testing import grids

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCKS = [
    pytest.param(page, block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]


@pytest.mark.row("D03", "D07", "D08")
@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_script_on_the_pages_runs(page: Path, block: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(block)
    environment = {**os.environ, "GRID_LOCAL": "2", "PYTHONPATH": str(ROOT)}
    environment["DASK_TEMPORARY_DIRECTORY"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout, "it printed nothing"


@pytest.mark.row("D08")
def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.row("D08")
def test_what_is_guaranteed_is_shown_by_tests_that_exist() -> None:
    defined = {check.__name__ for check in grids.CHECKS}
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    named = set(re.findall(r"`([a-z]\w*_\w*_\w*)`", (ROOT / "docs" / "guarantees.md").read_text()))
    assert len(named) > 20
    assert not named - defined


@pytest.mark.row("D08")
def test_no_page_shows_two_versions_at_once() -> None:
    """What git leaves in a file where it could not merge."""
    marks = re.compile(r"^(?:<{7} .*|={7}|>{7} .*)$", re.M)
    assert not [page.name for page in PAGES if marks.search(page.read_text())]


def test_the_states_in_the_architecture_are_those_of_the_roster() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for (before, event), after in MOVES.items():
        if after not in (State.LOST, State.TERMINATED):
            assert f"| {before.value} | {event.value} | {after.value} |" in text


@pytest.mark.row("D01", "D07")
def test_the_first_screen_has_the_two_commands_that_do_everything() -> None:
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:12])
    for command in ("scripts/demo", "scripts/test"):
        assert command in first
        assert os.access(ROOT / command, os.X_OK)
