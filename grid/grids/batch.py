"""A grid on nodes that a batch system gives: it submits pilots, connects to their kernels, and follows them for life.

    with BatchGrid("mara@login.example.org", nodes=3, ppn=2, walltime="12:00:00", renew=True) as g:
        sid = g.publish(Replica())
        proxy = g.acquire_service(sid, expect_s=600)

From the login node itself (no name given) or from anywhere that can log in there: we connect out, through the login
node, and nothing ever connects back. Pilots come and go while services are published; servers of one that ends move,
with their state, to its successor.

Lives here: `BatchGrid`, a grid whose hosts come from pilots.
Elsewhere:  the pilots (`tending.py`), moving a server (`mover.py`), the batch system's commands (`grid/batch/`), a grid
            inside of a job (`allocation.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from typing_extensions import Unpack

from grid.batch.wrapper import parse_resources
from grid.errors import AllocationError
from grid.grids.grid import Grid
from grid.grids.keep import Keep
from grid.grids.parts import held, verb
from grid.grids.request import PilotRequest
from grid.grids.settings import GridSettings, GridWords, takes
from grid.grids.tending import Pilots
from grid.hosts import Host
from grid.keeping.places import span_s


class PilotWords(GridWords, total=False):
    """The arguments that `BatchGrid` takes by name: those of `PilotRequest`, and those of `Grid`."""

    nodes: int
    ppn: int
    walltime: str | float
    pilots: int
    renew: bool | int
    ahead_s: float | None
    handover_s: float | None
    queue: str | None
    account: str | None
    resources: Sequence[str]
    lines: Sequence[str]
    parallel_environment: str | None
    job_name: str
    dialect: str | None
    python: str | None
    init_cmd: str
    env: Mapping[str, str] | None
    temp_path: str | None
    transport: str
    queue_s: float
    poll_s: float
    tags: Sequence[str]
    kinds: Sequence[Mapping[str, Any]]


class BatchGrid(Grid):
    """A grid over pilots, batch jobs that hold nodes for it. Arguments beyond those of `Grid`:

    Args:
        login: Where jobs are submitted: a name or `Host` for ssh; None means on this machine.
        nodes, ppn: Nodes of each pilot, and slots on each: so many servers a service gets there.
        walltime: Of each pilot: seconds, or text `HH:MM:SS`.
        pilots: How many to submit at the start; `grow` and `shrink` change that.
        renew: Whether a pilot that comes to its end gets a successor: True, or how often at most.
        ahead_s: Seconds before a pilot's end at which its successor is submitted: what jobs wait in the queue, and
            more. Default: a quarter of the walltime.
        handover_s: Seconds before a pilot's end at which its servers move away, if there is or will be a successor; and
            at which instances with a method `allocation_ends(seconds)` have it called. Default: a tenth of the
            walltime, 120 at most.
        queue, account, resources, lines: Of the submission; `lines` are directives of the batch system, verbatim.
        parallel_environment: SGE only: the name of its `-pe`; see `qconf -spl`.
        job_name: What `qstat` calls the pilots.
        dialect: `torque`, `pbspro`, `slurm`, `slurm-torque`, `sge`; default: found out.
        python, init_cmd, env, temp_path, transport: As of `Host`, for the nodes.
        queue_s: How long `publish` waits for the first node, unless its `timeout` says otherwise.
        poll_s: Seconds between questions to the batch system; one question for all jobs.
        tags: Words by which `where=` of `publish` means these nodes.
        kinds: Pilots of other kinds besides: what each has otherwise,
            `{"resources": ["--gres=gpu:1"], "tags": ["gpu"]}`.
            All words above but login, dialect, renew and those in seconds; one pilot unless it says so. A successor is
            of the kind of its predecessor.

    `start`, and all that starts it, logs in and submits the pilots; `status` has `pilots` besides: each job, its state
    and reason, and its nodes.

    Raises (`start`):
        HostError: There is no way to the login machine.
        AllocationError: No batch system there, or it refuses the job; with its own words.
    """

    @takes(PilotRequest, more=True)
    def __init__(self, login: str | Host | None = None, **kw: Unpack[PilotWords]) -> None:
        words: dict[str, Any] = {**kw}
        asked = {each.name: words.pop(each.name) for each in fields(PilotRequest) if each.name in words}
        settings = GridSettings.of(type(self), **words)
        self._begin_with(Pilots(PilotRequest(login=login, **asked)), settings)

    def _begin_with(self, pilots: Pilots, settings: GridSettings, keep: Keep | None = None) -> None:
        self._begin([], settings, pilots, keep)
        engine = self._engine
        pilots.serve(engine.fleet, engine.stager, engine.publisher, engine.mover, engine.losses)
        if settings.keep is not None and span_s(settings.keep) > pilots.request.walltime_s:
            engine.output.say(
                f"keep={settings.keep!r} is longer than a job of {pilots.request.walltime_s:g} s: while no client is "
                "there no job follows another, and servers end with theirs"
            )

    @classmethod
    def _again(cls, keep: Keep, settings: GridSettings) -> Grid:
        """The grid of a session, with the pilots that are there."""
        assert keep.past is not None
        made = cls.__new__(cls)
        made._begin_with(Pilots(PilotRequest.of_plain(keep.past.facts["pilots"]["request"])), settings, keep)
        return made

    @classmethod
    def from_text(cls, login: str, resources: str = "", **kw: Any) -> BatchGrid:
        """A grid from two words of a command line: `login` (a dot means this machine), and what each pilot asks for.

        Args:
            resources: As `qsub -l` has it, `nodes=2:ppn=4,walltime=1:00:00`; also `pilots=N`, `queue=NAME`,
                `account=NAME`, and for SGE `pe=NAME`.
        Raises:
            AllocationError: It makes no sense.
        """
        asked = parse_resources([resources])
        fields: dict[str, Any] = {name: asked[name] for name in ("nodes", "ppn") if name in asked}
        if not isinstance(fields.get("nodes", 1), int):
            raise AllocationError(f"nodes={fields['nodes']} is not a number", hint="Pilots ask for nodes=N:ppn=P")
        if "walltime_s" in asked:
            fields["walltime"] = asked["walltime_s"]
        lines = []
        for part in asked["resources"]:
            name, _, value = part.partition("=")
            if name == "pilots" and value.isdigit():
                fields["pilots"] = int(value)
            elif name in ("queue", "account"):
                fields[name] = value
            elif name in ("pe", "parallel_environment"):
                fields["parallel_environment"] = value
            else:
                lines.append(part)
        return BatchGrid(None if login == "." else login, **{**fields, "resources": lines, **kw})

    grow = verb("_engine.source", Pilots.grow)
    shrink = verb("_engine.source", Pilots.shrink)
    evacuate = verb("_engine.source", Pilots.evacuate)
    ahead_s = held("_engine.source", "ahead_s")
    """Seconds before a pilot's end at which its successor is submitted."""
    handover_s = held("_engine.source", "handover_s")
    """Seconds before a pilot's end at which its servers move away."""
    login = held("_engine.source", "machine.host")
    """Where jobs are submitted."""
    nodes = held("_engine.source", "request.nodes")
    """Nodes of each pilot."""
    ppn = held("_engine.source", "request.ppn")
    """Slots on each node."""
    walltime_s = held("_engine.source", "request.walltime_s")
    """Of each pilot, in seconds."""
