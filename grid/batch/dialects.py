"""How each batch system wants to be spoken to, and what it answers. Texts in, texts out.

    torque        TORQUE 6: nodes=N:ppn=P. Written against records of 6.1.3.
    pbspro        PBS Pro, OpenPBS: select=N:ncpus=P:mpiprocs=P
    slurm         sbatch, squeue, scancel
    slurm-torque  Slurm's own qsub (package slurm-wlm-torque); asked and cancelled by Slurm's commands
    sge           gridengine: -pe NAME SLOTS

Lives here: scripts, command lines, answers, which system a machine has.
Elsewhere:  running the commands (`system.py`).
"""

from __future__ import annotations

import json
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from grid.batch.job import JobSpec, JobState, JobStatus, format_walltime, parse_walltime
from grid.errors import AllocationError, SubmitError


class Dialect(ABC):
    """One batch system's words."""

    name = ""
    mark = "#PBS"
    commands: tuple[str, ...] = ()
    """That a machine must have, to be of this kind."""

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
        raise SubmitError(
            f"the job was refused (exit status {status}): {said or 'it said nothing'}",
            hint="Ask for less, or for another queue",
            status=status,
            connection=self.is_connection_error(status, said),
        )

    _id = re.compile(r"\A(\d+(?:\[\])?(?:\.[A-Za-z0-9._-]+)?)\Z")

    def is_connection_error(self, status: int, said: str) -> bool:
        """Whether the answer means that the batch system's server could not be reached: worth another try."""
        return bool(re.search(r"cannot connect to server|Communication failure|Unable to communicate with", said))

    # -- asking

    @abstractmethod
    def status_command(self, ids: Sequence[str]) -> list[str]:
        """One command that tells of all these jobs."""

    @abstractmethod
    def parse_status(self, text: str) -> list[JobStatus]:
        """Its answer; jobs that it knows nothing of are not in it."""

    def status_failed(self, status: int, stderr: str) -> bool:
        """Whether that command's exit status means more than that some job is unknown."""
        return status != 0

    def cancel_command(self, job: str) -> list[str]:
        """Command line that ends a job."""
        return ["qdel", job]


