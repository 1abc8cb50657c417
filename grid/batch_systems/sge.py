"""SGE: Son of Grid Engine, UGE and the rest. Written against gridengine 8.1.9.

slots       through a parallel environment only, which an administrator has made: -pe NAME SLOTS
nodes       $PE_HOSTFILE; a job of one slot has none, and is on this host
launcher    qrsh -inherit, which needs a parallel environment with control_slaves TRUE
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from grid.batch_systems.dialect import Dialect, Launcher, Seen
from grid.batch_systems.job import JobSpec, JobState, JobStatus, format_walltime
from grid.batch_systems.nodes import MOST, Node, check_size, content_of, count_nodes
from grid.errors import AllocationError

WARNING = "${SGE_TASK_ID:+USR2}"
"""Shell word: the signal that Grid Engine sends before SIGKILL to a job that asks for a warning (`-notify`), nothing in
jobs of others. It comes to all of a process group, and qrsh hands it on: what we start ignores it (`SPARED`), and the
shell above says SIGTERM instead. SIGKILL comes to all that has the job's group id, so nothing is left to clear up."""

SPARED = '[ -z "$SGE_TASK_ID" ] || trap "" USR2'
"""Shell text: what is started from now on ignores that signal."""

STATES = (
    ("d", JobState.EXITING),
    ("E", JobState.HELD),
    ("h", JobState.HELD),
    ("r", JobState.RUNNING),
    ("t", JobState.RUNNING),
    ("s", JobState.RUNNING),
    ("q", JobState.QUEUED),
)
"""A state's letter, in order of precedence: `hqw` is held, `dr` is ending."""


