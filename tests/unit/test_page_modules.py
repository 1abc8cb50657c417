"""The modules of the page: the pure ones do what they say, in node; imports go one way, and state has one owner."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.ground import MissingPart

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "grid" / "web" / "page"
TESTS = sorted((ROOT / "tests" / "page").glob("*.test.mjs"))
PURE = {"axes", "conditions", "heard", "job", "lines", "list", "state", "words"}
LIMIT_S = 60.0

pytestmark = pytest.mark.row("J17")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name.partition(".")[0])
def test_a_pure_module_does_what_it_says(path: Path) -> None:
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        raise MissingPart("the Debian package nodejs is missing")
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(path)], capture_output=True, text=True, timeout=LIMIT_S, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^# pass [1-9]", done.stdout, re.M), done.stdout  # a file without tests would pass as well


def test_every_pure_module_has_its_tests() -> None:
    assert {path.name.partition(".")[0] for path in TESTS} == PURE


def imported() -> dict[str, set[str]]:
    """Module -> those that it imports."""
    return {path.stem: set(re.findall(r'from "\./(\w+)\.js"', path.read_text())) for path in PAGE.glob("*.js")}


def test_modules_import_one_way_and_all_are_used() -> None:
    ways = imported()
    assert ways.keys() >= PURE
    reached, waiting = set(), ["main"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += ways[name]
    assert reached == ways.keys()
    left = dict(ways)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


def test_pure_modules_know_no_document_no_server_and_no_clock() -> None:
    for name in PURE:
        text = re.sub(r"/\*.*?\*/|//.*", "", (PAGE / f"{name}.js").read_text(), flags=re.S)
        assert not re.search(
            r"\bdocument\b|\bwindow\b|\bfetch\(|Date\.now|new Date\(\)|performance|setTimeout", text
        ), name
        assert imported()[name] <= PURE, name


def test_no_module_hands_out_a_variable_that_it_changes() -> None:
    for path in PAGE.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"^export (let|var)\b", text, re.M), path.name
        # a name that is imported can't be assigned to; of what is shared only the methods of `State` change anything
        assert not re.search(r"(?<![\w.#])state\.\w+(\.\w+)* (=|\+=|\|\|=|\?\?=) ", text), path.name
