"""The documentation builds as a site without a warning, with all its pages, and asks no other host for anything."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import MissingPart

ROOT = Path(__file__).parents[2]


@pytest.mark.row("D08")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None:
        raise MissingPart("the extra `docs` is not installed")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    for source in (ROOT / "docs").rglob("*.md"):
        assert source.relative_to(ROOT / "docs").with_suffix(".html").as_posix() in pages
    assert {"index.html", "changes.html", "reference/grids.html"} <= pages
    assert "publish" in (site / "reference" / "grids.html").read_text()
    index = (site / "index.html").read_text()
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?://", index)
    broken = [
        f"{page}: {target}"
        for page in sorted(pages - {"404.html"})
        for target in re.findall(r"href=\"([^\"#?]+)[^\"]*\"", (site / page).read_text())
        if not re.match(r"[a-z]+:", target) and not (site / page).parent.joinpath(target).exists()
    ]
    assert not broken
