"""What is built is what works: sdist and wheel, in an environment with the declared dependencies and nothing else."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
HOOK = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def run(*command: str | os.PathLike[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GRID_"))}
    environment.update(variables, PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment)


def build(what: str, source: Path, target: Path) -> Path:
    """By the hook that pip and `build` call, with the setuptools that is here: nothing is downloaded."""
    target.mkdir(exist_ok=True)
    done = run(sys.executable, "-c", HOOK, what, target, cwd=source)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An sdist of this checkout, and a wheel of that sdist."""
    version = importlib.metadata.version("setuptools")  # not imported: where pip was before, that can't be
    if tuple(map(int, version.split(".")[:2])) < (70, 1):
        pytest.skip("setuptools 70.1 or newer builds wheels by itself")
    place = tmp_path_factory.mktemp("built")
    source = place / "source"
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT / "grid", source / "grid", ignore=left_out)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    sdist = build("sdist", source, place / "dist")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = (place / "unpacked").iterdir()
    return sdist, build("wheel", unpacked, place / "dist")


def closure(lines: list[str]) -> set[str]:
    """Distributions that an installer would bring for these lines, on this Python: markers and extras count."""
    found: set[tuple[str, str]] = set()
    todo = [(line, "") for line in lines]
    while todo:
        line, extra = todo.pop()
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(need.name)
        for wanted in {"", *need.extras}:
            if (name, wanted) not in found:
                found.add((name, wanted))
                todo += [(line, wanted) for line in importlib.metadata.requires(name) or ()]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def clean(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with the wheel and, as links, the files of the dependencies that it declares."""
    place = tmp_path_factory.mktemp("clean")
    venv.create(place, symlinks=True, with_pip=False)
    python = place / "bin" / "python"
    done = run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", built[1]),
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=place).stdout.strip()
    with zipfile.ZipFile(built[1]) as wheel:
        (about,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
        lines = wheel.read(about).decode().splitlines()
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    for name in closure(needed):
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            origin, link = Path(str(importlib.metadata.distribution(name).locate_file(top))), Path(where) / top
            if top not in ("..", "__pycache__") and origin.exists() and not link.exists():
                link.symlink_to(origin)
    yield place


@pytest.mark.row("D01")
def test_every_file_of_the_package_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "grid").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built[1]) as wheel:
        there = {name for name in wheel.namelist() if name.startswith("grid/")}
    assert here == there
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "setup.cfg"} <= names


@pytest.mark.row("D01", "D02", "D04")
def test_what_is_installed_works_with_what_it_declares(clean: Path, tmp_path: Path) -> None:
    told = run(clean / "bin" / "grid", "--help", cwd=tmp_path)
    assert told.returncode == 0 and "Run your Python objects" in told.stdout, told.stderr
    import grid

    assert grid.__version__ in run(clean / "bin" / "grid", "--version", cwd=tmp_path).stdout
    (tmp_path / "script.py").write_text(
        "import grid\n"
        "class Model:\n"
        "    def energy(self, x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with grid.LocalGrid(1, output=None) as g, g.pool() as pool:\n"
        "        with g.acquire_service(g.publish(Model())) as proxy: print(grid.__file__, proxy.energy(3).get())\n"
        "        print(pool.map(abs, [-1, -2]))\n"
    )
    done = run(clean / "bin" / "python", "script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert str(clean) in first and first.endswith(" 9") and second == "[1, 2]"


@pytest.mark.row("D02", "D04")
def test_what_lacks_an_extra_says_the_line_that_installs_it(clean: Path, tmp_path: Path) -> None:
    python = clean / "bin" / "python"
    for code, extra in (("import grid.compat.joblib", "joblib"), ("import grid.jobs.store.store", "jobs")):
        done = run(python, "-c", code, cwd=tmp_path)
        assert f"MissingExtra: the {'backend' if extra == 'joblib' else 'store'}" in done.stderr
        assert f"Run: pip install 'sshgrid[{extra}]'" in done.stderr
    (tmp_path / "fits.py").touch()
    served = run(clean / "bin" / "grid", "serve", "fits.py", "--local", "1", cwd=tmp_path)
    assert served.returncode == 1, served.stderr
    assert "pip install 'sshgrid[jobs]'" in served.stderr and "Traceback" not in served.stderr


# What users bring themselves: grid uses it where they do, and says so where it is missing.
OF_USERS = {"bumps", "h5py", "keyring", "numpy"}


@pytest.mark.row("D02")
def test_every_library_that_the_code_imports_is_declared() -> None:
    """By its own name, as what brings it today may not need it tomorrow."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = [text for extra, text in config["options.extras_require"].items() if extra not in ("test", "docs")]
    lines = "\n".join([config["options"]["install_requires"], *extras]).split("\n")
    needs = [Requirement(line) for line in lines if line]
    declared = {canonicalize_name(name) for need in needs for name in (need.name, *need.extras)}
    brought_by = {**importlib.metadata.packages_distributions(), "tomli": ["tomli"]}  # tomli: before 3.11 alone
    for path in (ROOT / "grid").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for top in {module.partition(".")[0] for module in modules} - {"grid"} - OF_USERS:
                if top not in sys.stdlib_module_names:
                    assert declared & set(map(canonicalize_name, brought_by[top])), f"{path}: {top} is not declared"


@pytest.mark.row("D02")
def test_the_extra_all_has_what_the_others_have() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    needs = {extra: set(text.split("\n")) - {""} for extra, text in config["options.extras_require"].items()}
    assert needs["all"] == set().union(*(them for extra, them in needs.items() if extra not in ("all", "test", "docs")))
