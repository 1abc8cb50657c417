"""Environments on hosts: built from wheels, whole or not there, whatever breaks."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from grid.environments.travel import Environments
from grid.hosts import Host
from grid.launch import connect

STEPS = Path(__file__).with_name("env_steps.py")


def make_wheel(
    directory: Path, name: str, files: dict[str, str], *, version: str = "1.0", entry_points: str = ""
) -> Path:
    """A small wheel of pure code."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entry_points:
        content[f"{info}/entry_points.txt"] = entry_points
    content[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in content.items():
            archive.writestr(each, text)
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    tell = "def main():\n    print('told')\n"
    first = make_wheel(
        tmp_path / "wheels",
        "teller",
        {"teller/__init__.py": tell, "teller-1.0.data/scripts/say": "#!python\nimport teller\nteller.main()\n"},
        entry_points="[console_scripts]\ntell = teller:main\n",
    )
    return [
        first,
        make_wheel(tmp_path / "wheels", "other", {"other.py": "x = 1\n", "other-1.0.data/data/share/o": "o"}),
    ]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a cache."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.mark.row("W05")
@pytest.mark.parametrize("mode", ["kill", "full", "cut"])
def test_a_build_that_breaks_at_any_step_leaves_nothing_half_there(mode: str, wheels: list[Path], home: Path) -> None:
    command = [sys.executable, str(STEPS), str(home), mode, *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] > 10
    if mode == "full":
        assert len(found["told"]) > 10
        assert all(each["kind"] == "DiskError" and "No space left" in each["error"] for each in found["told"])
        assert any("MB are needed" in each["error"] and each["free"] > 0 for each in found["told"])


@pytest.mark.row("W05")
def test_of_two_that_build_at_once_one_does(wheels: list[Path], home: Path, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("".join(f"{wheel}\n" for wheel in wheels))
    ours = Environments()
    program = (
        "import sys\nfrom grid.environments.travel import Environments\nfrom grid.hosts import Host\n"
        "from grid.launch import connect\n"
        "with connect(Host('localhost', ssh='local')) as c:\n"
        "    b = Environments().bring(c, sys.argv[1])\n    print(b.built, b.sent_bytes, b.python)\n"
    )
    with connect(Host("localhost", ssh="local")) as connection:
        ours.bring(connection, "")  # what it stands on is in the cache, so that both get to the building
        command = [sys.executable, "-c", program, str(tmp_path / "requirements.txt")]
        pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=120)[0].split() for process in pair]
    assert sorted(built for built, _, _ in said) == ["False", "True"], said
    assert said[0][2] == said[1][2]
    (sent,) = {int(size) for _, size, _ in said} - {0}
    assert sent == sum(wheel.stat().st_size for wheel in wheels)
    python = said[0][2]
    for script in ("tell", "say"):
        assert subprocess.run([Path(python).parent / script], capture_output=True, text=True).stdout == "told\n"
    done = subprocess.run(
        [python, "-c", "import other, zmq, dill, sys; print(sys.prefix)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(Path(python).parents[1]), done.stderr
    assert (Path(python).parents[1] / "share/o").read_text() == "o"
