"""How many cores of this machine are ours: by affinity, by the quota of a container or job, by the share of a job.

Lives here: affinity, cgroups of both versions, what batch systems say.
Elsewhere:  all that a host has (`find`), who starts so many (`grids/choose.py`, `tasks/manager.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def quota(cpu_max: str) -> float | None:
    """Cores that a cgroup may use, from its `cpu.max` ("200000 100000"); None without a limit."""
    allowed, _, period = cpu_max.strip().partition(" ")
    if not allowed.isdecimal() or not period.isdecimal() or not int(period):
        return None
    return int(allowed) / int(period)


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, at least 1: by its affinity, and by the quota of its cgroups and those above.

    Args:
        root: Where /proc and /sys are.
    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for text in in_force(root, "cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        if (limit := quota(text)) is not None:
            cores = min(cores, limit)
    return max(1, int(cores))


def count_cores(environ: Mapping[str, str], slots: int, root: Path = Path("/")) -> int:
    """How many cores are ours, as `find` would say, without a look at anything else."""
    cores, share = usable_cores(root), share_of_cores(environ, slots)
    return cores if share is None else min(cores, share)


def share_of_cores(environ: Mapping[str, str], slots: int) -> int | None:
    """How many cores of this host the batch job has, as its system says; None: it does not say."""
    number = environ.get
    if (text := number("SLURM_CPUS_ON_NODE", "")).isdecimal():
        return max(1, int(text))
    if (text := number("SLURM_CPUS_PER_TASK", "")).isdecimal():
        return max(1, int(text) * slots)
    if "PBS_JOBID" in environ and (text := number("NCPUS", "")).isdecimal():
        return max(1, int(text))
    return None


def in_force(root: Path, controller: str, *files: tuple[str, ...]) -> Iterator[str]:
    """What these files say (those of one tuple together) of our cgroup of a controller and of all above it.

    Within a container its own group is the top of the tree.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    tree = root / "sys/fs/cgroup"
    for line in groups:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        parts = [part for part in own.split("/") if part and part != ".."]
        tops = [tree, tree / "unified"] if not controllers else [tree / controllers, tree / controller]
        for top in tops:
            for end in range(len(parts) + 1):
                place = top.joinpath(*parts[:end])
                for names in files:
                    try:
                        yield " ".join((place / name).read_text().strip() for name in names)
                    except OSError:
                        continue
