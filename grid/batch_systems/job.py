"""A batch job before and after it is submitted: what it asks for, what is said of it. No system's own words.

Lives here: `JobSpec`, `JobStatus`, `JobState`, `Outcome`, times as batch systems write them.
Elsewhere:  each system's words (`torque.py`, `openpbs.py`, `slurm.py`, ...).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum

from grid.errors import AllocationError

_TIME = re.compile(r"(?:(?:(?:(\d+)-)?(\d+):)?(\d+):)?(\d+)\Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._+-]{0,62}\Z")
_NODES = re.compile(r"[A-Za-z0-9._:=+-]+\Z")
_RESOURCE = re.compile(r"(--)?[A-Za-z_][A-Za-z0-9_.]*(=[^\s,'\"`$\\;&|<>]+)?\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class JobState(Enum):
    """Where a job is, in words that all systems share."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    EXITING = "exiting"
    DONE = "done"  # that it has ended is all that this says, never that it did well
    UNKNOWN = "unknown"  # the system does not know it, or any more


class Outcome(Enum):
    """How a job ended, as far as its batch system tells. The best of them comes first."""

    DONE = "done"  # its script ended with status 0
    FAILED = "failed"  # with another; or it never began, or its node died
    KILLED = "killed"  # by its limits or by a signal
    CANCELLED = "cancelled"  # by somebody


@dataclass(frozen=True)
class JobStatus:
    """What the batch system says of one job; None where it says nothing."""

    id: str
    state: JobState
    reason: str | None = None  # why it is queued or held, or how it ended
    nodes: str | None = None
    name: str | None = None
    left_s: float | None = None  # of its walltime
    exit_status: int | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a job asks for. Everything is checked at once; AllocationError names field and reason.

    Args:
        command: What it runs: text for a POSIX shell.
        name: A letter, then letters, digits and `._+-`.
        nodes: A number, or a list as TORQUE writes it (`n1:ppn=2+n2:ppn=1`), taken as it is.
        ppn: Slots on each node; None leaves it to the system.
        walltime_s: Seconds it may run; None is the queue's default.
        resources: More of what it needs, as the system writes it: `mem=2gb`, `--gres=gpu:1`.
        output, error: Paths of files; join: both streams into the first.
        variables: Environment variables, set by the script itself: batch systems lose commas, quotes and newlines, and
            show to everybody what stands on the command line.
        export_all: Hand the submitter's whole environment to the job (`qsub -V`).
        depend: As the system writes it: `afterok:12`.
        lines: Directives, verbatim, in front of the script.
        parallel_environment: SGE only: the name of its `-pe`.
        may_restart: Whether the system may start the script again from the beginning after a node died or the job was
            preempted. Lines of the user's own that say so count as well.
    """

    command: str
    name: str = "grid"
    nodes: int | str = 1
    ppn: int | None = 1
    walltime_s: float | None = None
    resources: tuple[str, ...] = ()
    queue: str | None = None
    account: str | None = None
    output: str | None = None
    error: str | None = None
    join: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    export_all: bool = False
    depend: str | None = None
    lines: tuple[str, ...] = ()
    workdir: str | None = None
    parallel_environment: str | None = None
    may_restart: bool = False

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise _wrong("name", self.name, "must start with a letter, then letters, digits and ._+-, 63 at most")
        if isinstance(self.nodes, str):
            if not _NODES.match(self.nodes):
                raise _wrong("nodes", self.nodes, "must be a number, or like n1:ppn=2+n2:ppn=1")
        elif isinstance(self.nodes, bool) or self.nodes < 1:
            raise _wrong("nodes", self.nodes, "must be at least 1")
        if self.ppn is not None and self.ppn < 1:
            raise _wrong("ppn", self.ppn, "must be at least 1")
        if self.walltime_s is not None and not self.walltime_s > 0:
            raise _wrong("walltime", self.walltime_s, "must be more than 0")
        for resource in self.resources:
            if not _RESOURCE.match(resource):
                raise _wrong("-l", resource, "must be NAME=VALUE, without blanks, quotes and the like")
        for name in ("queue", "account", "depend", "output", "error", "parallel_environment"):
            value = getattr(self, name)
            if value is not None and (not value or re.search(r"[\s'\"`$\\;&|<>()]", value)):
                raise _wrong(name, value, "must have no blanks, quotes and the like: batch systems break there")
        for name in self.variables:
            if not _VARIABLE.match(name):
                raise _wrong("variable", name, "is not the name of an environment variable")
        for line in self.lines:
            if "\n" in line:
                raise _wrong("line", line, "is more than one")

    @property
    def slots(self) -> int | None:
        """How many in all; None where the system decides."""
        return self.nodes * self.ppn if isinstance(self.nodes, int) and self.ppn is not None else None


def parse_walltime(value: str | float) -> float:
    """Seconds of a walltime: a number, or text `SS`, `MM:SS`, `HH:MM:SS`, `D-HH:MM:SS`.

    Source: the manuals of qsub (TORQUE) and sbatch, but that sbatch takes a bare number for minutes.

    Raises:
        AllocationError: Another form, or nothing left of it.
    """
    if isinstance(value, str):
        match = _TIME.match(value.strip())
        if not match:
            raise _wrong("walltime", value, "must be seconds, MM:SS, HH:MM:SS or D-HH:MM:SS")
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        value = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if isinstance(value, bool) or not value > 0 or math.isinf(value):
        raise _wrong("walltime", value, "must be more than 0")
    return float(value)


def format_walltime(seconds: float) -> str:
    """`HH:MM:SS`, rounded up to whole seconds: every system understands it."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def seconds_of(text: str) -> float | None:
    """Seconds of `[D-][[HH:]MM:]SS`; None for what is no time, such as UNLIMITED."""
    if not re.fullmatch(r"(?:[0-9]{1,6}-)?[0-9]{0,9}(?::[0-9]{0,9}){0,2}", text):
        return None
    days, _, clock = text.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part or 0)
    return float(total + int(days or 0) * 86400)


def _wrong(what: str, value: object, why: str) -> AllocationError:
    return AllocationError(f"{what} {value!r} {why}", hint="See the page of your batch system in docs/batch")
