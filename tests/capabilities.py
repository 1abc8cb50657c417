"""The page of capabilities: what grid is meant to do, and which tests show that it does.

Lives here: reading docs/rows.toml, collecting the tests with their `row` marks, writing docs/capabilities.md.
Elsewhere:  the command (`scripts/capabilities`), the refusal of unknown rows (`conftest.py`).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs/rows.toml"
PAGE = ROOT / "docs/capabilities.md"

_SECTION = re.compile(r"\[(\w+)\]")
_LINE = re.compile(r'(\w+) = "(.*)"')

# The part that makes a test's word worth something: the first that fits.
REAL_PARTS = {
    "slurm": "Slurm with qsub",
    "lab": "OpenSSH in namespaces",
    "edges": "local processes",
    "": "pure",
}


@dataclass(frozen=True)
class Section:
    title: str
    rows: Mapping[str, str]


@dataclass(frozen=True, order=True)
class Shown:
    """A test that shows a row."""

    test: str  # file::name, without parameters
    part: str


def read_sections() -> list[Section]:
    sections: list[Section] = []
    rows: dict[str, str] = {}
    for line in ROWS.read_text().splitlines():
        if _SECTION.fullmatch(line):
            rows = {}
        elif match := _LINE.fullmatch(line):
            key, text = match.groups()
            if key == "title":
                sections.append(Section(text, rows))
            else:
                rows[key] = text
        elif line and not line.startswith("#"):
            raise ValueError(f'{ROWS}: neither a section, nor ID = "text", nor a comment: {line!r}')
    return sections


def read_rows() -> dict[str, str]:
    """Row -> what it says."""
    return {row: text for section in read_sections() for row, text in section.rows.items()}


def real_part(item: pytest.Item) -> str:
    where = set(getattr(item, "fixturenames", ())) | {mark.name for mark in item.iter_markers()}
    if "unit" not in item.path.parts:
        where.add("edges")
    return next(part for name, part in REAL_PARTS.items() if name in where or not name)


def shown_by(items: Iterable[pytest.Item]) -> dict[str, set[Shown]]:
    """Row -> those of these tests that show it."""
    found: dict[str, set[Shown]] = {}
    for item in items:
        for mark in item.iter_markers("row"):
            for row in mark.args:
                found.setdefault(row, set()).add(Shown(item.nodeid.partition("[")[0], real_part(item)))
    return found


class _Collector:
    def __init__(self) -> None:
        self.shown: dict[str, set[Shown]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.shown = shown_by(session.items)


def collect() -> dict[str, set[Shown]]:
    """Row -> the tests that show it.

    Raises:
        RuntimeError: A test file can't be imported; the text is pytest's.
    """
    collector, talk = _Collector(), io.StringIO()
    os.chdir(ROOT)  # a process of its own: this is only called by the script
    with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
        status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "tests"], plugins=[collector])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(talk.getvalue())
    return collector.shown


def render(sections: Iterable[Section], shown: Mapping[str, set[Shown]]) -> str:
    sections = list(sections)
    total = sum(len(section.rows) for section in sections)
    done = sum(row in shown for section in sections for row in section.rows)
    lines = [
        "# Capabilities",
        "",
        "Written by `scripts/capabilities` from the marks of the tests; don't edit it. What a row means is said in",
        "[rows.toml](rows.toml).",
        "",
        f"{done} of {total} rows are shown by a test.",
    ]
    for section in sections:
        if not section.rows:
            continue
        lines += ["", f"## {section.title}", "", "| Row | What | Shown by | With |", "| --- | --- | --- | --- |"]
        for row, text in section.rows.items():
            tests = sorted(shown.get(row, ()))
            names = "<br>".join(f"`{test.test}`" for test in tests) or "not done"
            parts = ", ".join(part for part in REAL_PARTS.values() if part in {test.part for test in tests})
            lines.append(f"| {row} | {text} | {names} | {parts} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the page; with --check only compare. Exit status 1: it is not up to date, or tests can't be collected."""
    if arguments not in ([], ["--check"]):
        print("usage: scripts/capabilities [--check]", file=sys.stderr)
        return 2
    try:
        page = render(read_sections(), collect())
    except RuntimeError as problem:
        print(f"scripts/capabilities: the tests can't be collected\n{problem}", file=sys.stderr)
        return 1
    if not arguments:
        PAGE.write_text(page)
        return 0
    if not PAGE.exists() or PAGE.read_text() != page:
        print("docs/capabilities.md is not up to date. Run: scripts/capabilities", file=sys.stderr)
        return 1
    return 0