class Sge(Dialect):
    """SGE, Son of Grid Engine, UGE."""

    name = family = "sge"
    title = "Grid Engine"
    mark = "#$"
    commands = ("qsub", "qstat", "qdel", "qconf")
    signs = ("PE_HOSTFILE", "SGE_TASK_ID", "SGE_JOB_SPOOL_DIR")
    job_variable = "JOB_ID"
    job_id = re.compile(r"\d{1,18}(?:\.\d{1,18})?(?:\.[A-Za-z][A-Za-z0-9._-]*)?\Z")
    _id = re.compile(r'(?:\AYour job(?:-array)? (?=\d+[. ])|\A)(\d+)(?:\.[\d:-]+)?(?: \(".*"\) has been submitted)?\Z')

    def is_here(self, seen: Seen) -> bool:
        """Whether both `qsub` and `qconf` exist, and `qsub` is not a part of Slurm."""
        return "qsub" in seen.commands and "qconf" in seen.commands and not seen.qsub_is_slurm

    # -- submitting

    def directives(self, spec: JobSpec) -> list[str]:
        """The lines `#$ ...` of a script, without that word. AllocationError: nodes are named, or no environment is."""
        if isinstance(spec.nodes, str):
            raise AllocationError(f"SGE has no list of nodes like {spec.nodes!r}", hint="Use a number of slots")
        lines = [f"-N {spec.name}", "-S /bin/sh", "-notify"]
        slots = spec.slots or 1
        named = [line for line in spec.lines if re.search(r"#\$\s.*-pe\s", line)]
        if not named and (slots > 1 or spec.parallel_environment):
            if not spec.parallel_environment:
                raise AllocationError(
                    f"SGE gives {slots} slots through a parallel environment only, and none is named",
                    hint="`qconf -spl` lists them; name one: --pe NAME, or a line `#$ -pe NAME SLOTS`; "
                    'for BatchGrid parallel_environment="NAME"',
                )
            lines.append(f"-pe {spec.parallel_environment} {slots}")
        limits = [f"h_rt={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        lines += [f"-l {each}" for each in [*limits, *spec.resources]]
        pairs = {"q": spec.queue, "P": spec.account, "o": spec.output, "e": spec.error, "hold_jid": _any_end(spec)}
        lines += [f"-{option} {value}" for option, value in pairs.items() if value]
        lines += ["-j y"] if spec.join else []
        lines.append(f"-r {'y' if self.restarts(spec) else 'n'}")
        return [*lines, "-V"] if spec.export_all else lines

    def script(self, spec: JobSpec) -> str:
        """Refuses what would become a directive: SGE, unlike others, looks for them in all of the script."""
        text = super().script(spec)
        wanted = len(self.directives(spec)) + sum(
            line.startswith(self.mark) for lines in spec.lines for line in lines.split("\n")
        )
        if sum(line.startswith(self.mark) for line in text.split("\n")) != wanted:
            raise AllocationError(
                f"a variable, an argument or the work directory has a line that begins with {self.mark!r}, "
                "which SGE would take for a directive",
                hint="Put that text into a file, and name the file",
            )
        return text

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        """`qsub -terse`: it prints the job's id and nothing else."""
        return ["qsub", "-terse", path]

    def restarts(self, spec: JobSpec) -> bool:
        """Whether the job starts again when its node fails: `-r y`."""
        return spec.may_restart or any(re.search(r"#\$\s.*-r\s+y", line) for line in spec.lines)

    def is_connection_error(self, status: int, said: str) -> bool:
        """Whether the qmaster was not reached; another attempt may help."""
        return "unable to contact qmaster" in said or "unable to send message to qmaster" in said

    def hint(self, said: str) -> str:
        """Where the parallel environments are listed."""
        if "parallel environment" in said:
            return "`qconf -spl` lists the parallel environments that there are"
        return super().hint(said)

    # -- asking

    def status_command(self, ids: Sequence[str]) -> list[str]:
        """`qstat` for the user: one id that is unknown makes it tell nothing of the others."""
        return ["sh", "-c", 'qstat -u "$(id -un)"']

    def parse_status(self, text: str) -> list[JobStatus]:
        """The jobs in the table of `qstat`; a job that has ended is not in it.

        Of an array each task that runs has a row, `12.3`, and all that wait have one, `12.5-9:2`.
        """
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) >= 8 and words[0].isdigit():
                state = next((to for mark, to in STATES if mark in words[4]), JobState.UNKNOWN)
                at = next((word.partition("@")[2] for word in words[7:] if "@" in word), None)
                task = "".join(f".{word}" for word in words[8 if at is None else 9 :][:1])  # behind the slots
                found.append(JobStatus(words[0] + task, state, reason=words[4], nodes=at, name=words[2]))
        return found

    def covers(self, job: str, row: str) -> bool:
        """Tasks that wait share a row."""
        task = self.task_of(job)
        if task is None:
            return True
        for span in row.partition(".")[2].split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+):(\d+))?", span)
            if match and task in range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1)):
                return True
        return False

    def task_of(self, job: str) -> int | None:
        """`12.3` is the task 3 of the array 12."""
        match = re.match(r"\d+\.(\d+)\Z", job)
        return int(match[1]) if match else None

    # -- inside of a job

    def speaks(self, environ: Mapping[str, str]) -> bool:
        """Whether these variables were set by Grid Engine: PE_HOSTFILE, or JOB_ID with its own."""
        return bool(environ.get("PE_HOSTFILE")) or ("JOB_ID" in environ and super().speaks(environ))

    def nodes(self, environ: Mapping[str, str], read: Callable[[str], str], hostname: str) -> tuple[Node, ...]:
        """The job's nodes and their slots, from PE_HOSTFILE; without a parallel environment this node with one."""
        if not environ.get("PE_HOSTFILE"):
            return (Node(hostname, 1),)  # without a parallel environment a job has one slot, and it is here
        return parse_pe_hostfile(content_of(environ, "PE_HOSTFILE", read))

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """`qrsh -inherit`, which carries streams, and takes the command as words of its own."""
        return (
            Launcher(
                "qrsh", lambda node, environ: ["qrsh", "-inherit", "-V", node], carries_streams=True, splits_words=True
            ),
        )

    # -- pilots

    def pilot_lines(self, nodes: int) -> str:
        """Shell text: `qrsh -inherit` for each node of PE_HOSTFILE."""
        return f"""\
if [ -z "$PE_HOSTFILE" ]; then
    start /bin/sh "$here/rank.sh" 0
elif command -v qrsh >/dev/null 2>&1; then
    rank=0
    for host in $(awk 'NF && !seen[$1]++ {{ print $1 }}' "$PE_HOSTFILE"); do
        if [ $rank = 0 ]; then start /bin/sh "$here/rank.sh" 0
        else start qrsh -inherit "$host" /bin/sh "$here/rank.sh" $rank
        fi
        rank=$((rank + 1))
        [ $rank -lt {nodes} ] || break
    done
    has=$rank  # how slots are laid out over hosts is the parallel environment's affair
    while [ $rank -lt {nodes} ]; do
        echo "the parallel environment laid the slots of this job out on $has hosts, not {nodes}" >$rank/stderr
        echo 76 >$rank/status
        rank=$((rank + 1))
    done
else
    over $(awk 'NF && !seen[$1]++ {{ print $1 }}' "$PE_HOSTFILE")
fi"""


def parse_pe_hostfile(text: str) -> tuple[Node, ...]:
    """Nodes of a PE_HOSTFILE: `host slots queue processors` on each line; further fields and blank lines don't matter.

    A host with several lines (one for each queue) gets their sum.
    """
    names = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2 or not re.fullmatch(r"\d{1,9}", words[1]) or int(words[1]) > MOST:
            raise AllocationError(
                f"line {number} of PE_HOSTFILE is not `host slots ...`: {line.strip()!r}",
                hint="Is the job's parallel environment set up by its administrator?",
            )
        names += [words[0]] * int(words[1])
        check_size(len(names), "PE_HOSTFILE")
    return count_nodes(names, "PE_HOSTFILE")


def _any_end(spec: JobSpec) -> str | None:
    """What SGE's -hold_jid takes: it can only wait for the end of a job, good or bad."""
    word, colon, rest = (spec.depend or "").partition(":")
    kind, jobs = (word, rest) if colon and word.isalpha() else ("", spec.depend or "")
    if kind not in ("", "afterany"):
        raise AllocationError(
            f"SGE knows no {kind}: a job can only wait for the end of others", hint=f"Use depend=afterany:{jobs}"
        )
    return jobs.replace(":", ",") or None
