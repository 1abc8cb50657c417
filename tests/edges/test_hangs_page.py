"""The page "when it hangs" is followed literally: its script, its commands, what they show, its cure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.lab.host import wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hangs.md").read_text()


def script() -> str:
    found = re.search(r"^```py\n(.*?)^```", PAGE, re.M | re.S)
    assert found
    return found[1]


def grid(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "grid", *words], capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.fixture
def stuck(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The script of the page, as a process; with a parameter, on these hosts."""
    hosts = getattr(request, "param", None)
    text = script().replace("LocalGrid(3)", f"SSHGrid({hosts!r})").replace("import LocalGrid", "import SSHGrid")
    (tmp_path / "stuck.py").write_text(text if hosts else script())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if hosts:
        environment["GRID_SSH_CONFIG"] = str(request.getfixturevalue("lab").ssh_config)
    process = subprocess.Popen(
        [sys.executable, "stuck.py"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield process
    if process.poll() is None:
        grid("stop", str(process.pid))
    process.kill()
    process.wait()


def find(process: subprocess.Popen[str]) -> str:
    """What `grid dump` shows once two of three calls have ended."""
    pid = str(process.pid)
    wait_until(lambda: re.search(r" 0 +3 +0 +0 +2 ", grid("status", pid)) is not None, "two calls have ended")
    return grid("dump", pid)


def lines_of(text: str) -> list[tuple[str, str]]:
    """Of each frame: line and function, and the line of code."""
    return re.findall(r'^ *File "[^"]*stuck\.py", (line \d+, in \S+)\n +(.*)$', text, re.M)


@pytest.mark.row("I09")
def test_the_page_shows_what_the_commands_show_and_its_cure_cures(stuck: subprocess.Popen[str], tmp_path: Path) -> None:
    shown = find(stuck)
    assert lines_of(shown)[:3] == lines_of(PAGE), shown
    assert "Model.0/" in shown and "running 'solve' for" in shown and shown.count("(process ") == 2, shown
    assert "/grid/" not in shown and "threading.py" not in shown, "nothing but lines of the user"
    assert lines_of(grid("dump", str(stuck.pid), "--slowest", "1")) == lines_of(PAGE)[:2]
    assert "stopped" in grid("stop", str(stuck.pid))
    assert stuck.wait(60) != 0
    (tmp_path / "stuck.py").write_text(script().replace("threading.Lock()", "threading.RLock()"))
    cured = subprocess.run(
        [sys.executable, "stuck.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert cured.returncode == 0 and cured.stdout.strip() in PAGE and cured.stdout.startswith("["), cured.stderr


@pytest.mark.row("I09")
@pytest.mark.lab
@pytest.mark.parametrize("stuck", [["s1", "s2", "s3"]], indirect=True)
def test_one_of_three_hosts_is_named(lab: Lab, stuck: subprocess.Popen[str]) -> None:
    shown = find(stuck)
    (host,) = re.findall(r"^Model\.0/\d on (s\d) ", shown, re.M)
    assert lines_of(grid("dump", str(stuck.pid), "--host", host)) == lines_of(PAGE)[:2]
    assert not lines_of(grid("dump", str(stuck.pid), "--host", "s1" if host != "s1" else "s2"))
