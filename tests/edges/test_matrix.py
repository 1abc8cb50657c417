"""What travels from a script: every form of `tests/matrix`, on every Python, with loky as the witness."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.pythons import CORE_PACKAGES, OTHERS, cache_directory, interpreter

ROOT = Path(__file__).parents[2]


def run(command: list[str], environment: dict[str, str], place: Path) -> list[dict[str, Any]]:
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def judge(rows: list[dict[str, Any]]) -> None:
    assert len({row["form"] for row in rows}) >= 180
    wrong = [f"{row['form']} as {row['way']}: {row['grid']}" for row in rows if row["grid"] != "right"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.row("S01", "S02", "S03", "S06")
def test_every_form_of_definition_travels_and_so_all_that_loky_carries(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "tests/matrix/forms.py")]
    rows = run(script, dict(os.environ), tmp_path)
    judge(rows)
    page = (ROOT / "docs/serialising.md").read_text()
    for row in rows:
        word = "stays behind" if row["stays"] else "travels"
        assert f"| {row['form'].replace('_', ' ')} | {word} |" in page, f"docs/serialising.md lacks {row['form']}"
    carried = [row for row in rows if row["loky"] == "right"]
    refused = [row for row in rows if row["loky"] not in (None, "right")]
    assert len(carried) > 200 and len(refused) > 40, "the witness did not run, or agrees with everything"


@pytest.mark.row("S01", "S03", "S06")
@pytest.mark.parametrize("minor", OTHERS)
def test_every_form_travels_under_each_python(minor: str, tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(cache_directory() / "pycache"),  # or every process compiles all of grid
    }
    program = str(interpreter(minor, CORE_PACKAGES).program)
    script = [program, str(ROOT / "tests/matrix/forms.py"), "--no-loky", "--quick"]
    judge(run(script, environment, tmp_path))


@pytest.mark.row("S01", "S02")
def test_functions_that_other_libraries_compile_travel(tmp_path: Path) -> None:
    found = [name for name in ("jax", "numba", "sympy", "torch") if importlib.util.find_spec(name)]
    if not found:
        pytest.skip("none of jax, numba, sympy, torch is installed: pip install jax numba sympy")
    rows = run([sys.executable, str(ROOT / "tests/matrix/heavy.py")], dict(os.environ), tmp_path)
    wrong = [f"{row['form']} as {row['way']}: {row['grid']}" for row in rows if row["grid"] != "right"]
    assert rows and not wrong, "\n".join(wrong)
