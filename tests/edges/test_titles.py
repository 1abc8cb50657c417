"""What `ps` on a host says of kernels: grid, which part of it, and for which script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grid import Host, LocalGrid, SSHGrid
from grid.batch.wrapper import job_body
from grid.kernel import boot
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost
from tests.lab.titles import agent_on

ROOT = Path(__file__).parents[2]

SCRIPT = """
import os, subprocess, sys
from grid import LocalGrid

class Model:
    def shown(self, *pids):
        ps = ["ps", "-o", "comm=", "-o", "args=", "-p"]
        return [" ".join(subprocess.check_output([*ps, str(pid)], text=True).split()) for pid in pids]
    def pid(self):
        return os.getpid()

if __name__ == "__main__":
    with LocalGrid(1, output=None) as g:
        with g.acquire_service(g.publish(Model())) as proxy:
            status = g._engine.fleet.homes[0].ask("status")
            print(*proxy.shown(status["pid"], status["zygote"], proxy.pid().get(30)).get(30), sep="\\n")
"""

# Says of itself how it is shown under a long name, and whether its environment and its own words are as they were.
LONG = """
import os, sys
from grid.kernel import title
about = lambda name: open(f"/proc/self/{name}", "rb").read()
environment, room, words = about("environ"), len(about("cmdline")), list(sys.argv)
title.show("server", sys.argv[1], "fit\\n.py")
shown = about("cmdline")
assert len(shown) == room and shown.endswith(b"\\0"), (room, shown)
assert about("environ") == environment and sys.argv == words
print(ascii(shown.rstrip(b"\\0").decode()))
"""


def run(command: list[str], cwd: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.row("N07")
def test_ps_names_the_script_however_it_was_started(tmp_path: Path) -> None:
    package = tmp_path / "heat"
    package.mkdir()
    (package / "__main__.py").write_text(SCRIPT)
    (tmp_path / "fit it.py").write_text(SCRIPT)
    ways = {"fit it.py": ["fit it.py"], "heat": ["-m", "heat"], "python": ["-c", SCRIPT]}
    for name, words in ways.items():
        assert run([sys.executable, *words], tmp_path) == [
            f"grid-agent grid agent {name}",
            f"grid-zygote grid zygote {name}",
            f"grid-server grid server Model.0/0 {name}",
        ]


@pytest.mark.row("N07")
@pytest.mark.parametrize("name", ["x" * 100_000, "ä" * 2000, "aä" + "漢" * 2000])
def test_a_title_takes_no_more_room_than_there_is(name: str, tmp_path: Path) -> None:
    [shown] = run([sys.executable, "-c", LONG, name[:50]], tmp_path)
    assert shown == ascii(f"grid server {name[:50]} fit?.py")
    (tmp_path / "s").write_text(LONG.replace("sys.argv[1]", "open('name').read()"))
    (tmp_path / "name").write_text(name)
    [shown] = run([sys.executable, "s"], tmp_path)
    room = len(os.fsencode(sys.executable)) + len("\0s")
    assert shown == ascii(f"grid server {name}".encode()[:room].decode(errors="ignore"))


@pytest.mark.row("N07")
def test_the_script_of_a_batch_job_waits_for_kernels_by_their_names() -> None:
    look = re.search(r"\| (grep -q .*); \}", job_body(["true"]))
    assert look

    def waits(lines: str) -> bool:
        return subprocess.run(["sh", "-c", look[1]], input=lines, text=True).returncode == 0

    with LocalGrid(1, output=None) as g:
        g.publish(Probe(), wait="all")
        status = g._engine.fleet.homes[0].ask("status")
        agent = str(status["pid"])
        assert waits(subprocess.check_output(["ps", "-o", "args=", "-p", agent], text=True))
    assert waits(f"python3 -c {boot.SCOUT}\n")
    assert not waits(f"bash job\n{look[1]}\npython3 fit.py\n")


@pytest.mark.lab
@pytest.mark.row("N07")
def test_ps_on_a_host_names_grid_and_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab([LabHost("seven")]) as lab:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        monkeypatch.setattr(sys, "argv", ["/home/mara/fit.py", "--steps", "7"])
        host = lab.hosts["seven"]
        with SSHGrid([Host("seven", n_cpu=2)], output=None) as g:
            sid = g.publish(Probe(), wait="all")
            g.acquire_service(sid).add().get(30)
            said = host.run(["ps", "axww", "-o", "args="]).stdout
            kernels = sorted(line.strip() for line in said.splitlines() if "fit.py" in line)
            servers = [f"grid server {sid}/{number} fit.py" for number in range(2)]
            assert kernels == ["grid agent fit.py", *servers, "grid zygote fit.py"], said
            assert "\npython" not in said and "--steps" not in said
            assert Path(f"/proc/{agent_on(host)}/comm").read_text() == "grid-agent\n"
