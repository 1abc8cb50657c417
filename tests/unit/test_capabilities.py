"""The page of capabilities: is it up to date, and does its reader read?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.capabilities import PAGE, ROOT, Section, Shown, read_rows, read_sections, render, shown_by

RANGES = {"G": [*range(1, 33), *range(40, 73)], "H": range(1, 14), "F": range(1, 16), "B": range(1, 16)}
RANGES |= {"R": range(1, 14), "V": range(1, 25), "P": range(1, 27), "J": range(1, 26)}
RANGES |= {"C": range(1, 43), "K": range(1, 43), "D": range(1, 10)}


ADDED = "XYSNMUELWTOIZQA"  # sections that came after the specification; their rows are in order, with no fixed number


def test_every_row_has_one_line() -> None:
    rows = list(read_rows())
    specified = [row for row in rows if row[0] not in ADDED]
    assert specified == [f"{letter}{n:02}" for letter, numbers in RANGES.items() for n in numbers]
    added = rows[len(specified) :]
    assert all(re.fullmatch(rf"[{ADDED}]\d\d", row) for row in added)
    assert added == sorted(set(added), key=lambda row: (ADDED.index(row[0]), row))
    assert all(text and not re.search(r"[|<>]", text) for text in read_rows().values())


def test_a_row_names_its_tests_and_their_real_part_or_says_not_done() -> None:
    page = render(
        [Section("Things", {"X01": "Stands", "X02": "Falls"})],
        {"X01": {Shown("tests/edges/test_x.py::test_y", "OpenSSH in namespaces")}},
    )
    assert "1 of 2 rows" in page
    assert "| X01 | Stands | `tests/edges/test_x.py::test_y` | OpenSSH in namespaces |" in page
    assert "| X02 | Falls | not done |  |" in page


def test_the_page_is_up_to_date(request: pytest.FixtureRequest) -> None:
    config = request.config
    if config.args in ([], ["tests"], [str(ROOT / "tests")]) and not (config.option.keyword or config.option.markexpr):
        page = render(read_sections(), shown_by(request.session.items))  # this run has collected all tests
        assert PAGE.read_text() == page, "run scripts/capabilities"
        return
    command = [sys.executable, str(Path(ROOT, "scripts/capabilities")), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
