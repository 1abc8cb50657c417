"""The private kernel of a batch job: its nodes as hosts of a grid that lives exactly as long as the job.

Lives here: which hosts, with how many servers, by which launcher, in which environment.
Elsewhere:  reading the job's variables (`launch/allocation.py`), starting there (`launch/tasks.py`), jobs that a grid
            submits itself (`batch.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from grid.batch_systems import DIALECTS
from grid.errors import AllocationError
from grid.hosts import Host
from grid.launch.allocation import Allocation, find_allocation, looked_for

_OF_ONE_TASK = {
    *("PBS_NODENUM", "PBS_TASKNUM", "PBS_VNODENUM", "PBS_JOBCOOKIE", "PBS_MOMPORT", "HOSTNAME", "HOST", "PWD"),
    *("OLDPWD", "SHLVL", "_", "TMPDIR", "TMP", "TEMP", "DISPLAY", "XAUTHORITY", "TERM"),
    *("XDG_RUNTIME_DIR", "XDG_SESSION_ID"),
}
"""Variables that are true of one task or machine only."""
_OF_ONE_TASK_PREFIXES = ("SSH_", "SLURM_TASK", "SLURM_STEP", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_PROCID", "SLURMD_")


def allocation_hosts(
    *,
    launcher: str | None = None,
    servers_per_node: int | None = None,
    init_cmd: str = "",
    python: str | None = None,
    temp_path: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Host]:
    """The nodes of the batch job that we are in, as hosts: one server for each slot.

    Args:
        launcher: How kernels start on the other nodes: `srun`, `pbsdsh`, `pbs_tmrsh`, `qrsh` or `ssh`. Default: the
            batch system's own where its command is on the PATH, else ssh.
        servers_per_node: Instead of the slots that the job has there.
        init_cmd: Runs before the interpreter on each node; see `Host`.
        python: The interpreter; default the one that runs this script, which the nodes are taken to see as well.
        temp_path: Directory on the nodes for staged files.
    Raises:
        AllocationError: There is no job, or its variables make no sense.
    """
    environ = os.environ if environ is None else environ
    allocation = find_allocation(environ, launcher=launcher)
    if allocation is None:
        raise AllocationError(
            f"this process is in no batch job (looked for {looked_for()})",
            hint="Submit the script with `grid qsub`, or use Grid.auto(), which works anywhere",
        )
    return [
        Host(
            node.name,
            temp_path,
            n_cpu=servers_per_node or node.slots,
            python=python or sys.executable,
            init_cmd=init_cmd,
            env=({} if ssh == "local" else job_environment(environ)) | shares(environ, allocation.system, node.slots),
            ssh=ssh,
        )
        for node in allocation.nodes
        for ssh in [_way(allocation, node.name)]
    ]


def shares(environ: Mapping[str, str], system: str, slots: int) -> dict[str, str]:
    """What a server gets otherwise than the job: see `Dialect.variables_of_servers`."""
    return DIALECTS[system].variables_of_servers(environ, slots)


def job_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What servers on other nodes get of the script's environment: all that is not true of one task or machine only.

    Tasks of pbsdsh and log-ins by ssh start with next to nothing: no PATH of modules, no LD_LIBRARY_PATH.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in _OF_ONE_TASK and not name.startswith(_OF_ONE_TASK_PREFIXES) and name.isidentifier()
    }


def _way(allocation: Allocation, node: str) -> str:
    if node == allocation.here:
        return "local"
    return "paramiko" if allocation.launcher == "ssh" else allocation.launcher
