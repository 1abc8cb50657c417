"""What TORQUE and PBS share: `qstat -f`, the node file, the letters of states. One came from the other, long ago.

Lives here: `Pbs`, from which both are made.
Elsewhere:  where they differ (`torque.py`, `openpbs.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from grid.batch_systems.dialect import Answer, Dialect
from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome, format_walltime, parse_walltime, seconds_of
from grid.batch_systems.nodes import Node, content_of, count_nodes
from grid.errors import AllocationError

STATES = {
    "Q": JobState.QUEUED,
    "W": JobState.QUEUED,  # waits for its time
    "T": JobState.QUEUED,  # on its way to another server
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "S": JobState.RUNNING,  # suspended: it holds its nodes
    "U": JobState.RUNNING,
    "B": JobState.RUNNING,  # an array that has begun
    "E": JobState.EXITING,
    "C": JobState.DONE,
    "F": JobState.DONE,
    "X": JobState.DONE,  # an element of an array that has ended
    "M": JobState.UNKNOWN,  # moved to another server
}

_BY_SIGNAL = (128, 256)
"""A shell adds 128 to a signal's number, the moms of both systems add 256: 143 and 271 are SIGTERM."""

_OF_ONE_JOB = re.compile(r"Unknown Job Id|Job has finished|Unauthorized Request|not configured to maintain job history")
"""Lines of qstat on stderr that are about one job, or about jobs that have ended: the others are told of."""


