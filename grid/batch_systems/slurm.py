"""Slurm by its own commands. What our tests run on: 22.05.

squeue         asked by user, because one id that is unknown any more makes it tell nothing at all
srun           one step for each program, beside those that run (--overlap). It reads dozens of variables as
               options, and a job that was submitted from inside another inherits them: it gets none of them
variables      SLURM_JOB_* are always this job's. SLURM_NTASKS, PBS_NODEFILE and the like may be those of the job
               from which ours was submitted, and count only where they agree with the others
het jobs       SLURM_HET_SIZE components, each with nodes of its own: SLURM_JOB_NODELIST_HET_GROUP_0, ...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from grid.batch_systems.dialect import Answer, Dialect, Launcher, Seen
from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome, format_walltime, seconds_of
from grid.batch_systems.nodes import MOST, Node, check_size, same_machine
from grid.errors import AllocationError

STATES = {
    **dict.fromkeys(("PD", "CF", "RQ", "RF", "RS"), JobState.QUEUED),
    **dict.fromkeys(("RH", "SE"), JobState.HELD),
    **dict.fromkeys(("R", "S", "ST", "SI"), JobState.RUNNING),
    **dict.fromkeys(("CG", "SO"), JobState.EXITING),
    **dict.fromkeys(("CD", "CA", "F", "TO", "NF", "OOM", "PR", "BF", "DL", "RV"), JobState.DONE),
}
OUTCOMES = {
    "CD": (Outcome.DONE, None),
    "CA": (Outcome.CANCELLED, None),
    "F": (Outcome.FAILED, "it failed"),
    "TO": (Outcome.KILLED, "its walltime was up"),
    "NF": (Outcome.KILLED, "a node of it died"),
    "OOM": (Outcome.KILLED, "it used more memory than it had asked for"),
    "PR": (Outcome.KILLED, "another job took its place"),
    "BF": (Outcome.FAILED, "its nodes did not boot"),
    "DL": (Outcome.KILLED, "its deadline passed"),
}
"""What squeue calls an end -> how the job ended, and in words where squeue has none."""

FORMAT = "%i|%t|%r|%N|%L|%j"
_QUESTION = f'squeue --noheader --states=all --format="{FORMAT}"'

_KEPT = re.compile(
    r"SLURM_(CONF|CLUSTER_NAME|JOB_ID|JOBID|JOB_UID|JOB_USER|JOB_NAME|JOB_NODELIST|NODELIST|JOB_NUM_NODES|NNODES|"
    r"SUBMIT_DIR|SUBMIT_HOST|WORKING_CLUSTER|JWT|HET_SIZE|JOB_ID_HET_GROUP_\d+|JOB_NODELIST_HET_GROUP_\d+|"
    r"TOPOLOGY_ADDR|ARRAY_\w+|RESTART_COUNT|SPANK_\w+)\Z"
)
"""Variables that srun may have: which job, and where its controller is. All others are options of somebody's."""

_SHORT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]|\[[0-9, -]+\])*\Z")


