"""The files of the page: that an installation has them, and that they hold to each other."""

from __future__ import annotations

import configparser
import fnmatch
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "grid" / "web" / "page"

pytestmark = pytest.mark.row("J17")


def test_an_installation_has_all_files_that_are_no_python() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [each.strip() for each in config["options.package_data"]["grid"].split(",")]
    files = [path.relative_to(ROOT / "grid").as_posix() for path in PAGE.iterdir() if path.is_file()]
    others = [name for name in files if not name.endswith(".py")]
    assert len(others) == 3 and all(any(fnmatch.fnmatch(name, each) for each in patterns) for name in others)


def test_what_the_script_looks_for_is_in_the_page_and_has_a_style() -> None:
    html, script, style = ((PAGE / name).read_text() for name in ("index.html", "page.js", "page.css"))
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    assert len(ids) == len(re.findall(r'\bid="', html))
    wanted = set(re.findall(r'\$\("([\w-]+)"\)', script))
    assert wanted and wanted <= ids, wanted - ids
    assert re.search(r"const ROW = (\d+)", script)[1] == re.search(r"--row: (\d+)px", style)[1]  # type: ignore[index]
    variables = set(re.findall(r"var\((--[\w-]+)\)", style))
    assert variables <= set(re.findall(r"(--[\w-]+):", style))
    assert "style=" not in html and not re.search(r"\son\w+=", html)  # its own policy would refuse them
