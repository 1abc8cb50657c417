"""A client and a host without what only Linux has: no /proc, no /dev/shm, no prctl, no sched_getaffinity.

A mount namespace hides the directories, a sitecustomize the functions. macOS has none of the four.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grid import Host, SSHGrid
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost, MissingPart

ROOT = Path(__file__).parents[2]

WITHOUT = """
import ctypes, os
for name in ("sched_getaffinity", "sched_setaffinity"):
    if hasattr(os, name): delattr(os, name)
found = ctypes.CDLL.__getattr__
def look(self, name):
    if name == "prctl": raise AttributeError("symbol not found: prctl")
    return found(self, name)
ctypes.CDLL.__getattr__ = look
"""

HIDE = "mount -t tmpfs -o mode=555,ro tmpfs /proc && mount -t tmpfs -o mode=555,ro tmpfs /dev/shm"

SCRIPT = """
import ctypes, os
from grid import LocalGrid, ServerLost

class Model:
    factor = 2
    def energy(self, x): return self.factor * x * x
    def bare(self): return os.listdir("/proc"), os.access("/dev/shm", os.W_OK), hasattr(os, "sched_getaffinity")
    def die(self): os._exit(3)

if __name__ == "__main__":
    try: ctypes.CDLL(None).prctl
    except AttributeError: pass
    else: raise SystemExit("prctl is there")
    with LocalGrid(2, output=None) as g, g.pool() as pool:
        sid = g.publish(Model(), restarts=1)
        with g.acquire_service(sid) as proxy:
            assert proxy.bare().get(30) == ([], False, False), proxy.bare().get(30)
            assert proxy.energy(3).get(30) == 18
            assert len(proxy.energy(bytes(1)).exception(30).args) == 1
        with g.acquire_service(sid) as proxy:
            assert proxy.energy(2.0).get(30) == 8.0
        assert pool.map(len, [bytes(3_000_000)] * 3) == [3_000_000] * 3
        with g.acquire_service(sid) as proxy:
            error = proxy.die().exception(30)
            assert isinstance(error, ServerLost) and "exit status 3" in str(error), error
    print("right")
"""


@pytest.mark.row("N03")
def test_a_script_and_its_kernel_do_without_what_only_linux_has(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        raise MissingPart("only root can hide /proc")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{HIDE} && exec {sys.executable} script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout == "right\n", done.stdout + done.stderr


@pytest.mark.row("N03")
@pytest.mark.parametrize("transport", ["direct", "tunnel"])
def test_a_host_does_without_what_only_linux_has(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab([LabHost("bare", packages=("pyzmq", "dill"))]) as lab:
        host = lab.hosts["bare"]
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        host.write_file("/srv/sitecustomize.py", WITHOUT)
        # in the host's own namespace: its processes see it from now on
        host.run(["sh", "-c", HIDE], user="root", check=True)
        spec = Host("bare", n_cpu=2, init_cmd="export PYTHONPATH=/srv;", transport=transport)
        with SSHGrid([spec], output=None) as g:
            sid = g.publish(Probe())
            with g.acquire_service(sid) as proxy:
                assert proxy.echo(bytes(3_000_000)).get(30) == bytes(3_000_000)
                assert proxy.add(2).get(30) == 2
            assert g.gather(g.broadcast(sid, "echo", "x"), 30) == ["x", "x"]
            g.release_all()
            assert [len(host.run(["ls", place]).stdout.splitlines()) for place in ("/proc", "/dev/shm")] == [0, 0]
