"""A real browser for tests: Debian's Chromium, headless, driven by Playwright.

Lives here: `browser` (one for the tests of a module), `Visit`: a fresh visitor, who notes all that a page asks for,
            and of what the browser complains.
Elsewhere:  the tests (`tests/edges/test_page*.py`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.ground import MissingPart

CHROMIUM = "/usr/bin/chromium"
LIMIT_MS = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, warmed up: what it starts once is there before the first test looks for what it left behind."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as exc:
        raise MissingPart("the Python package playwright is missing") from exc
    if not Path(CHROMIUM).exists():
        raise MissingPart(f"the Debian package chromium is missing: there is no {CHROMIUM}")
    # models on the device: Chromium begins to measure the machine for them after a while, and a busy one then hangs
    features = "SpareRendererForSitePerProcess,Translate,MediaRouter,OptimizationHints,OptimizationGuideModelExecution"
    features += ",OptimizationGuideOnDeviceModel,OnDeviceModelPerformanceParams"
    options = [f"--disable-features={features}", "--disable-gpu"]
    options += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    # Chromium's profile changes all the time, and tests look at TMPDIR for what they left.
    place, usual = tempfile.mkdtemp(prefix="gt-browser-", dir="/tmp"), os.environ["TMPDIR"]
    try:
        os.environ["TMPDIR"] = place
        yield from _browser(sync_playwright, options, usual)
    finally:
        os.environ["TMPDIR"] = usual
        shutil.rmtree(place, ignore_errors=True)


def _browser(sync_playwright: Any, options: list[str], usual: str) -> Iterator[Any]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=60_000)
        os.environ["TMPDIR"] = usual
        context = found.new_context()
        page = context.new_page()
        page.goto("data:text/html,<title>warm</title>")
        page.screenshot()
        context.close()
        yield found
        found.close()


class Visit:
    """One visitor of a page: a context of its own, hence a session storage of its own. Leaving it ends all that.

    `requests` are the addresses that were asked for, `complaints` errors and refusals that the browser told.
    """

    def __init__(self, browser: Any, width: int = 1440, height: int = 860, **options: Any) -> None:
        self._context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self._context.set_default_timeout(LIMIT_MS)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = self._context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("console", self._said)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(f"{message.type}: {message.text}")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
