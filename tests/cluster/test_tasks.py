"""Task systems in an allocation of a real batch system: the examples, unchanged."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.lab.host import wait_until

pytestmark = pytest.mark.slurm

NODES = ("n1", "n2", "n3")


@pytest.fixture
def place(slurm: Lab) -> Iterator[Path]:
    """A directory that all nodes share, /home/mara/work; and nothing of ours anywhere afterwards."""
    slurm.hosts["head"].run(["mkdir", "work"], check=True)
    yield slurm.hosts["head"].path("/home/mara") / "work"
    slurm.hosts["head"].run(["scancel", "--user=mara"])
    wait_until(lambda: not any(slurm.hosts[name].processes() for name in NODES), "jobs to end", limit_s=30)
    slurm.hosts["head"].run(["rm", "-rf", "work", ".grid"])
    for host in slurm.hosts.values():
        host.run(["sh", "-c", "rm -rf /tmp/gr /tmp/grid-* /dev/shm/grid-*"])


@pytest.mark.row("K36", "K40", "B02", "B08")
def test_a_task_system_in_an_allocation_unchanged(slurm: Lab, place: Path) -> None:
    ask = "-l nodes=3:ppn=2,walltime=0:03:00 -o out -e err --wait"
    example = "/grid/examples/tasks_mandelbrot.py --size 80 --out m.png"
    command = "export PYTHONPATH=/grid GRID_RUNTIME_DIR=/tmp/gr; cd /home/mara/work; "
    command += f"exec python3 -m grid qsub {ask} -- python {example}"
    ssh = ["ssh", "-F", str(slurm.ssh_config), "head", command]
    done = subprocess.run(ssh, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr + (place / "err").read_text()
    wait_until(lambda: "area" in (place / "out").read_text(), "the job's output")
    (area,) = re.findall(r"area ([\d.]+),", (place / "out").read_text())
    assert float(area) == pytest.approx(1.50659, abs=0.05)
    assert (place / "m.png").read_bytes().startswith(b"\x89PNG")