class Pbs(Dialect):
    """A system with qsub, qstat and qdel as PBS had them."""

    family = "pbs"
    signs = ("PBS_NODEFILE", "PBS_JOBID")
    job_variable = "PBS_JOBID"
    commands = ("qsub", "qstat", "qdel")

    def directives(self, spec: JobSpec) -> list[str]:
        """The lines `#PBS ...` of a script, without that word; the user's own lines come last."""
        lines = [f"-N {spec.name}", *(f"-l {each}" for each in self.resources(spec))]
        lines += [f"-{letter} {value}" for letter, value in (("q", spec.queue), ("A", spec.account)) if value]
        lines += [f"-{letter} {path}" for letter, path in (("o", spec.output), ("e", spec.error)) if path]
        lines += ["-j oe"] if spec.join else []
        lines += [f"-W depend={spec.depend}"] if spec.depend else []
        if not self._says_restart(spec):
            lines.append(f"-r {'y' if self.restarts(spec) else 'n'}")
        return [*lines, "-V"] if spec.export_all else lines

    def resources(self, spec: JobSpec) -> list[str]:
        """What stands behind each `-l`."""
        time = [f"walltime={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        return [",".join([f"nodes={nodes_word(spec)}", *time, *spec.resources])]

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        """`qsub` with the script's path."""
        return ["qsub", path]

    def restarts(self, spec: JobSpec) -> bool:
        """Whether the job starts again when its node fails: `-r`, the last one that is said."""
        said = self._says_restart(spec)
        return spec.may_restart if not said else said[-1] == "y"

    def _says_restart(self, spec: JobSpec) -> list[str]:
        return [match[1] for line in spec.lines if (match := re.search(r"#PBS\s.*-r\s*([yn])\b", line))]

    # -- asking

    def status_command(self, ids: Sequence[str]) -> list[str]:
        """`qstat -f` for these ids; with `-t` where one is an array."""
        # TORQUE lists all jobs when it is asked for `12[]` without -t.
        arrays = ["-t"] if any("[]" in job for job in ids) else []
        return ["qstat", "-f", *arrays, *ids]

    def read(self, answers: Sequence[Answer]) -> list[JobStatus]:
        """The states in all answers; a job that is hidden from us counts as known."""
        found = super().read(answers)
        known = {status.id for status in found}
        for answer in answers:
            for job in re.findall(r"Unauthorized Request\s+(?:MSG=.*\s)?(\S+)$", answer.stderr, re.M):
                if job not in known:
                    found.append(
                        JobStatus(job, JobState.UNKNOWN, reason="it is another user's, which is not shown here")
                    )
        return found

    def parse_status(self, text: str) -> list[JobStatus]:
        """The jobs in the text of `qstat -f`."""
        return [self._status(job, facts) for job, facts in blocks(text)]

    def _status(self, job: str, facts: Mapping[str, str]) -> JobStatus:
        state = STATES.get(facts.get("job_state", ""), JobState.UNKNOWN)
        code = facts.get("exit_status", facts.get("Exit_status"))
        status = int(code) if code is not None and re.fullmatch(r"-?[0-9]{1,9}", code) else None
        return JobStatus(
            job,
            state,
            reason=self._reason(state, status, facts),
            nodes=facts.get("exec_host"),
            name=facts.get("Job_Name"),
            left_s=_left(facts) if state in (JobState.RUNNING, JobState.EXITING) else None,
            exit_status=status,
            outcome=self.outcome(status, facts) if state is JobState.DONE else None,
        )

    def _reason(self, state: JobState, status: int | None, facts: Mapping[str, str]) -> str | None:
        """In a job's own life its comment; at its end what its exit status means, and where its output is left."""
        said = []
        if state is JobState.DONE and status is not None:
            said.append(self.meaning_of(status))
        if facts.get("sched_hint"):
            said.append(facts["sched_hint"])
        return "; ".join(word for word in said if word) or facts.get("comment")

    def meaning_of(self, status: int) -> str:
        """What an exit status says beyond its number."""
        for base in _BY_SIGNAL:
            if base < status < base + 65:
                return f"it was ended by signal {status - base}"
        return ""

    def outcome(self, status: int | None, facts: Mapping[str, str]) -> Outcome | None:
        """How a job ended."""
        if status is None:
            return None
        if status == 0:
            return Outcome.DONE
        return Outcome.KILLED if status < 0 or self.meaning_of(status) else Outcome.FAILED

    def status_failed(self, status: int, stderr: str) -> bool:
        """Whether `qstat` failed as such; exit statuses 35 and 153 only say that jobs are unknown or finished."""
        said = [line for line in stderr.splitlines() if line.strip()]
        return status != 0 and not (status in (35, 153) or (said and all(_OF_ONE_JOB.search(line) for line in said)))

    # -- inside of a job

    def nodes(self, environ: Mapping[str, str], read: Callable[[str], str], hostname: str) -> tuple[Node, ...]:
        """The job's nodes and their slots, from PBS_NODEFILE. AllocationError: there is none, or it can't be read."""
        if not environ.get("PBS_NODEFILE"):
            raise AllocationError(
                f"PBS_NODEFILE is not set in job {self.job(environ)}, so its nodes are unknown",
                hint="Only the job's first node has it: run the script there",
            )
        return parse_nodefile(content_of(environ, "PBS_NODEFILE", read))

    def here(self, environ: Mapping[str, str], nodes: Sequence[Node], hostname: str) -> str | None:
        """The name of this node in PBS_NODEFILE; told by PBS_NODENUM where its own name is not in it."""
        found = super().here(environ, nodes, hostname)
        if found is None and environ.get("PBS_NODENUM") == "0":
            return nodes[0].name  # its name is not what the machine calls itself
        return found

    pilot_hosts = """awk '!seen[$0]++' "$PBS_NODEFILE\""""


def nodes_word(spec: JobSpec) -> str:
    """What stands behind `nodes=`."""
    return str(spec.nodes) if spec.ppn is None or isinstance(spec.nodes, str) else f"{spec.nodes}:ppn={spec.ppn}"


def parse_nodefile(text: str) -> tuple[Node, ...]:
    """Nodes of a PBS_NODEFILE: a name on each line, repeated for each slot; order of the first mention kept."""
    return count_nodes([line.strip() for line in text.splitlines() if line.strip()], "PBS_NODEFILE")


def is_torque(environ: Mapping[str, str]) -> bool:
    """Whether the variables of a PBS job are TORQUE's. Source: environments of jobs of 6.1.3, and of OpenPBS 23.06."""
    version = environ.get("PBS_VERSION", "")
    return version.startswith("TORQUE") or any(name in environ for name in ("PBS_VNODENUM", "PBS_NP", "PBS_NUM_PPN"))


def is_openpbs(environ: Mapping[str, str]) -> bool:
    """Whether they are those of PBS."""
    ours = ("PBS_JOBDIR", "PBS_O_SYSTEM", "PBS_O_INTERACTIVE_AUTH_METHOD")
    return not is_torque(environ) and any(name in environ for name in ours)


def blocks(text: str) -> Iterable[tuple[str, dict[str, str]]]:
    """Jobs of `qstat -f`: `Job Id: ID`, then `    key = value` lines; long ones go on behind newline and tab."""
    for block in re.split(r"^Job Id:\s*", text, flags=re.M)[1:]:
        head, _, rest = block.partition("\n")
        facts: dict[str, str] = {}
        key = ""
        for line in rest.splitlines():
            match = re.match(r"[ \t]+([A-Za-z_][\w.]*) = (.*)\Z", line)
            if match:
                key = match[1]
                facts[key] = match[2]
            elif key and line.startswith("\t"):
                facts[key] += line[1:]
        yield head.strip(), facts


def _left(facts: Mapping[str, str]) -> float | None:
    remaining = facts.get("Walltime.Remaining", "")
    if re.fullmatch(r"[0-9]{1,9}", remaining):
        return float(remaining)
    try:
        asked = parse_walltime(facts["Resource_List.walltime"])
    except (KeyError, ValueError, AllocationError):  # not asked for, or not said as a time
        return None
    used = seconds_of(facts.get("resources_used.walltime", "0"))
    return None if used is None else asked - used
