"""The files of the page: that an installation has them, and that they hold to each other."""

from __future__ import annotations

import configparser
import fnmatch
import re
from pathlib import Path

import pytest

from grid.web.page import FILES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "grid" / "web" / "page"

pytestmark = pytest.mark.row("J17")


def test_an_installation_has_all_files_that_are_no_python() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [each.strip() for each in config["options.package_data"]["grid"].split(",")]
    files = [path.relative_to(ROOT / "grid").as_posix() for path in PAGE.iterdir() if path.is_file()]
    others = [name for name in files if not name.endswith((".py", "/package.json"))]  # that one is for node, in tests
    assert len(others) > 20 and all(any(fnmatch.fnmatch(name, each) for each in patterns) for name in others)
    assert {name for name, _ in FILES.values()} == {name.rpartition("/")[2] for name in others}


def test_all_modules_are_asked_for_at_once() -> None:
    html = (PAGE / "index.html").read_text()
    named = re.findall(r'<link rel="modulepreload" href="/page/(\w+\.js)">', html)
    started = re.findall(r'<script type="module" src="/page/(\w+\.js)"></script>', html)
    assert started == ["main.js"] and sorted(named + started) == sorted(path.name for path in PAGE.glob("*.js"))


def test_what_the_modules_look_for_is_in_the_page_and_has_a_style() -> None:
    html, style = ((PAGE / name).read_text() for name in ("index.html", "page.css"))
    script = "".join(path.read_text() for path in PAGE.glob("*.js"))
    ids = set(re.findall(r'\bid="([\w-]+)"', html))
    assert len(ids) == len(re.findall(r'\bid="', html))
    wanted = set(re.findall(r'\$\("([\w-]+)"\)', script))
    assert wanted and wanted <= ids, wanted - ids
    assert re.search(r"const ROW = (\d+)", script)[1] == re.search(r"--row: (\d+)px", style)[1]  # type: ignore[index]
    variables = set(re.findall(r"var\((--[\w-]+)\)", style))
    assert variables <= set(re.findall(r"(--[\w-]+):", style))
    assert "style=" not in html and not re.search(r"\son\w+=", html)  # its own policy would refuse them


def brightness(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2, definition of relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_can_be_read_on_every_ground(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", (PAGE / "page.css").read_text(), re.S)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", light if scheme == "light" else dark))
    states = ("waiting", "pending", "active", "complete", "error", "aborted", "cancelled")
    texts = {*states, "ink", "quiet", "accent"}
    pairs = [(text, ground) for text in texts for ground in ("paper", "wash", "accent-wash")]
    for text, ground in [*pairs, ("warn", "warn-wash"), ("paper", "accent"), ("paper", "bad"), ("bad", "paper")]:
        high, low = sorted((brightness(colours[text]), brightness(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"  # WCAG 2.2, 1.4.3, level AA
