"""The client under each Python that is supported: calls, groups, maps, a pool, losses, the command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lab.pythons import CLIENT, interpreter
from tests.lab.slurm import CLIENT_PACKAGES

ROOT = Path(__file__).parents[2]
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")

SCRIPT = """
import os, sys
import grid
from grid import LocalGrid, ServerLost

class Model:
    def __init__(self): self.scale = 1
    def set_scale(self, scale): self.scale = scale
    def energy(self, x): return self.scale * x * x
    def fail(self): raise ValueError("on purpose")
    def die(self): os._exit(3)

if __name__ == "__main__":
    with LocalGrid(2, output=None) as g, g.pool() as pool:
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


@pytest.mark.row("D01", "D02", "D03")
@pytest.mark.parametrize("minor", [each for each in SUPPORTED if each != CLIENT])
def test_a_script_runs_under_each_python(minor: str, tmp_path: Path) -> None:
    python = interpreter(minor, CLIENT_PACKAGES)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        "PYTHONPATH": str(ROOT),
        "PYTHONHOME": str(python.path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": str(python.path / "lib"),
    }

    def run(*arguments: str) -> str:
        command = [str(python.path / "bin" / f"python{minor}"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout

    assert run("script.py") == f"{tuple(map(int, minor.split('.')))} True\n"
    assert "Run your Python objects" in run("-m", "grid", "--help")
