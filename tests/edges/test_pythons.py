"""The client under each Python that is supported: calls, groups, maps, a pool, losses, the command line."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, LabHost
from tests.lab.pythons import CLIENT, CORE_PACKAGES, OTHERS, cache_directory, interpreter

ROOT = Path(__file__).parents[2]
# Rules about texts and tables, tried with many generated values: the same on every Python, and half of the time.
LEFT_OUT = (
    *("algebra", "batch", "ensemble", "expressions_enemy", "hosts", "init_cmd", "manifest"),
    *("parsers_enemy", "plan", "roster", "schedule", "scheduler", "select", "simulation", "wire_enemy"),
    # they read the tree, with all extras, and say the same everywhere
    *("capabilities", "environment", "glossary", "imports", "imports_needed", "lists_of_cases", "reference"),
    "page_modules",  # that is Node
    "environments",  # needs the extra `env`, which clients of other versions do not have here
)
# Python 3.10 has no groups
LEFT_OUT_TESTS = {
    "3.10": (
        "test_raised.py::test_a_group_comes_with_its_members",
        "test_exceptions.py::test_groups_keep_what_is_in_them",
    )
}
# In each run the oldest and the newest run what Python's own objects go through, and the oldest compiles all of grid.
# All Pythons run all of the core by `scripts/nightly`.
NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))
EACH_RUN = (OTHERS[0], OTHERS[-1])
CLOSE = (
    *("acquire", "arrivals", "authkey", "awaiting", "callbacks", "carrier", "child", "children", "codec", "control"),
    *("descriptors", "errors", "exceptions", "functions", "generators", "handing", "kept", "mapping", "orphans"),
    *("outgoing", "pool", "private_names", "proxy", "raised", "result", "rouse", "runner", "session", "threads"),
    *("tidiness", "undisturbed", "unfinished", "waste", "work", "worker"),
)
# Since 3.14 `with` calls `__enter__` like any function, and looks for signals after it, when nothing would release what
# it has taken: these tests tear off there, and wait for the lock for ever.
TORN = "torn"

SCRIPT = """
import os, sys
import grid
from grid import Host, LocalGrid, ServerLost, SSHGrid

class Model:
    def __init__(self): self.scale = 1
    def set_scale(self, scale): self.scale = scale
    def energy(self, x): return self.scale * x * x
    def fail(self): raise ValueError("on purpose")
    def die(self): os._exit(3)

if __name__ == "__main__":
    at = sys.argv[1:]
    here = SSHGrid([Host("six", n_cpu=2, python=at[0])], output=None) if at else LocalGrid(2, output=None)
    with here as g, g.pool() as pool:
        sid = g.publish(Model(), restarts=1)
        with g.acquire_service(sid) as proxy:
            proxy.set_scale(2)
            assert proxy.energy(3).get(30) == 18
            error = proxy.fail().exception(30)
            assert isinstance(error, ValueError) and "energy" not in str(error), error
        assert sorted(g.gather(g.broadcast(sid, "energy", 3), 30)) == [9, 18]
        g.release_all()
        assert g.map(sid, "set_scale", [1] * 20).get(30) == [None] * 20
        assert pool.map(lambda x: x + 1, range(5)) == [1, 2, 3, 4, 5]
        with g.acquire_service(sid) as proxy:
            try:
                proxy.die().get(30)
            except ServerLost as exc:
                assert "exit status 3" in str(exc), exc
        print(sys.version_info[:2], len(g.servers[sid]) >= 1)
"""


@pytest.fixture(scope="module")
def six() -> Iterator[Lab]:
    """One host with all Pythons."""
    with Lab([LabHost("six", pythons=(CLIENT, *OTHERS), packages=CORE_PACKAGES)]) as lab:
        yield lab


def run(minor: str, *arguments: str, cwd: Path, limit_s: int = 120, **variables: str) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(cache_directory() / "pycache"),  # or every process compiles all of grid
        **variables,
    }
    command = [str(interpreter(minor, CORE_PACKAGES).program), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=limit_s)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.row("D01", "D02", "D03", "N01")
@pytest.mark.parametrize("minor", OTHERS)
def test_a_script_runs_under_each_python(minor: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert run(minor, "script.py", cwd=tmp_path) == f"{tuple(map(int, minor.split('.')))} True\n"
    assert "Run your Python objects" in run(minor, "-m", "grid", "--help", cwd=tmp_path)


@pytest.mark.lab
@pytest.mark.row("D03", "N01")
@pytest.mark.parametrize("minor", OTHERS)
def test_a_script_runs_by_ssh_under_each_python(minor: str, six: Lab, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    said = run(minor, "script.py", f"python{minor}", cwd=tmp_path, GRID_SSH_CONFIG=str(six.ssh_config))
    assert said == f"{tuple(map(int, minor.split('.')))} True\n"


@pytest.mark.row("N01")
def test_the_oldest_python_compiles_all_of_grid(tmp_path: Path) -> None:
    run(OTHERS[0], "-m", "compileall", "-q", "-f", str(ROOT / "grid"), cwd=tmp_path, PYTHONPYCACHEPREFIX=str(tmp_path))


@pytest.mark.row("N01")
@pytest.mark.parametrize("minor", OTHERS)
def test_the_core_of_the_suite_passes_under_each_python(minor: str) -> None:
    if not NIGHTLY and minor not in EACH_RUN:
        pytest.skip("in scripts/nightly: each run has the oldest and the newest Python")
    every = {path.stem.removeprefix("test_"): str(path) for path in sorted((ROOT / "tests/unit").glob("test_*.py"))}
    assert set(LEFT_OUT) | set(CLOSE) <= set(every), "some were renamed"
    chosen = set(every) - set(LEFT_OUT) if NIGHTLY else CLOSE
    units = [path for name, path in every.items() if name in chosen and not name.startswith(TORN)]
    left_out = [word for name in LEFT_OUT_TESTS.get(minor, ()) for word in ("--deselect", f"tests/unit/{name}")]
    grids = ("tests/edges/test_grids.py", "-k", "not test_over_ssh")
    options = ("-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=120", "-rs")
    said = run(minor, "-m", "pytest", *options, *units, *left_out, *grids, cwd=ROOT, limit_s=600, GRID_TEST_CORE="1")
    ended = re.search(r"(\d+) passed(?:, \d+ deselected)? in ", said)
    assert ended and int(ended[1]) > (1000 if NIGHTLY else 250), said[-3000:]  # and none is skipped
