"""What grid needs to know of a batch system, in one class: a subclass, in a file of its own, is a batch system.

Lives here: `Dialect`, the parts that most systems share; `Launcher`; `Seen`, `Answer`.
Elsewhere:  the systems (`torque.py`, `openpbs.py`, `slurm.py`, `slurm_torque.py`, `sge.py`), the list of them and a
            site's own (`known.py`), running the commands (`batch/system.py`).

A dialect is texts in, texts out: it runs nothing, reads no file but by the function it is handed, and has no state. It
answers four questions:

    submitting  What does a script look like, what submits it, which id did it get?
    asking      Which command tells of jobs, which one comes next, what do the answers mean?
    inside      Is this environment that of a job? Which nodes and slots has it, how does a program start on a node?
    pilots      What does a job's script say to run a program once on each of its nodes?

A site adds its own by an entry point of group `grid.batch_systems` that names a subclass: see docs/batch/own.md.
"""

from __future__ import annotations

import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome
from grid.batch_systems.nodes import Node, same_machine
from grid.errors import AllocationError, SubmitError

NO_VARIABLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Answer:
    """One command of a batch system, and what came of it."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Seen:
    """What a machine has, as `known.DETECT` found it."""

    commands: frozenset[str]
    version: str = ""
    """First lines of `qstat --version`, unless qstat is one of Slurm's."""
    qsub_is_slurm: bool = False


@dataclass(frozen=True)
class Launcher:
    """A system's own way to start a program on a node of the job that we are in.

    Args:
        name: The command, which must be on the PATH; what `Host.ssh` says.
        carries_streams: Whether input and output of the program are those of the command. Where not, they are files in
            a directory that all nodes see (`launch/spool.py`).
        splits_words: Whether the words that it is given go through a shell, as with rsh: then they must be plain.
        may_be_killed: Whether that harms nobody but the program it has started.
        words: (node, environment of the job) -> what stands before the program's own words.
        without: Variables of the job that would change what the command does.
    """

    name: str
    words: Callable[[str, Mapping[str, str]], list[str]]
    carries_streams: bool = False
    splits_words: bool = False
    may_be_killed: bool = True
    without: Callable[[str], bool] = field(default=lambda name: False)


