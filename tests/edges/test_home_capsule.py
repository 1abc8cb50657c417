"""Capsules: a run that is written down comes again, and what has changed since is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grid.capsule.compare import changes, outcome

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, random, sys
import helper
from grid import Grid

class Model:
    def walk(self, seed):
        return random.Random(seed).random()

if __name__ == "__main__":
    with Grid.auto(output=None) as g:
        sid = g.publish(Model())
        print(list(g.map(sid, "walk", [random.random() for _ in range(3)])))
    print(helper.NAME, sys.argv[1:], hash("text"))
    if sys.argv[1] == "pid":
        print(os.getpid())
    if sys.argv[1] == "fail":
        sys.exit(3)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "fit.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("NAME = 'first'\n")
    return tmp_path


def grid(place: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("GRID_SEED", "PYTHONHASHSEED")}
    environment.update(variables, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "grid", *words]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.row("D03", "D04")
def test_a_run_comes_again_from_its_capsule(place: Path) -> None:
    first = grid(place, "run", "--capsule", "c.json", "--local", "2", "fit.py", "same", SECRET_TOKEN="hush")
    assert first.returncode == 0, first.stderr
    told = json.loads((place / "c.json").read_text())
    assert told["command"]["args"] == ["same"] and told["output"]["text"] == first.stdout and told["exit"] == 0
    assert {Path(path).name for path in told["sources"]} == {"fit.py", "helper.py"}
    assert {"sshgrid", "pyzmq"} <= told["packages"].keys() and "hush" not in json.dumps(told)
    assert told["hosts"][0]["hosts"][0]["host"] == "localhost" and told["hosts"][0]["hosts"][0]["slots"] == 2
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    again = grid(elsewhere, "rerun", "../c.json")
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    assert "the same came out" in again.stderr


@pytest.mark.row("D03", "D04")
def test_what_has_changed_is_named_and_nothing_is_run(place: Path) -> None:
    grid(place, "run", "--capsule", "c.json", "--local", "1", "fit.py", "same")
    (place / "helper.py").write_text("NAME = 'second'\n")
    refused = grid(place, "rerun", "c.json")
    assert refused.returncode == 1 and refused.stdout == ""
    assert "helper.py has changed" in refused.stderr and "--anyway" in refused.stderr
    ran = grid(place, "rerun", "--anyway", "c.json")
    assert ran.returncode == 1 and "line 2 of the output was \"first ['same']" in ran.stderr
    (place / "helper.py").unlink()
    looked = json.loads(grid(place, "rerun", "--check", "--json", "c.json").stdout)
    assert looked["ran"] is False and "does not exist any more" in looked["changed"][0]


@pytest.mark.row("D03", "D04")
def test_another_output_and_the_way_it_ends_are_told(place: Path) -> None:
    assert grid(place, "run", "--capsule", "p.json", "--local", "1", "fit.py", "pid").returncode == 0
    other = json.loads(grid(place, "rerun", "--json", "p.json").stdout)
    assert other["ran"] and not other["same"] and "line 3 of the output" in other["differs"][0]
    assert grid(place, "run", "--capsule", "f.json", "--local", "1", "fit.py", "fail").returncode == 3
    assert json.loads((place / "f.json").read_text())["exit"] == 3
    assert grid(place, "rerun", "f.json").returncode == 0, "it failed as it had failed"


@pytest.mark.row("D04")
def test_what_is_no_capsule_is_refused(place: Path) -> None:
    for text in ("", "{}", "[1]", '{"capsule": 1}'):
        (place / "x.json").write_text(text)
        refused = grid(place, "rerun", "x.json")
        assert refused.returncode == 1 and "Traceback" not in refused.stderr and "capsule" in refused.stderr
    assert grid(place, "run", "--capsule", "none/c.json", "fit.py").returncode == 2


def test_differences_are_lines_that_say_what_was_and_what_is() -> None:
    then: dict[str, Any] = {
        "sources": {"/a.py": "1", "/b.py": "2"},
        "python": {"version": "3.11.1", "implementation": "CPython", "machine": "x86_64"},
        "packages": {"numpy": "1.0", "gone": "2.0"},
    }
    assert changes(then, then) == []
    now = {
        "sources": {"/a.py": "1", "/b.py": None},
        "python": {**then["python"], "version": "3.12.0"},
        "packages": {"numpy": "2.0", "gone": None},
    }
    assert changes(then, now) == [
        "/b.py does not exist any more",
        "Python's version was 3.11.1 and is 3.12.0",
        "numpy was 1.0 and is 2.0",
        "gone was 2.0 and is not installed",
    ]

    def run(text: str | None, exit: object = 0) -> dict[str, Any]:
        return {"exit": exit, "output": {"sha256": str(hash(text)), "text": text}}

    assert outcome(run("a\nb"), run("a\nb")) == []
    assert outcome(run("a\nb"), run("a\nb\nc", 1)) == [
        "it ended with 0 and now with 1",
        "line 3 of the output was not there and is 'c'",
    ]
    assert "too long" in outcome(run(None), run("a"))[0]
