"""Where are we in a batch job? Whose is it, which nodes and slots has it, how do programs start there?

Lives here: `find_allocation`, which asks the batch systems in turn.
Elsewhere:  what each of them puts into the environment (`batch_systems/`), starting programs on the nodes (`tasks.py`),
            submitting jobs (`grid/batch/`).

Signs of two systems at once are refused, but for one case: Slurm's own qsub sets the variables of both. And a job that
was submitted from inside another inherits what its own system does not set; each system believes only what is its own.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from grid.batch_systems import DIALECTS, Dialect, Node
from grid.batch_systems.known import job_systems
from grid.batch_systems.nodes import read_text
from grid.errors import AllocationError

CHOICE = "GRID_ALLOCATION"
"""Variable that chooses between several systems: pbs, slurm, sge, the name of a dialect, or none."""


@dataclass(frozen=True)
class Allocation:
    """One batch job's machines. `here` is the node that this process runs on, None on a machine outside of the job."""

    system: str
    job: str
    nodes: tuple[Node, ...]
    launcher: str
    here: str | None

    @property
    def slots(self) -> int:
        """How many there are in all."""
        return sum(node.slots for node in self.nodes)


def find_allocation(
    environ: Mapping[str, str],
    *,
    launcher: str | None = None,
    which: Callable[[str], str | None] = shutil.which,
    read: Callable[[str], str] | None = None,
    hostname: str | None = None,
) -> Allocation | None:
    """The batch job that this process is in; None if there is no sign of one.

    Args:
        launcher: How programs start on the other nodes: srun, pbsdsh, pbs_tmrsh, qrsh or ssh. Default: the system's own
            if its command is on the PATH, else ssh.
    Raises:
        AllocationError: Signs of two jobs at once, or a variable that is missing or makes no sense; the message names
            it.
    """
    system = _which_system(environ)
    if system is None:
        return None
    hostname = hostname or socket.gethostname()
    nodes = system.nodes(environ, read or read_text, hostname)
    return Allocation(
        system.name,
        system.job(environ),
        nodes,
        _launcher(system, launcher, which),
        system.here(environ, nodes, hostname),
    )


def signs_of_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell of batch jobs, and their values."""
    return {name: environ[name] for name in _signs() if environ.get(name)}


def looked_for() -> str:
    """The variables that would have told of a job, for messages."""
    return ", ".join(_signs())


def _signs() -> list[str]:
    return list(dict.fromkeys(name for dialect in DIALECTS.values() for name in dialect.signs))


def _launcher(system: Dialect, asked: str | None, which: Callable[[str], str | None]) -> str:
    own = [each.name for each in system.launchers]
    if asked is None:
        return next((name for name in own if which(name)), "ssh")
    if asked not in (*own, "ssh"):
        raise AllocationError(
            f"launcher {asked!r} does not start programs in a job of {system.family or system.name}",
            hint=f"Use {' or '.join([*own, 'ssh'])}",
        )
    if asked != "ssh" and not which(asked):
        raise AllocationError(f"the command {asked} is not on the PATH", hint="Put it there, or use ssh")
    return asked


def _which_system(environ: Mapping[str, str]) -> Dialect | None:
    found = job_systems(environ)
    choice = environ.get(CHOICE)
    if choice == "none":
        return None
    if choice:
        meant = [each for each in found if choice in (each.name, each.family)]
        known = [each for each in DIALECTS.values() if choice in (each.name, each.family)]
        if not known:
            names = dict.fromkeys(each.family or each.name for each in DIALECTS.values())
            raise AllocationError(f"the variable {CHOICE} is {choice!r}", hint=f"It may be {', '.join(names)}, or none")
        return (meant or known)[0]
    if not found:
        return None
    families = [each.family or each.name for each in found]
    if sorted(families) == ["pbs", "slurm"] and _is_slurms_own(environ):
        return found[families.index("slurm")]
    if len(found) > 1:
        families.sort(key=lambda name: name != "slurm")
        said = ", ".join(f"{name}={value}" for name, value in signs_of_jobs(environ).items())
        raise AllocationError(
            f"the environment tells of jobs of {' and '.join(families)} at once ({said})",
            hint=f"Say which one is meant: {CHOICE}={families[0]}",
        )
    return found[0]


def _is_slurms_own(environ: Mapping[str, str]) -> bool:
    """Whether PBS's variables beside Slurm's are those of Slurm's qsub, of this job or of one around it.

    The ids of PBS have a server's name behind a dot, and its moms set variables that Slurm's plugin does not.
    """
    job = environ.get("PBS_JOBID", "")
    return (not job or "." not in job) and not any(name in environ for name in ("PBS_JOBCOOKIE", "PBS_MOMPORT"))
