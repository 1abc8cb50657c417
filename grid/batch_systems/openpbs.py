"""PBS Pro and OpenPBS. Written against records of 23.06.06 and of its git of April 2026.

asking          without -x first, which tells of what waits or runs; what it leaves out by -x. On a server as it is
                installed there is no history: then -x tells of nothing, and says so with exit status 0. The text
                of `qstat -f` and not its JSON, which in git tells of the first of several jobs only
nodes=2:ppn=4   is made `select=2:ncpus=4:mpiprocs=4` with `place=scatter` by the server. Chunks of a bare `select`
                may all land on one node; `nodes` beside `select` or `place` is refused
qsub -f         without it qsub hands jobs to a process in the background, which submits them when a hung server
                goes on, even if we have given up
launchers       pbs_tmrsh HOST; pbsdsh -n INDEX counts lines of the node file. There is no -u, and -h is in no
                release up to 23.06.06
-r n            else the script begins again on other nodes when its first one dies; an array with it is refused
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from grid.batch_systems.dialect import Answer, Launcher, Seen
from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome, format_walltime
from grid.batch_systems.nodes import Node, read_text, same_machine
from grid.batch_systems.pbs import Pbs, is_openpbs, nodes_word, parse_nodefile
from grid.errors import AllocationError

_AUX = "/var/spool/pbs/aux"
"""Where node files lie; a task on a job's first node has no PBS_NODEFILE, but there is one."""


class OpenPbs(Pbs):
    """PBS Pro and OpenPBS."""

    name = "pbspro"
    title = "PBS"

    def is_here(self, seen: Seen) -> bool:
        """Whether `qsub` answers as OpenPBS or PBS Pro: its version says `pbs_version`."""
        return "qsub" in seen.commands and not seen.qsub_is_slurm and "pbs_version" in seen.version

    def resources(self, spec: JobSpec) -> list[str]:
        """Values of `-l`: walltime, the user's own, and `select=` unless the user says where nodes come from."""
        time = [f"walltime={format_walltime(spec.walltime_s)}"] if spec.walltime_s is not None else []
        others = [*spec.resources, *(match for line in spec.lines for match in re.findall(r"-l\s*(\S+)", line))]
        own = [name for each in others for name in re.findall(r"(?:^|,)(select|place|nodes)=", each)]
        if "select" in own or "nodes" in own:
            chunks: list[str] = []
        elif "place" in own and spec.ppn is not None and not isinstance(spec.nodes, str):
            chunks = [f"select={spec.nodes}:ncpus={spec.ppn}:mpiprocs={spec.ppn}"]  # `nodes` is refused beside it
        else:
            chunks = [f"nodes={nodes_word(spec)}"]
        return [*chunks, *time, *spec.resources]

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        """`qsub -f`: it stays in the foreground, so that a failure is its exit status."""
        return ["qsub", "-f", path]

    def restarts(self, spec: JobSpec) -> bool:
        """Arrays always may: PBS refuses one that may not."""
        return super().restarts(spec) or any(re.search(r"#PBS\s.*-J\s", line) for line in spec.lines)

    def hint(self, said: str) -> str:
        """What to do about words that `select=` excludes."""
        if "cannot be used with" in said:
            return "Put it into the chunk: -l select=2:ncpus=4:mpiprocs=4:mem=8gb, or ask for nodes=2:ppn=4 instead"
        return super().hint(said)

    # -- asking

    def question(self, ids: Sequence[str], answers: Sequence[Answer]) -> list[str] | None:
        """First the jobs that are queued or run; then, for those that it no longer knows, its history (`-x`)."""
        if not answers:
            return self.status_command(ids)
        if len(answers) > 1 or self.status_failed(answers[0].status, answers[0].stderr):
            return None
        told = {self.base_of(status.id) for status in self.parse_status(answers[0].stdout)}
        missing = [job for job in ids if self.base_of(job) not in told]
        if not missing:
            return None
        first, *others = self.status_command(missing)
        return [first, "-x", *others]

    def meaning_of(self, status: int) -> str:
        """-29: the walltime was up."""
        return "its walltime was up" if status == -29 else super().meaning_of(status)

    def outcome(self, status: int | None, facts: Mapping[str, str]) -> Outcome | None:
        """Substate 91 is a job that somebody deleted, 92 one that never ran; else the exit status tells."""
        if facts.get("substate") == "91":
            return Outcome.CANCELLED
        if status is None and facts.get("substate") == "92":
            return Outcome.FAILED  # it never ran: what it depended on failed
        return super().outcome(status, facts)

    def never_runs(self, status: JobStatus) -> bool:
        """Whether PBS says of a queued job that it `Can Never Run`."""
        return status.state is JobState.QUEUED and (status.reason or "").startswith("Can Never Run")

    # -- inside of a job

    def variables_of_servers(self, environ: Mapping[str, str], slots: int) -> dict[str, str]:
        """PBS sets the threads of every process to all processors of the chunk."""
        threads, processors = environ.get("OMP_NUM_THREADS"), environ.get("NCPUS")
        if not environ:
            return {"OMP_NUM_THREADS": "1"}  # one processor for each slot is what pilots ask for
        if threads and threads == processors and threads.isdigit() and slots > 1:
            return {"OMP_NUM_THREADS": str(max(1, int(threads) // slots))}
        return {}

    def speaks(self, environ: Mapping[str, str]) -> bool:
        """Whether these variables were set by OpenPBS and not by TORQUE."""
        return super().speaks(environ) and is_openpbs(environ)

    def nodes(self, environ: Mapping[str, str], read: Callable[[str], str], hostname: str) -> tuple[Node, ...]:
        """The job's nodes and slots, from PBS_NODEFILE or else from `qstat -f`. AllocationError: neither tells."""
        if not environ.get("PBS_NODEFILE") and environ.get("PBS_JOBID"):
            try:
                return parse_nodefile(read(f"{_AUX}/{environ['PBS_JOBID']}"))
            except (OSError, ValueError):
                pass  # PBS is elsewhere
        return super().nodes(environ, read, hostname)

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """`pbs_tmrsh` by name, then `pbsdsh` by the node's number in PBS_NODEFILE."""
        return (
            Launcher("pbs_tmrsh", lambda node, environ: ["pbs_tmrsh", node]),
            Launcher("pbsdsh", lambda node, environ: ["pbsdsh", "-n", str(index_of(node, environ))]),
        )

    def pilot_lines(self, nodes: int) -> str:
        """Shell text: one `pbsdsh` for each node, else `pbs_tmrsh`."""
        return """\
if command -v pbsdsh >/dev/null 2>&1; then
    rank=0
    for index in $(awk '!seen[$0]++ { print NR - 1 }' "$PBS_NODEFILE"); do
        start pbsdsh -n $index /bin/sh "$here/rank.sh" $rank
        rank=$((rank + 1))
    done
else
    over $(awk '!seen[$0]++' "$PBS_NODEFILE")
fi"""


def index_of(node: str, environ: Mapping[str, str], read: Callable[[str], str] = read_text) -> int:
    """The first line of the node file that names a node, counted from 0.

    Raises:
        AllocationError: It names no such node, or can't be read.
    """
    try:
        names = [line.strip() for line in read(environ.get("PBS_NODEFILE", "")).splitlines() if line.strip()]
    except OSError as exc:
        raise AllocationError(
            f"PBS_NODEFILE can't be read ({exc.strerror})", hint="Run the script on the job's first node"
        ) from exc
    for index, name in enumerate(names):
        if same_machine(name, node):
            return index
    raise AllocationError(f"node {node!r} is not in PBS_NODEFILE", hint="It is no node of this job")
