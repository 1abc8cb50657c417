"""Where are we in a batch job? Nodes, slots and launchers, read from what the batch system put into the environment.

Lives here: pure functions on environment and file texts; `find_allocation`, which puts them together.
Elsewhere:  starting programs on the nodes (`tasks.py`), submitting jobs (`grid/batch/`).

    system  says that it is there by      nodes and slots from                           launcher, else ssh
    pbs     PBS_JOBID or PBS_NODEFILE     $PBS_NODEFILE: one line for each slot          pbsdsh
    slurm   SLURM_JOB_ID                  SLURM_JOB_NODELIST, SLURM_TASKS_PER_NODE, ...  srun
    sge     PE_HOSTFILE (or JOB_ID)       $PE_HOSTFILE: `host slots ...` on each line    qrsh

Slurm's own qsub sets the variables of both: then the node file counts the slots and srun launches.
Sources: the manuals pbs_job_attributes, sbatch and sge_pe; `PBS_NODEFILE` as recorded from TORQUE 6.1.3, where it is
absent on all but the first node of a job.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from grid.errors import AllocationError

LAUNCHERS = {"slurm": "srun", "pbs": "pbsdsh", "sge": "qrsh"}
"""System -> its own way to start a program on a node of a job."""

CHOICE = "GRID_ALLOCATION"
"""Variable that settles which system is meant where several speak: pbs, slurm, sge or none."""

_SIGNS = {
    "slurm": ("SLURM_JOB_ID",),
    "pbs": ("PBS_NODEFILE", "PBS_JOBID"),
    "sge": ("PE_HOSTFILE",),
}
_MOST = 1_000_000
"""Nodes or slots of an allocation, at most: more is a slip, and would fill the memory."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_SHORT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]|\[[0-9, -]+\])*\Z")


@dataclass(frozen=True)
class Node:
    """One machine of an allocation and the number of our slots on it."""

    name: str
    slots: int


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
        launcher: How programs start on the other nodes: srun, pbsdsh, qrsh or ssh. Default: the system's own if its
            command is on the PATH, else ssh.
    Raises:
        AllocationError: Signs of two jobs at once, or a variable that is missing or makes no sense; the message names
            it.
    """
    system = _which_system(environ)
    if system is None:
        return None
    read = read or _read
    job = _job(environ, system)
    nodes = _nodes(environ, system, read)
    own = LAUNCHERS[system]
    if launcher is None:
        launcher = own if which(own) else "ssh"
    elif launcher not in (own, "ssh"):
        raise AllocationError(
            f"launcher {launcher!r} does not start programs in a job of {system}", hint=f"Use {own} or ssh"
        )
    elif launcher != "ssh" and not which(launcher):
        raise AllocationError(f"the command {launcher} is not on the PATH", hint="Put it there, or use ssh")
    return Allocation(system, job, nodes, launcher, _here(environ, system, nodes, hostname or socket.gethostname()))


def signs_of_jobs(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that tell of batch jobs, and their values."""
    return {name: environ[name] for names in _SIGNS.values() for name in names if environ.get(name)}


def looked_for() -> str:
    """The variables that would have told of a job, for messages."""
    return ", ".join(name for names in _SIGNS.values() for name in names)


def parse_nodefile(text: str) -> tuple[Node, ...]:
    """Nodes of a PBS_NODEFILE: a name on each line, repeated for each slot; order of the first mention kept."""
    return _count([line.strip() for line in text.splitlines() if line.strip()], "PBS_NODEFILE")


def parse_pe_hostfile(text: str) -> tuple[Node, ...]:
    """Nodes of a PE_HOSTFILE: `host slots queue processors` on each line; further fields and blank lines don't matter.

    A host with several lines (one for each queue) gets their sum.
    """
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not re.fullmatch(r"\d{1,9}", words[1]) or int(words[1]) > _MOST:
            raise AllocationError(
                f"line {number} of PE_HOSTFILE is not `host slots ...`: {line.strip()!r}",
                hint="Is the job's parallel environment set up by its administrator?",
            )
        names += [words[0]] * int(words[1])
        _check_size(len(names), "PE_HOSTFILE")
    return _count(names, "PE_HOSTFILE")


def expand_nodelist(text: str) -> list[str]:
    """Slurm's short form of names: `n[1-3,7],login` is n1, n2, n3, n7, login. Leading zeros stay.

    Source: the manual of sinfo; what `scontrol show hostnames` prints.
    """
    names: list[str] = []
    for part in _split_outside(text):
        if not _SHORT.match(part):
            raise AllocationError(f"{part!r} is no list of nodes as Slurm writes it", hint="See SLURM_JOB_NODELIST")
        grown = [""]
        for plain, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            ends = [plain] if plain else _numbers(ranges, part)
            _check_size(len(names) + len(grown) * len(ends), "SLURM_JOB_NODELIST")
            grown = [start + end for start in grown for end in ends]
        names += grown
    return names