class Dialect(ABC):
    """One batch system's words."""

    name = ""
    title = ""
    """As people call it."""
    mark = "#PBS"
    commands: tuple[str, ...] = ()
    """That a machine must have, to be of this kind."""
    family = ""
    """What $GRID_ALLOCATION may say as well, where several dialects have the same jobs: `pbs`, `slurm`."""
    signs: tuple[str, ...] = ()
    """Variables of which each tells that we are in a job of this system."""
    job_variable = ""
    """The one that has the job's id."""

    # -- which machines have it

    def is_here(self, seen: Seen) -> bool:
        """Whether a machine submits to this system."""
        return seen.commands.issuperset(self.commands)

    # -- submitting

    def script(self, spec: JobSpec) -> str:
        """The job's script: directives, the user's own lines, then a POSIX shell's part."""
        parts = ["#!/bin/sh", *(f"{self.mark} {line}" for line in self.directives(spec)), *spec.lines, ""]
        if spec.workdir is not None:
            parts.append(f"cd {shlex.quote(spec.workdir)} || exit 1")
        parts += [f"export {name}={shlex.quote(value)}" for name, value in spec.variables.items()]
        return "\n".join([*parts, spec.command.rstrip("\n"), ""])

    @abstractmethod
    def directives(self, spec: JobSpec) -> list[str]:
        """What stands behind the mark, line by line."""

    @abstractmethod
    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        """Command line that submits the script at `path`."""

    def parse_submit(self, status: int, stdout: str, stderr: str) -> str:
        """The job's id.

        Raises:
            SubmitError: It was refused; with the system's own words.
        """
        lines = [line.strip() for line in stdout.splitlines() if line.strip()]
        found = self._id.search(lines[-1]) if lines else None
        if status == 0 and found:
            return found[1]
        said = "\n".join(part.strip() for part in (stderr, stdout) if part.strip())
        down = self.is_connection_error(status, said)
        raise SubmitError(
            f"the job was refused (exit status {status}): {said or 'it said nothing'}",
            hint=self._hint_when_down if down else self.hint(said),
            status=status,
            connection=down,
        )

    _id = re.compile(r"\A(\d+(?:\[\])?(?:\.[A-Za-z0-9._-]+)?)\Z")
    _hint_when_down = "Its server does not answer: is it down? Nothing was submitted; try again later"

    def hint(self, said: str) -> str:
        """What to do next about a refusal."""
        return "Ask for less, or for another queue"

    def is_connection_error(self, status: int, said: str) -> bool:
        """Whether the answer means that the batch system's server could not be reached: worth another try."""
        return bool(re.search(r"[Cc]annot connect to server|Communication failure|Unable to communicate with", said))

    def is_forbidden(self, said: str) -> bool:
        """Whether the answer means that the job is somebody else's."""
        return bool(re.search(r"Unauthorized Request|ermission denied|not have the necessary privileges", said))

    def restarts(self, spec: JobSpec) -> bool:
        """Whether the system may start the script of such a job once more, from the beginning."""
        return spec.may_restart

    # -- asking

    job_id = re.compile(r"\d{1,18}(?:\[\d*\])?(?:\.[A-Za-z0-9._-]+)?\Z")

    def is_job_id(self, text: str) -> bool:
        """Whether this can be the id of a job: other words mean queues or servers, and tell of everybody's jobs."""
        return bool(self.job_id.match(text))

    def question(self, ids: Sequence[str], answers: Sequence[Answer]) -> list[str] | None:
        """The next command to run to learn of these jobs, by what was answered so far; None: no more."""
        return None if answers else self.status_command(ids)

    def read(self, answers: Sequence[Answer]) -> list[JobStatus]:
        """What the answers say; jobs that the system knows nothing of are not in it.

        Raises:
            AllocationError: The system did not tell; with its own words.
        """
        found: list[JobStatus] = []
        for answer in answers:
            if self.status_failed(answer.status, answer.stderr):
                said = (answer.stderr.strip() or answer.stdout.strip())[-500:]
                raise AllocationError(
                    f"the batch system does not tell of its jobs (exit status {answer.status}): {said}",
                    hint="Its server may be down; jobs that run go on",
                )
            found += self.parse_status(answer.stdout)
        return found

    @abstractmethod
    def status_command(self, ids: Sequence[str]) -> list[str]:
        """One command that tells of all these jobs."""

    @abstractmethod
    def parse_status(self, text: str) -> list[JobStatus]:
        """Its answer; jobs that it knows nothing of are not in it."""

    def status_failed(self, status: int, stderr: str) -> bool:
        """Whether that command's exit status means more than that some job is unknown."""
        return status != 0

    def base_of(self, job: str) -> str:
        """The job that a row is about: `12.vm` and `12` are the same, `35[1].vm` is a part of `35[].vm`."""
        return re.sub(r"\[\d+\]", "[]", job).partition(".")[0]

    def covers(self, job: str, row: str) -> bool:
        """Whether a row about `row`, with the same `base_of`, tells of that job: it is the job's own, or a part's."""
        task = self.task_of(job)
        return task is None or self.task_of(row) == task

    def task_of(self, job: str) -> int | None:
        """Which task of an array an id names; None: it names no single one."""
        match = re.match(r"\d+\[(\d+)\]", job)
        return int(match[1]) if match else None

    def cancel_command(self, job: str) -> list[str]:
        """Command line that ends a job."""
        return ["qdel", job]

    def never_runs(self, status: JobStatus) -> bool:
        """Whether the system says of a job that waits that no node could ever serve it."""
        return False

    # -- inside of a job

    def speaks(self, environ: Mapping[str, str]) -> bool:
        """Whether the environment is that of a job of this system."""
        return any(environ.get(name) for name in self.signs)

    def job(self, environ: Mapping[str, str]) -> str:
        """The id of the job that the environment tells of."""
        return environ.get(self.job_variable) or "unknown"

    @abstractmethod
    def nodes(self, environ: Mapping[str, str], read: Callable[[str], str], hostname: str) -> tuple[Node, ...]:
        """Nodes and slots of the job that we are in, the first node first.

        Raises:
            AllocationError: A variable or file is missing or makes no sense; the message names it.
        """

    def here(self, environ: Mapping[str, str], nodes: Sequence[Node], hostname: str) -> str | None:
        """The node that we are on; None on a machine that is none of them."""
        return next((node.name for node in nodes if same_machine(node.name, hostname)), None)

    def variables_of_servers(self, environ: Mapping[str, str], slots: int) -> dict[str, str]:
        """Variables of which a server needs another value than the job has: its share of what a node's slots share.

        Args:
            environ: The job's; empty for a job that is still to come.
            slots: Servers on that node.
        """
        return {}

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """Ways to start a program on a node, the best first: the first one whose command exists is taken."""
        return ()

    # -- pilots

    def pilot_lines(self, nodes: int) -> str:
        """Shell text for a job's script: runs `/bin/sh "$here/rank.sh" RANK` once on each of its nodes, all in the
        background. The script waits for them, and hands SIGTERM on.

        RANK counts nodes from 0, and must be 0 on the node that runs the script. Shell functions that help: `start
        COMMAND...` runs a launcher in the background, for the node that $rank says or for all; `over HOST...` starts
        rank.sh on each of its arguments by ssh, on the first one without.
        """
        return f"over $({self.pilot_hosts})"

    pilot_hosts = "hostname"
    """Shell text that prints the names of the job's nodes, one a line."""


def worst(statuses: Sequence[JobStatus], job: str) -> JobStatus:
    """The parts of one job as one: it runs if a part runs, and has ended when all have, as the worst of them did."""
    states = {status.state for status in statuses}
    state = next((each for each in _ORDER if each in states), JobState.UNKNOWN)
    outcomes = [status.outcome for status in statuses if status.outcome is not None]
    codes = [status.exit_status for status in statuses if status.exit_status is not None]
    first = next((status for status in statuses if status.state is state), statuses[0])
    ended = state is JobState.DONE
    return JobStatus(
        job,
        state,
        reason=first.reason,
        nodes="+".join(dict.fromkeys(status.nodes for status in statuses if status.nodes)) or None,
        name=first.name,
        left_s=min((status.left_s for status in statuses if status.left_s is not None), default=None),
        exit_status=max(codes, key=lambda code: (code != 0, code)) if codes and ended else None,
        outcome=max(outcomes, key=list(Outcome).index) if outcomes and ended else None,
    )


_ORDER = (JobState.RUNNING, JobState.EXITING, JobState.QUEUED, JobState.HELD, JobState.DONE, JobState.UNKNOWN)