class Torque(Dialect):
    """TORQUE."""

    name = "torque"
    commands = ("qsub", "qstat", "qdel")

    def directives(self, spec: JobSpec) -> list[str]:
        lines = [f"-N {spec.name}", f"-l {','.join(self._resources(spec))}"]
        lines += [f"-{letter} {value}" for letter, value in (("q", spec.queue), ("A", spec.account)) if value]
        lines += self._streams(spec)
        lines += [f"-W depend={spec.depend}"] if spec.depend else []
        return [*lines, "-V"] if spec.export_all else lines

    def _resources(self, spec: JobSpec) -> list[str]:
        nodes = str(spec.nodes) if spec.ppn is None or isinstance(spec.nodes, str) else f"{spec.nodes}:ppn={spec.ppn}"
        time = [f"walltime={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        return [f"nodes={nodes}", *time, *spec.resources]

    def _streams(self, spec: JobSpec) -> list[str]:
        lines = [f"-{letter} {path}" for letter, path in (("o", spec.output), ("e", spec.error)) if path]
        return [*lines, "-j oe"] if spec.join else lines

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        return ["qsub", path]

    def status_command(self, ids: Sequence[str]) -> list[str]:
        return ["qstat", "-f", *ids]

    def parse_status(self, text: str) -> list[JobStatus]:
        return [self._status(job, facts) for job, facts in _blocks(text)]

    def _status(self, job: str, facts: Mapping[str, str]) -> JobStatus:
        code = facts.get("exit_status", facts.get("Exit_status"))
        running = facts.get("job_state") in ("R", "E")
        return JobStatus(
            job,
            PBS_STATES.get(facts.get("job_state", ""), JobState.UNKNOWN),
            reason=facts.get("comment"),
            nodes=facts.get("exec_host"),
            name=facts.get("Job_Name"),
            left_s=_left(facts) if running else None,
            exit_status=int(code) if code is not None and re.fullmatch(r"-?[0-9]{1,9}", code) else None,
        )

    def status_failed(self, status: int, stderr: str) -> bool:
        return status not in (0, 153)  # 153: one of the jobs is unknown; the others are told of


class PbsPro(Torque):
    """PBS Pro and OpenPBS."""

    name = "pbspro"

    def _resources(self, spec: JobSpec) -> list[str]:
        if any(resource.startswith("select=") for resource in spec.resources):
            chunks: list[str] = []
        elif isinstance(spec.nodes, str):
            raise AllocationError(
                f"PBS Pro has no list of nodes like {spec.nodes!r}", hint="Use -l select=..., which is taken as it is"
            )
        else:
            chunks = [f"select={spec.nodes}:ncpus={spec.ppn or 1}:mpiprocs={spec.ppn or 1}"]
        time = [f"walltime={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        return [*chunks, *time, *spec.resources]

    def directives(self, spec: JobSpec) -> list[str]:
        first, resources, *others = super().directives(spec)
        return [first, *(f"-l {each}" for each in resources.removeprefix("-l ").split(",")), *others]

    def status_command(self, ids: Sequence[str]) -> list[str]:
        return ["qstat", "-x", "-f", "-F", "json", *ids]

    def parse_status(self, text: str) -> list[JobStatus]:
        try:
            jobs = json.loads(text).get("Jobs", {}) if text.strip() else {}
            return [self._status(job, _flat(facts)) for job, facts in jobs.items()]
        except (ValueError, AttributeError, RecursionError) as exc:
            raise AllocationError(f"qstat answers in another form ({exc})", hint="It was asked for JSON") from exc

    def status_failed(self, status: int, stderr: str) -> bool:
        return status not in (0, 35, 153)  # 35: a job has finished, 153: unknown


class Slurm(Dialect):
    """Slurm's own commands."""

    name = "slurm"
    mark = "#SBATCH"
    commands = ("sbatch", "squeue", "scancel")
    _id = re.compile(r"(?:\ASubmitted batch job |\A)(\d+)(?:;\S*)?\Z")

    def directives(self, spec: JobSpec) -> list[str]:
        if isinstance(spec.nodes, str):
            raise AllocationError(
                f"sbatch has no list of nodes like {spec.nodes!r}", hint="Use a number, and a line #SBATCH --nodelist"
            )
        lines = [f"--job-name={spec.name}", f"--nodes={spec.nodes}"]
        lines += [f"--ntasks-per-node={spec.ppn}"] if spec.ppn is not None else []
        lines += [f"--time={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        pairs = {
            "partition": spec.queue,
            "account": spec.account,
            "output": spec.output,
            "error": None if spec.join else spec.error,
            "dependency": spec.depend,
        }
        lines += [f"--{name}={value}" for name, value in pairs.items() if value]
        lines += [f"--{resource}" for resource in spec.resources]
        return [*lines, "--export=ALL"] if spec.export_all else lines

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        # A job that has ended badly would be started again from the beginning by default.
        return ["sbatch", "--parsable", "--no-requeue", path]

    def is_connection_error(self, status: int, said: str) -> bool:
        return bool(re.search(r"Unable to contact slurm controller|Socket timed out|Connection refused", said))

    def status_command(self, ids: Sequence[str]) -> list[str]:
        # By user and not by id: one id that is unknown any more makes squeue tell nothing at all.
        return ["sh", "-c", 'squeue --noheader --states=all --user="$(id -un)" --format="%i|%t|%r|%N|%L|%j"']

    def parse_status(self, text: str) -> list[JobStatus]:
        found = []
        for line in text.splitlines():
            if line.count("|") < 5:
                continue
            job, state, reason, nodes, left, name = line.split("|", 5)
            said = None if reason in ("None", "") else reason
            found.append(
                JobStatus(
                    job,
                    SLURM_STATES.get(state, JobState.UNKNOWN),
                    reason=said if state != "F" or said else "it failed",
                    nodes=nodes or None,
                    name=name,
                    left_s=_seconds(left) if state == "R" else None,
                )
            )
        return found

    def cancel_command(self, job: str) -> list[str]:
        return ["scancel", job]


class SlurmTorque(Slurm):
    """Slurm by its qsub; see the package slurm-wlm-torque."""

    name = "slurm-torque"
    mark = "#PBS"
    commands = ("qsub", "squeue", "scancel")

    def directives(self, spec: JobSpec) -> list[str]:
        lines = [f"-N {spec.name}", f"-l {','.join(Torque()._resources(spec))}"]
        return [*lines, f"-q {spec.queue}"] if spec.queue else lines

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        # Of the script's own lines it honours -N, -l and -q only.
        words = ["qsub"]
        output = spec.output or (f"{spec.name}.o%j" if spec.join else None)
        error = output if spec.join else spec.error
        pairs = {"-o": output, "-e": error, "-A": spec.account, "-W": f"depend={spec.depend}" if spec.depend else None}
        for option, value in pairs.items():
            words += [option, value] if value else []
        return [*words, "-V", path] if spec.export_all else [*words, path]


class Sge(Dialect):
    """SGE, Son of Grid Engine, UGE."""

    name = "sge"
    mark = "#$"
    commands = ("qsub", "qstat", "qdel", "qconf")
    _id = re.compile(r'(?:\AYour job (?=\d+ \(")|\A)(\d+)(?: \(".*"\) has been submitted)?\Z')

    def directives(self, spec: JobSpec) -> list[str]:
        if isinstance(spec.nodes, str):
            raise AllocationError(f"SGE has no list of nodes like {spec.nodes!r}", hint="Use a number of slots")
        lines = [f"-N {spec.name}", "-S /bin/sh"]
        slots = spec.slots or 1
        if slots > 1 or spec.parallel_environment:
            if not spec.parallel_environment:
                raise AllocationError(
                    f"SGE gives {slots} slots through a parallel environment only, and none is named",
                    hint="`qconf -spl` lists them; name one: --pe NAME, or a line `#$ -pe NAME SLOTS`",
                )
            lines.append(f"-pe {spec.parallel_environment} {slots}")
        limits = [f"h_rt={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        lines += [f"-l {each}" for each in [*limits, *spec.resources]]
        pairs = {"q": spec.queue, "P": spec.account, "o": spec.output, "e": spec.error, "hold_jid": _any_end(spec)}
        lines += [f"-{option} {value}" for option, value in pairs.items() if value]
        lines += ["-j y"] if spec.join else []
        return [*lines, "-V"] if spec.export_all else lines

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        return ["qsub", "-terse", path]

    def is_connection_error(self, status: int, said: str) -> bool:
        return "unable to contact qmaster" in said or "unable to send message to qmaster" in said

    def status_command(self, ids: Sequence[str]) -> list[str]:
        return ["sh", "-c", 'qstat -u "$(id -un)"']

    def parse_status(self, text: str) -> list[JobStatus]:
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 8 and words[0].isdigit():
                state = next((to for mark, to in SGE_STATES if mark in words[4]), JobState.UNKNOWN)
                found.append(JobStatus(words[0], state, reason=words[4], name=words[2]))
        return found


PBS_STATES = {
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
    "X": JobState.DONE,
    "M": JobState.UNKNOWN,  # moved to another server
}
SLURM_STATES = {
    **dict.fromkeys(("PD", "CF", "RQ", "RF", "RS"), JobState.QUEUED),
    **dict.fromkeys(("RH", "SE"), JobState.HELD),
    **dict.fromkeys(("R", "S", "ST", "SI"), JobState.RUNNING),
    **dict.fromkeys(("CG", "SO"), JobState.EXITING),
    **dict.fromkeys(("CD", "CA", "F", "TO", "NF", "OOM", "PR", "BF", "DL", "RV"), JobState.DONE),
}
SGE_STATES = (
    ("d", JobState.EXITING),
    ("E", JobState.HELD),
    ("h", JobState.HELD),
    ("r", JobState.RUNNING),
    ("t", JobState.RUNNING),
    ("s", JobState.RUNNING),
    ("q", JobState.QUEUED),
)
"""A state's letter, in order of precedence: `hqw` is held, `dr` is ending."""

DIALECTS: dict[str, Dialect] = {each.name: each for each in (Torque(), PbsPro(), Slurm(), SlurmTorque(), Sge())}

DETECT = r"""
for c in qsub qstat qdel qconf sbatch squeue scancel; do
    p=$(command -v "$c" 2>/dev/null) && printf 'has %s %s\n' "$c" "$p"
done
q=$(command -v qsub 2>/dev/null) && head -c 4096 "$q" 2>/dev/null | grep -qi slurm && echo 'qsub is slurm'
s=$(command -v qstat 2>/dev/null) && ! head -c 4096 "$s" 2>/dev/null | grep -qi slurm && "$s" --version 2>&1 |
    head -n 3 | sed 's/^/version /'
:
"""
"""Shell text that finds out what a machine has; `choose_dialect` reads its answer."""


def choose_dialect(answer: str, *, prefer: str = "slurm") -> Dialect:
    """Which system a machine has, by what `DETECT` printed there.

    Args:
        prefer: Of Slurm's two faces, the one that is meant: slurm or slurm-torque.
    Raises:
        AllocationError: None, with what was looked for; or two.
    """
    has = set(re.findall(r"^has (\S+) ", answer, re.M))
    version = "\n".join(re.findall(r"^version (.*)$", answer, re.M))
    found: list[str] = []
    if "sbatch" in has and "squeue" in has:
        found.append("slurm")
    if "qsub" in has and "qsub is slurm" in answer:
        if prefer == "slurm-torque" or not found:
            found = ["slurm-torque"]
    elif "qsub" in has:
        if "qconf" in has:
            found.append("sge")
        elif "pbs_version" in version:
            found.append("pbspro")
        else:
            found.append("torque")
    if not found:
        looked = ", ".join(sorted({command for dialect in DIALECTS.values() for command in dialect.commands}))
        raise AllocationError(
            f"no batch system was found (looked for {looked} on the PATH)",
            hint="Is this the machine where jobs are submitted? A `module load` may be needed",
        )
    if len(found) > 1:
        raise AllocationError(
            f"both {found[0]} and {found[1]} are here", hint=f"Say which one is meant: GRID_DIALECT={found[0]}"
        )
    return DIALECTS[found[0]]


def _blocks(text: str) -> Iterable[tuple[str, dict[str, str]]]:
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


def _any_end(spec: JobSpec) -> str | None:
    """What SGE's -hold_jid takes: it can only wait for the end of a job, good or bad."""
    kind, _, jobs = (spec.depend or "").rpartition(":")
    if kind not in ("", "afterany"):
        raise AllocationError(
            f"SGE knows no {kind}: a job can only wait for the end of others", hint=f"Use depend=afterany:{jobs}"
        )
    return jobs.replace(":", ",") or None


def _left(facts: Mapping[str, str]) -> float | None:
    remaining = facts.get("Walltime.Remaining", "")
    if re.fullmatch(r"[0-9]{1,9}", remaining):
        return float(remaining)
    try:
        asked = parse_walltime(facts["Resource_List.walltime"])
    except (KeyError, ValueError, AllocationError):  # not asked for, or not said as a time
        return None
    used = _seconds(facts.get("resources_used.walltime", "0"))
    return None if used is None else asked - used


def _flat(facts: Mapping[str, object], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{before}{key}."))
        else:
            flat[before + key] = str(value)
    return flat


def _seconds(text: str) -> float | None:
    """Seconds of `[D-][[HH:]MM:]SS`; None for what is no time, such as UNLIMITED."""
    if not re.fullmatch(r"(?:[0-9]{1,6}-)?[0-9]{0,9}(?::[0-9]{0,9}){0,2}", text):
        return None
    days, _, clock = text.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part or 0)
    return float(total + int(days or 0) * 86400)
