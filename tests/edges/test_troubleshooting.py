"""Each error that a user can meet has its answer in docs/troubleshooting.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grid import errors
from grid.jobs.host import errors as job_errors

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()

NAMES = sorted(
    name
    for module in (errors, job_errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and kind.__module__ == module.__name__
)


def answered() -> set[str]:
    """Words in code of the first column of the page's tables."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


@pytest.mark.row("M20")
@pytest.mark.parametrize("name", NAMES)
def test_each_class_of_errors_has_its_answer(name: str) -> None:
    assert name in answered(), f"docs/troubleshooting.md has no row for {name}"


@pytest.mark.row("M20")
def test_each_row_has_something_to_do() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 40
    for row in rows:
        assert len(row[-1].split()) >= 3 or "](" in row[-1] or row[-1].strip() == "what to do", row