def expand_counts(text: str) -> list[int]:
    """Slurm's short form of numbers by node: `4(x2),1` is 4, 4, 1."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\(x(\d{1,9})\))?\s*", part)
        if not match:
            raise AllocationError(f"{text!r} is no list of counts as Slurm writes it", hint="See SLURM_TASKS_PER_NODE")
        _check_size(len(counts) + int(match[2] or 1), "SLURM_TASKS_PER_NODE")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


# -- parts -------------------------------------------------------------------------------------------------------------


def _which_system(environ: Mapping[str, str]) -> str | None:
    choice = environ.get(CHOICE)
    if choice:
        if choice != "none" and choice not in _SIGNS:
            raise AllocationError(
                f"the variable {CHOICE} is {choice!r}", hint=f"It may be {', '.join(_SIGNS)}, or none"
            )
        return None if choice == "none" else choice
    found = [system for system, names in _SIGNS.items() if any(environ.get(name) for name in names)]
    if not found:
        return None
    if found == ["slurm", "pbs"] and environ.get("PBS_JOBID", environ["SLURM_JOB_ID"]) == environ["SLURM_JOB_ID"]:
        return "slurm"  # one job: that of Slurm's qsub
    if len(found) > 1:
        said = ", ".join(f"{name}={value}" for name, value in signs_of_jobs(environ).items())
        raise AllocationError(
            f"the environment tells of jobs of {' and '.join(found)} at once ({said})",
            hint=f"Say which one is meant: {CHOICE}={found[0]}",
        )
    return found[0]


def _job(environ: Mapping[str, str], system: str) -> str:
    name = {"slurm": "SLURM_JOB_ID", "pbs": "PBS_JOBID", "sge": "JOB_ID"}[system]
    return environ.get(name) or "unknown"


def _nodes(environ: Mapping[str, str], system: str, read: Callable[[str], str]) -> tuple[Node, ...]:
    if environ.get("PBS_NODEFILE") and system in ("pbs", "slurm"):
        return parse_nodefile(_content(environ, "PBS_NODEFILE", read))
    if system == "sge":
        return parse_pe_hostfile(_content(environ, "PE_HOSTFILE", read))
    if system == "pbs":
        raise AllocationError(
            f"PBS_NODEFILE is not set in job {_job(environ, system)}, so its nodes are unknown",
            hint="Only the job's first node has it: run the script there",
        )
    names = expand_nodelist(environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST") or "")
    tasks = environ.get("SLURM_TASKS_PER_NODE") if environ.get("SLURM_NTASKS") else None
    counts = expand_counts(tasks or environ.get("SLURM_JOB_CPUS_PER_NODE") or ",".join(["1"] * len(names)))
    if not names or len(counts) != len(names):
        raise AllocationError(
            f"SLURM_JOB_NODELIST names {len(names)} nodes, and slots are given for {len(counts)}",
            hint="Run the script in the batch script itself, not inside a step of srun",
        )
    return tuple(Node(name, slots) for name, slots in zip(names, counts, strict=True))


def _content(environ: Mapping[str, str], name: str, read: Callable[[str], str]) -> str:
    path = environ.get(name)
    if not path:
        raise AllocationError(f"the variable {name} is not set", hint="Run inside a job of that batch system")
    try:
        return read(path)
    except (OSError, ValueError) as exc:  # not there, or not text
        raise AllocationError(
            f"{name} names {path}, which can't be read ({getattr(exc, 'strerror', None) or exc})",
            hint="It exists on the job's first node only: run the script there",
        ) from exc


def _here(environ: Mapping[str, str], system: str, nodes: tuple[Node, ...], hostname: str) -> str | None:
    """The node whose name is ours. A shell of `salloc` or `qsub -I` may run outside of the job's nodes."""
    if system == "slurm" and environ.get("SLURMD_NODENAME"):
        hostname = environ["SLURMD_NODENAME"]
    short = hostname.partition(".")[0]
    for node in nodes:
        if node.name == hostname or node.name.partition(".")[0] == short:
            return node.name
    if system == "pbs" and environ.get("PBS_NODENUM") == "0":
        return nodes[0].name  # its name is not what the machine calls itself
    return None


def _count(names: list[str], source: str) -> tuple[Node, ...]:
    if not names:
        raise AllocationError(f"{source} names no node", hint="Ask for nodes when submitting")
    for name in names:
        if not _NAME.match(name):
            raise AllocationError(f"{source} names a node {name!r}", hint="That is no host name")
    return tuple(Node(name, slots) for name, slots in Counter(names).items())  # keeps the order of first mention


def _numbers(ranges: str, part: str) -> list[str]:
    found = []
    for each in ranges.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", each.strip())
        if not match or (match[2] and int(match[2]) - int(match[1]) not in range(_MOST)):
            raise AllocationError(f"{part!r} is no list of nodes as Slurm writes it", hint="See SLURM_JOB_NODELIST")
        width = len(match[1])
        found += [str(n).zfill(width) for n in range(int(match[1]), int(match[2] or match[1]) + 1)]
    return found


def _check_size(count: int, source: str) -> None:
    if count > _MOST:
        raise AllocationError(f"{source} tells of more than {_MOST} nodes or slots", hint="Is it really that variable?")


def _split_outside(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _read(path: str) -> str:
    return Path(path).read_text()
