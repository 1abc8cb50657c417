"""A cluster for the tests: one of the batch systems on hosts of a lab, and what differs between systems.

Lives here: `Site`, which systems a run tries, commands on its head, what is left on its nodes.
Elsewhere:  the systems (`lab/cluster.py` and its neighbours), the tests, which are the same on each.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

from grid import BatchGrid, Limits
from grid.testing.standins import DIALECT, KINDS
from tests.lab import Lab
from tests.lab.host import wait_until

NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))
REAL = ("slurm", "gridengine")
STAND_INS = tuple(f"{kind}-standin" for kind in KINDS if kind != "slurm-torque")  # the real one has both faces
SYSTEMS = (*REAL, *(STAND_INS if NIGHTLY else ()))
"""Those that a run tries: the stand-ins on a cluster of their own in `scripts/nightly`, and on this machine in each run
(`edges/test_standins.py`)."""

NODES = ("n1", "n2", "n3")
ENVIRONMENT = "export PYTHONPATH=/grid GRID_RUNTIME_DIR=/tmp/gr; cd /home/mara/work; "
QUICK = Limits(heartbeat_s=1.0, lost_s=4.0, orphan_s=8.0, stop_s=3.0)


class Site:
    """Users sit on this machine and reach `head` by ssh only; nodes n1, n2, n3 only through it."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.system = lab, lab.system
        self.head, self.nodes = lab.hosts["head"], [lab.hosts[name] for name in NODES if name in lab.hosts]
        kind = self.system.removesuffix("-standin")
        self.dialects = {"slurm": ("slurm", "slurm-torque"), "gridengine": ("sge",)}.get(
            self.system, (DIALECT.get(kind, ""),)
        )
        self.dialect = self.dialects[0]
        self.launchers = {
            "slurm": ("srun",),
            "slurm-torque": ("srun",),
            "sge": ("qrsh",),
            "torque": ("pbsdsh",),
            "pbspro": ("pbs_tmrsh", "pbsdsh"),
        }[self.dialect]

    @property
    def home(self) -> Path:
        return self.head.path("/home/mara")

    @property
    def has_sbatch(self) -> bool:
        return self.dialect.startswith("slurm")

    @property
    def kills_at_once(self) -> bool:
        """Whether a job that is cancelled has no time for a last word."""
        return self.dialect in ("torque", "sge")

    # -- what a user does

    def on_head(self, command: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        ssh = ["ssh", "-F", str(self.lab.ssh_config), "head", ENVIRONMENT + command]
        return subprocess.run(ssh, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def grid(self, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        return self.on_head("exec python3 -m grid " + shlex.join(words), timeout)

    def qsub(self, *words: str, nodes: int = 1, ppn: int = 1, walltime: str = "0:03:00") -> list[str]:
        """Words of `grid qsub` for a job of so many nodes."""
        more = ["--pe", self.environment(ppn)] if self.dialect == "sge" else []
        ours = ["-v", "PYTHONPATH,GRID_RUNTIME_DIR"]  # most systems hand nothing of the environment on
        return ["qsub", *more, "-l", f"nodes={nodes}:ppn={ppn},walltime={walltime}", *ours, *words]

    def environment(self, ppn: int) -> str:
        """SGE: the parallel environment that lays out so many slots on each host."""
        return "mpi" if ppn == 2 else "mpi1"

    def pilots(self, **kw: Any) -> BatchGrid:
        given = {"walltime": 120, "poll_s": 2.0, "limits": QUICK, "wait": "all", "output": None, **kw}
        if self.dialect == "sge":
            given["parallel_environment"] = self.environment(given.get("ppn", 1))
        return BatchGrid("head", env={"GRID_RUNTIME_DIR": "/tmp/gr"}, **given)

    # -- what is left

    def is_quiet(self) -> bool:
        """Whether no process of a job runs on any node."""
        return not any(node.processes() for node in self.nodes)

    def wait_until_quiet(self, limit_s: float = 60) -> None:
        wait_until(self.is_quiet, "the nodes to be free of jobs", limit_s=limit_s)

    def litter(self) -> list[str]:
        """What is left on the nodes besides empty directories of ours."""
        kept = re.compile(r"/tmp/(gr|grid-\d+)(/(s|leases|grids))?\Z")
        return [f"{node.name}:{path}" for node in self.nodes for path in node.litter() if not kept.match(path)]

    def left_in_home(self) -> list[str]:
        """Files of jobs and pilots in the home directory, which all nodes share."""
        rooms = [self.home / ".grid" / name for name in ("spool", "pilots")]
        return [str(path) for room in rooms if room.exists() for path in room.iterdir()]

    def wait_until_tidy(self, limit_s: float = 60) -> None:
        """Until no process, no file of a job is left; some systems remove what is theirs a moment late."""
        self.wait_until_quiet(limit_s)
        end = time.monotonic() + limit_s
        while left := [*self.litter(), *self.left_in_home()]:
            assert time.monotonic() < end, left
            time.sleep(0.05)

    def jobs(self) -> list[str]:
        """Words of the user's jobs that wait or run, as the system's own command lists them."""
        ask = {
            "slurm": "squeue --noheader --user=mara --states=PD,R,CG",
            "slurm-torque": "squeue --noheader --user=mara --states=PD,R,CG",
            "sge": "qstat -u mara | tail -n +3",
        }.get(self.dialect, "qstat | tail -n +3 | awk '$5 != \"C\"'")
        return self.head.run(["bash", "-c", ask]).stdout.splitlines()

    def clear(self) -> None:
        """No job, no process, no file of jobs."""
        for line in self.jobs():
            job = line.split()[0]
            self.head.run(["scancel" if self.has_sbatch else "qdel", job])
        self.wait_until_quiet()
        self.head.run(["rm", "-rf", "work", ".grid"])
        for host in self.lab.hosts.values():
            host.run(["sh", "-c", "rm -rf /tmp/gr /tmp/grid-* /dev/shm/grid-*"])
