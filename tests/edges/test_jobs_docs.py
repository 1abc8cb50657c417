"""The tutorial of jobs runs as written; the pages have the tables that the code has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grid.jobs.conditions.atoms import KINDS
from grid.jobs.rules.scheduler import RULES

ROOT = Path(__file__).parents[2]


@pytest.mark.row("V10", "V14", "V06", "J19", "P13", "C27", "V19", "V23", "D04")
def test_the_tutorial_runs_as_written() -> None:
    page = (ROOT / "docs" / "jobs_tutorial.md").read_text()
    commands = re.findall(r"^    \$ (.*)$", page, re.M)
    assert len(commands) > 15
    script = "set -eo pipefail\n" + "\n".join(f"echo '$ '{i}\n{command}" for i, command in enumerate(commands))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "GRID_LOCAL": "2"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    digits = [float(found) for found in re.findall(r"([\d.]+) digits of the worst parameter", done.stdout)]
    assert len(digits) == 4 and min(digits) > 6, said  # certified by NIST
    assert "improved   rss" in done.stdout and re.search(r"attempt +2", done.stdout)
    began_at = int(re.findall(r"progress +\[(\d+)", done.stdout)[-1])
    assert began_at > 1 and "good enough" in said


@pytest.mark.row("J07", "C07", "C22")
def test_the_pages_name_the_rules_and_the_conditions_that_there_are() -> None:
    jobs, conditions = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("jobs", "conditions"))
    assert re.findall(r"^\d\. `(\w+)`", jobs, re.M) == list(RULES)
    for cls in KINDS.values():
        assert cls.__name__ in conditions