class Slurm(Dialect):
    """Slurm's own commands."""

    name = family = "slurm"
    title = "Slurm"
    mark = "#SBATCH"
    commands = ("sbatch", "squeue", "scancel")
    signs = ("SLURM_JOB_ID",)
    job_variable = "SLURM_JOB_ID"
    job_id = re.compile(r"\d{1,18}(?:[_+](?:\d{1,18}|\[[0-9,:%-]+\]))?(?:\.[A-Za-z0-9._-]+)?\Z")
    _id = re.compile(r"(?:\ASubmitted batch job |\A)(\d+)(?:;\S*)?\Z")

    def is_here(self, seen: Seen) -> bool:
        """Whether `sbatch` and `squeue` exist."""
        return {"sbatch", "squeue"} <= seen.commands

    # -- submitting

    def directives(self, spec: JobSpec) -> list[str]:
        """The lines `#SBATCH ...` of a script, without that word. AllocationError: a list of nodes."""
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
        lines += [f"--{resource.removeprefix('--')}" for resource in spec.resources]
        return [*lines, "--export=ALL"] if spec.export_all else lines

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        """`sbatch --parsable`, with `--requeue` or `--no-requeue` said: sites have defaults of their own."""
        # A job that has ended badly would be started again from the beginning by default.
        return ["sbatch", "--parsable", "--requeue" if self.restarts(spec) else "--no-requeue", path]

    def restarts(self, spec: JobSpec) -> bool:
        """Whether the job starts again when its node fails: `--requeue`."""
        return spec.may_restart or any(re.search(r"#SBATCH\s.*--requeue\b", line) for line in spec.lines)

    def is_connection_error(self, status: int, said: str) -> bool:
        """Whether the controller was not reached; another attempt may help."""
        return bool(re.search(r"Unable to contact slurm controller|Socket timed out|Connection refused", said))

    # -- asking

    def question(self, ids: Sequence[str], answers: Sequence[Answer]) -> list[str] | None:
        """First `squeue` for the user; then each job that it did not name; then `scontrol` for exit statuses."""
        if not answers:
            return self.status_command(ids)
        last = answers[-1]
        if self.status_failed(last.status, last.stderr):
            return None
        if len(answers) == 1:  # others' jobs; an unknown id spoils nothing where the question names it alone
            told = {self.base_of(status.id) for status in self.parse_status(last.stdout)}
            missing = [self.base_of(job) for job in ids if self.base_of(job) not in told]
            if missing:
                each = "; ".join(f"{_QUESTION} --jobs={job} 2>/dev/null" for job in dict.fromkeys(missing[:20]))
                return ["sh", "-c", f"{each}; :"]
        if not last.stdout.startswith("EXIT"):
            bases = {self.base_of(job) for job in ids}
            told_of = [status for answer in answers for status in self.parse_status(answer.stdout)]
            ended = [status.id for status in told_of if status.outcome is not None and self.base_of(status.id) in bases]
            if ended:
                each = "; ".join(f"scontrol -o show job {job} 2>/dev/null" for job in dict.fromkeys(ended[:50]))
                # One line for each job: `JobId=3 ... ExitCode=3:0 ...`
                return ["sh", "-c", f'echo EXIT; {{ {each}; }} | grep -o "^JobId=[0-9]*\\| ExitCode=[0-9]*:[0-9]*"; :']
        return None

    def read(self, answers: Sequence[Answer]) -> list[JobStatus]:
        """The states in all answers, with the exit statuses of `scontrol` where there are any."""
        exits = [answer for answer in answers if answer.stdout.startswith("EXIT")]
        found = super().read([answer for answer in answers if answer not in exits])
        codes = {
            job: (int(code), int(signal))
            for answer in exits
            for job, code, signal in re.findall(r"JobId=(\d+)\s+ExitCode=(\d+):(\d+)", answer.stdout)
        }
        return [self._with_code(status, codes) for status in found]

    def _with_code(self, status: JobStatus, codes: Mapping[str, tuple[int, int]]) -> JobStatus:
        code, signal = codes.get(status.id, (None, 0))
        if code is None:
            return status
        reason = status.reason
        if signal and status.outcome is Outcome.FAILED:
            reason = f"it was ended by signal {signal}" if code == 0 else reason
            if (code, signal) == (0, 53):
                reason = "it did not start: its output could not be opened, or its directory is not there"
        return JobStatus(
            status.id,
            status.state,
            reason=reason,
            nodes=status.nodes,
            name=status.name,
            exit_status=128 + signal if signal and not code else code,
            outcome=status.outcome,
        )

    def status_command(self, ids: Sequence[str]) -> list[str]:
        """`squeue` for the user, in a format of ours with `|` between the fields."""
        # By user and not by id: one id that is unknown any more makes squeue tell nothing at all.
        return ["sh", "-c", f'{_QUESTION} --user="$(id -un)"']

    def parse_status(self, text: str) -> list[JobStatus]:
        """The jobs in the answer of `squeue`."""
        found = []
        for line in text.splitlines():
            if line.count("|") < 5:
                continue
            job, state, reason, nodes, left, name = line.split("|", 5)
            outcome, in_words = OUTCOMES.get(state, (None, None))
            said = None if reason in ("None", "") else reason
            found.append(
                JobStatus(
                    job,
                    STATES.get(state, JobState.UNKNOWN),
                    reason=in_words if said is None or (outcome is Outcome.KILLED and in_words) else said,
                    nodes=nodes or None,
                    name=name,
                    left_s=seconds_of(left) if state == "R" else None,
                    outcome=outcome,
                )
            )
        return found

    def base_of(self, job: str) -> str:
        """`12_3` is a task of the array 12, `12+1` a component of the heterogeneous job 12."""
        return re.split(r"[._+]", job, maxsplit=1)[0]

    def covers(self, job: str, row: str) -> bool:
        """Tasks that wait share a row, `12_[3-7,9%2]`; a component `12+1` has its own."""
        task = self.task_of(job)
        if "+" in job:
            return row == job
        if task is None or "[" not in row:
            return super().covers(job, row)
        spans = (part.partition("-") for part in re.sub(r"%\d+", "", row.partition("[")[2].rstrip("]")).split(","))
        return any(int(first) <= task <= int(last or first) for first, _, last in spans)

    def task_of(self, job: str) -> int | None:
        """`12_3` is the task 3 of the array 12."""
        match = re.match(r"\d+_(\d+)", job)
        return int(match[1]) if match else None

    def cancel_command(self, job: str) -> list[str]:
        """`scancel`, without the cluster's name behind the id."""
        return ["scancel", job.partition(".")[0]]

    # -- inside of a job

    def nodes(self, environ: Mapping[str, str], read: Callable[[str], str], hostname: str) -> tuple[Node, ...]:
        """The job's nodes and slots, of all parts of a heterogeneous job. AllocationError: they can't be read."""
        groups = _het_groups(environ)
        found: dict[str, int] = {}
        for suffix in [f"_HET_GROUP_{number}" for number in range(groups)] or [""]:
            for node in self._nodes_of(environ, suffix):
                found[node.name] = found.get(node.name, 0) + node.slots
        return tuple(Node(name, slots) for name, slots in found.items())

    def _nodes_of(self, environ: Mapping[str, str], suffix: str) -> tuple[Node, ...]:
        names = expand_nodelist(environ.get(f"SLURM_JOB_NODELIST{suffix}") or environ.get("SLURM_NODELIST") or "")
        counts = self._counts(environ, suffix, names)
        if not names or len(counts) != len(names):
            raise AllocationError(
                f"SLURM_JOB_NODELIST{suffix} names {len(names)} nodes, and slots are given for {len(counts)}",
                hint="Run the script in the batch script itself, not inside a step of srun",
            )
        return tuple(Node(name, slots) for name, slots in zip(names, counts, strict=True))

    def _counts(self, environ: Mapping[str, str], suffix: str, names: Sequence[str]) -> list[int]:
        """Slots by node: of the tasks that were asked for; where none were, of the processors that the job has."""
        tasks = environ.get(f"SLURM_TASKS_PER_NODE{suffix}") or environ.get("SLURM_TASKS_PER_NODE" if suffix else "")
        said = expand_counts(tasks) if tasks else []
        asked = {environ.get(f"SLURM_NTASKS{suffix}"), environ.get(f"SLURM_NPROCS{suffix}")}
        per_node = environ.get(f"SLURM_NTASKS_PER_NODE{suffix}")
        # Of the numbers that may have come from an outer job only those count that agree with what is ours for sure.
        if len(said) == len(names) and (str(sum(said)) in asked or (per_node == str(max(said, default=0)))):
            return said
        processors = environ.get(f"SLURM_JOB_CPUS_PER_NODE{suffix}")
        if processors:
            return expand_counts(processors)
        return said or [1] * len(names)

    def here(self, environ: Mapping[str, str], nodes: Sequence[Node], hostname: str) -> str | None:
        """The name of this node: SLURMD_NODENAME, else the host's own."""
        return super().here(environ, nodes, environ.get("SLURMD_NODENAME") or hostname)

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """`srun`, which carries streams."""
        return (Launcher("srun", _srun, carries_streams=True, without=_is_option),)

    # -- pilots

    pilot_hosts = 'scontrol show hostnames "$SLURM_JOB_NODELIST" 2>/dev/null'

    def pilot_lines(self, nodes: int) -> str:
        """Shell text: one `srun` for all nodes, without the job's own options in its environment."""
        return f"""\
if command -v srun >/dev/null 2>&1; then
    for name in $(env | sed -n 's/^\\(S[A-Z]*_[A-Za-z0-9_]*\\)=.*/\\1/p'); do
        case $name in
        SLURM_CONF|SLURM_CLUSTER_NAME|SLURM_JOB_ID|SLURM_JOBID|SLURM_JOB_NODELIST|SLURM_NODELIST|SLURM_JOB_NUM_NODES) ;;
        SLURM_SUBMIT_*|SLURM_JWT) ;;
        SLURM_*|SRUN_*) unset "$name" ;;
        esac
    done
    start srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --overlap --kill-on-bad-exit=0 --cpu-bind=none \\
        --mpi=none --export=ALL /bin/sh "$here/rank.sh"
else
    over $({self.pilot_hosts})
fi"""


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
            check_size(len(names) + len(grown) * len(ends), "SLURM_JOB_NODELIST")
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
        check_size(len(counts) + int(match[2] or 1), "SLURM_TASKS_PER_NODE")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _srun(node: str, environ: Mapping[str, str]) -> list[str]:
    job, group = environ.get("SLURM_JOB_ID", ""), _group_of(node, environ)
    words = [
        "srun",
        *([f"--het-group={group}"] if group is not None else []),
        "--overlap",
        "--nodes=1",
        "--ntasks=1",
        f"--nodelist={node}",
        "--export=ALL",
    ]
    return [*words, "--cpu-bind=none", "--mpi=none", "--unbuffered", "--quiet", *([f"--jobid={job}"] if job else [])]


