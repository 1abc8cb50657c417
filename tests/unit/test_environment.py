"""Every variable of the environment that grid reads or sets stands on docs/environment.md, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "environment.md"
NAME = re.compile(r"\bGRID_[A-Z][A-Z_]*\b")


def in_code(*folders: str) -> set[str]:
    """Names of variables in the Python files and shell scripts of these folders."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.suffix in (".py", ".sh", ".js", "")]
    return {name for text in texts for name in NAME.findall(text)}


@pytest.mark.row("D08")
def test_every_variable_of_the_code_is_on_the_page() -> None:
    missing = in_code("grid", "scripts") - set(NAME.findall(PAGE.read_text(encoding="utf-8")))
    assert not missing, f"docs/environment.md lacks {', '.join(sorted(missing))}"


@pytest.mark.row("D08")
def test_every_variable_of_the_page_is_in_the_code() -> None:
    unknown = set(NAME.findall(PAGE.read_text(encoding="utf-8"))) - in_code("grid", "scripts", "tests")
    assert not unknown, f"nothing reads or sets {', '.join(sorted(unknown))}"


@pytest.mark.row("D08")
def test_other_pages_name_only_variables_that_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in NAME.findall(page.read_text(encoding="utf-8"))}
    assert named <= in_code("grid", "scripts", "tests")
