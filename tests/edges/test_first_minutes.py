"""The README's first ten minutes, word by word: from a clone, from a wheel, and beside the clone; and what hides grid.

The commands are the README's own lines, and the script is its first example. Dependencies are those of the environment
that the tests run in, by links: what is tried is how grid gets there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from tests.edges.test_packaging import closure

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(*, about: str) -> list[str]:
    """The README's shell lines that hold `about`, without their comments."""
    lines = [line.partition("  #")[0].strip() for line in README.splitlines() if line.startswith("    ")]
    return [line for line in lines if about in line]


def first_example() -> str:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def clone_to(place: Path) -> Path:
    """As `git clone` leaves it: the files that are under version control."""
    place.mkdir(parents=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    for name in filter(None, listed.stdout.split("\0")):
        if name.split("/")[0] not in ("tests", "docs", "benchmarks", "examples") and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    return place


class Desk:
    """A new user's environment and shell."""

    def __init__(self, place: Path) -> None:
        self.env = place / "gridenv"
        venv.create(self.env, symlinks=True, with_pip=False)
        site = next(self.env.glob("lib/python3*/site-packages"))
        for name in closure([*(importlib.metadata.requires("pip") or []), "pip", "setuptools", *self._needs()]):
            for file in importlib.metadata.files(name) or ():
                origin = Path(str(importlib.metadata.distribution(name).locate_file(file.parts[0])))
                link = site / file.parts[0]
                if file.parts[0] not in ("..", "__pycache__") and origin.exists() and not link.exists():
                    link.symlink_to(origin)
        pip = self.env / "bin/pip"
        pip.write_text(f"#!{self.env}/bin/python\nimport sys\nfrom pip import main\nsys.exit(main())\n")
        pip.chmod(0o755)
        self.site = site

    @staticmethod
    def _needs() -> list[str]:
        import configparser

        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        return config["options"]["install_requires"].strip().splitlines()

    def run(self, line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment = {
            **kept,
            "PATH": f"{self.env}/bin:{os.environ['PATH']}",
            "PYTHONPYCACHEPREFIX": str(self.env) + "-pycache",
            # no index is asked: what builds and what is needed is here
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
        }
        null = subprocess.DEVNULL
        return subprocess.run(
            line, shell=True, cwd=cwd, capture_output=True, text=True, timeout=180, env=environment, stdin=null
        )

    def must(self, line: str, cwd: Path) -> str:
        done = self.run(line, cwd)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.mark.row("N04", "N06")
def test_from_a_clone_and_beside_it(tmp_path: Path) -> None:
    clone, desk = clone_to(tmp_path / "grid"), Desk(tmp_path)
    (line,) = commands(about="pip install -e")
    desk.must(line, clone)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in (clone, tmp_path, elsewhere, clone / "grid"):
        (place / "first.py").write_text(first_example())
        said = desk.must("python first.py", place)
        assert said == "6.0\n", (place, said)
        (place / "first.py").unlink()
    program = "import grid; from grid import LocalGrid; print(grid.__file__)"
    for way in (f'python -c "{program}"', f'echo "{program}" | python -'):
        assert desk.must(way, tmp_path).strip() == str(clone / "grid/__init__.py")
    assert "Run your Python objects" in desk.must("grid --help", tmp_path)
    steps = json.loads(desk.run("grid doctor localhost --json", tmp_path).stdout)["steps"]
    assert "install" not in [step["name"] for step in steps]
    assert "sshgrid" in desk.must("pip list", tmp_path)
    assert "Would install" not in desk.must("pip install --dry-run sshgrid", tmp_path), "an extra would ask an index"


@pytest.mark.row("N04", "N05", "N06")
def test_from_a_wheel_and_what_hides_it(tmp_path: Path) -> None:
    clone, desk = clone_to(tmp_path / "grid"), Desk(tmp_path)
    (line,) = commands(about="pip wheel")
    desk.must(line, clone)
    for place in (tmp_path, clone):
        (place / "first.py").write_text(first_example())
        assert desk.must("python first.py", place) == "6.0\n"
    where = desk.must('python -c "import grid; print(grid.__file__)"', tmp_path).strip()
    assert where == str(desk.site / "grid/__init__.py")

    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "grid.py").write_text("def search(): pass\n")
    told = desk.run("grid doctor localhost", hidden)
    assert told.returncode == 1 and f"imports {hidden}/grid.py and not this grid" in told.stdout, told.stdout
    assert "Rename that file or folder" in told.stdout

    other = desk.site / "grid-0.7.1.dist-info"
    other.mkdir()
    about = "Metadata-Version: 2.1\nName: grid\nVersion: 0.7.1\nSummary: Volumetric data module\n"
    (other / "METADATA").write_text(about)
    told = desk.run("grid doctor localhost", tmp_path)
    assert told.returncode == 1, told.stdout
    assert "another project is in this environment: grid 0.7.1 (Volumetric data module)" in told.stdout
    assert "pip uninstall grid" in told.stdout


@pytest.mark.row("N04")
def test_every_extra_is_in_the_readme_and_no_page_says_the_name_of_the_other_project() -> None:
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["name"] == "sshgrid"
    for extra in config["options.extras_require"]:
        assert f"`{extra}`" in README, extra
    wrong = re.compile(r"""pip install[^\n]*?[\s'"]grid(\[|['"\s`,.]|$)""")
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "grid").rglob("*.py")]
    found = [f"{page.name}: {match[0]}" for page in pages if (match := wrong.search(page.read_text(encoding="utf-8")))]
    assert not found, found