def _group_of(node: str, environ: Mapping[str, str]) -> int | None:
    """Which component of a heterogeneous job has a node. A step there needs the first one's id, and this number."""
    for number in range(_het_groups(environ)):
        names = expand_nodelist(environ.get(f"SLURM_JOB_NODELIST_HET_GROUP_{number}", ""))
        if any(same_machine(name, node) for name in names):
            return number
    return None


def _het_groups(environ: Mapping[str, str]) -> int:
    """How many components the job has; 0 for an ordinary one, also where the variables are those of an outer job."""
    size = environ.get("SLURM_HET_SIZE", "")
    if not re.fullmatch(r"\d{1,4}", size) or environ.get("SLURM_JOB_ID_HET_GROUP_0") != environ.get("SLURM_JOB_ID"):
        return 0
    return int(size)


def _is_option(name: str) -> bool:
    return name.startswith(("SLURM_", "SRUN_")) and not _KEPT.match(name)


def _numbers(ranges: str, part: str) -> list[str]:
    found = []
    for each in ranges.split(","):
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", each.strip())
        if not match or (match[2] and int(match[2]) - int(match[1]) not in range(MOST)):
            raise AllocationError(f"{part!r} is no list of nodes as Slurm writes it", hint="See SLURM_JOB_NODELIST")
        width = len(match[1])
        found += [str(n).zfill(width) for n in range(int(match[1]), int(match[2] or match[1]) + 1)]
    return found


def _split_outside(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]
