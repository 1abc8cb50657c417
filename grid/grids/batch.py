"""A grid on nodes that a batch system gives: it submits pilots, connects to their kernels, and follows them for life.

    with BatchGrid("mara@login.example.org", nodes=3, ppn=2, walltime="12:00:00", renew=True) as g:
        sid = g.publish(Replica())
        proxy = g.acquire_service(sid, expect_s=600)

From the login node itself (no name given) or from anywhere that can log in there: we connect out, through the login
node, and nothing ever connects back. Pilots come and go while services are published; servers of one that ends move,
with their state, to its successor.

Lives here: submitting, the thread that looks after pilots, renewing, the end.
Elsewhere:  a pilot's files (`pilots.py`), moving a server (`moves.py`), the batch system's commands (`grid/batch/`),
            a grid inside of a job (`allocation.py`).
"""

from __future__ import annotations

import itertools
import json
import logging
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from grid.batch import BatchSystem, JobSpec, JobState, parse_walltime
from grid.batch.wrapper import parse_resources
from grid.errors import AllocationError, GridError, HostError
from grid.grids import pilots
from grid.grids.absent import Missing
from grid.grids.grid import Grid
from grid.grids.home import Home
from grid.grids.pilots import Pilot, PilotConnection, Rank
from grid.hosts import FixedHosts, Host, as_hosts
from grid.launch import Connection, connect
from grid.services.roster import Roster

logger = logging.getLogger(__name__)

_LOOK_S = (0.25, 2.0)
"""Seconds between looks at the files of pilots: while kernels are starting, and while nothing is under way."""

_GRACE_POLLS = 3
"""A job that the batch system does not know counts as gone after so many polls; its kernels decide earlier."""


@dataclass
class _Held:
    """A pilot with what the grid has on it."""

    pilot: Pilot
    homes: list[Home]
    submitted: float  # monotonic
    ends_at: float | None = None  # monotonic
    started: float | None = None
    unknown: int = 0  # polls in a row that did not know the job
    told: set[str] = field(default_factory=set)  # servers that heard of its end, by name
    retired: bool = False  # its servers are moving away, or were given back
    leaving: bool = False  # they are moving away
    ending: bool = False  # nothing is on it any more: a thread ends it
    predecessor: _Held | None = None
    successor: _Held | None = None
    joined: set[int] = field(default_factory=set)  # ranks that take part in the grid
    over: bool = False
    returned: bool = False  # given back by `shrink`: it is told of no more once it has ended
    hopeless: bool = False  # the batch system says that it can never run

    @property
    def settled(self) -> bool:
        return all(rank.settled for rank in self.pilot.ranks)


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
    """

    def __init__(
        self,
        login: str | Host | None = None,
        *,
        nodes: int = 1,
        ppn: int = 1,
        walltime: str | float = 3600,
        pilots: int = 1,
        renew: bool | int = False,
        ahead_s: float | None = None,
        handover_s: float | None = None,
        queue: str | None = None,
        account: str | None = None,
        resources: Sequence[str] = (),
        lines: Sequence[str] = (),
        parallel_environment: str | None = None,
        job_name: str = "grid",
        dialect: str | None = None,
        python: str | None = None,
        init_cmd: str = "",
        env: Mapping[str, str] | None = None,
        temp_path: str | None = None,
        transport: str = "auto",
        queue_s: float = 7 * 86400.0,
        poll_s: float = 15.0,
        **kw: Any,
    ) -> None:
        super().__init__([], **kw)
        self.login = as_hosts(login)[0] if login is not None else Host("localhost", ssh="local")
        if python is None:
            python = sys.executable if self.login.ssh == "local" else "python"
        self._node: dict[str, Any] = {
            "temp_path": temp_path,
            "n_cpu": ppn,
            "python": python,
            "init_cmd": init_cmd,
            "env": dict(env or {}),
            "transport": transport,
        }
        Host("check", **self._node)  # the arguments are wrong now, not when a job starts
        for name, value in (("nodes", nodes), ("ppn", ppn), ("pilots", pilots)):
            if not isinstance(value, int) or value < (0 if name == "pilots" else 1):
                raise ValueError(f"{name} must be a number of at least {0 if name == 'pilots' else 1}, not {value!r}")
        self.nodes, self.ppn = nodes, ppn
        self.walltime_s = parse_walltime(walltime)
        self._wanted = pilots
        self._renewals = (1 << 30) if renew is True else int(renew)
        self.ahead_s = self.walltime_s / 4 if ahead_s is None else ahead_s
        self.handover_s = min(120.0, self.walltime_s / 10) if handover_s is None else handover_s
        if not 0 < self.handover_s < self.walltime_s:
            raise ValueError(f"handover_s is {self.handover_s:g}, of a walltime of {self.walltime_s:g} s")
        self._submission: dict[str, Any] = {"queue": queue, "account": account, "lines": tuple(lines), "name": job_name}
        self._submission["resources"] = tuple(resources)
        self._submission["parallel_environment"] = parallel_environment
        self._dialect = dialect
        self._queue_s, self._poll_s = queue_s, poll_s
        self._connection: Connection | None = None
        self._system: BatchSystem | None = None
        self._held: list[_Held] = []
        self._numbers_of_pilots = itertools.count(1)
        self._opening = threading.Lock()
        self._tending: threading.Thread | None = None
        self._wake = threading.Event()
        self._owed: list[_Held] = []  # ended before their time, and have no successor yet
        self._polled = float("-inf")
        self._polls = 0
        self._looked = self._paid = float("-inf")
        self._trouble: dict[str, str] = {}  # what does not work at the moment: for status and messages

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

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Log in and submit the pilots, once; later calls are harmless.

        Raises:
            HostError: There is no way to the login machine.
            AllocationError: No batch system there, or it refuses the job; with its own words.
        """
        super().start()
        with self._opening:
            if self._tending is not None or self._halted:
                return
            try:
                self._connection = connect(self.login)
                self._system = BatchSystem(self._connection, self._dialect)
                while len(self._held) < self._wanted:
                    self._submit()
            except BaseException:
                self._ending.everything(force=True)
                raise
            self._tending = threading.Thread(target=self._tend, name="grid-pilots", daemon=True)
            self._tending.start()

    def publish(self, instance: Any, *, timeout: float | None = None, **kw: Any) -> str:
        """As `Grid.publish`; waits for the first node as long as the queue takes, `queue_s` at most."""
        return super().publish(instance, timeout=self._queue_s if timeout is None else timeout, **kw)

    def grow(self, pilots: int = 1) -> None:
        """Submit more pilots; their servers join services as they come up."""
        self.start()
        with self._opening:
            for _ in range(pilots):
                self._submit()
        self._wake.set()

    def shrink(self, pilots: int = 1, *, force: bool = False) -> None:
        """Give pilots back, those that are still queued first, then the youngest.

        Servers that somebody has acquired finish first, and their jobs end then; with `force` at once.
        """
        with self._opening:
            going = [held for held in self._held if not held.over and not held.retired]
            going.sort(key=lambda held: (held.started is not None, -held.submitted))
            for held in going[:pilots]:
                held.retired = held.ending = held.returned = True
                self.in_thread("grid-shrink", self._give_back, held, force)

    def _halt(self, *, force: bool) -> None:
        self._wake.set()
        super()._halt(force=force)
        self._wake.set()
        if self._tending is not None and self._tending is not threading.current_thread():
            self._tending.join(self.limits.control_s)
        self._end_jobs([held for held in self._held if not held.over])
        if self._connection is not None:
            self._connection.close()

    def _all_homes(self) -> list[Home]:
        standing_by = [home for held in self._held for home in held.homes if home not in self._homes]
        return [*self._homes, *standing_by]

    def _give_back(self, held: _Held, force: bool) -> None:
        """Thread: end one pilot, after the calls that its servers have."""
        servers = [server for home in held.homes for server in self.servers_of(home)]
        for server in servers:
            self.set_aside(server, True)
        if not force:
            with self._changed:
                while not (self._halted or held.over) and any(server.proxy is not None for server in servers):
                    self._changed.wait(0.2)
        self._terminate_servers(servers)
        for home in held.homes:
            home.shut_down(force=force)
        self._forget_homes(held)
        self._end_jobs([held])
        if held.returned:
            self._held = [each for each in self._held if each is not held]

    def _end_jobs(self, going: Sequence[_Held]) -> None:
        """Our own stop was said before; what has not ended by itself is cancelled. Removes the files."""
        if not going or self._connection is None:
            return
        assert self._system is not None
        try:
            waiting = [held for held in going if held.pilot.started is not None]
            deadline = time.monotonic() + 2 * self.limits.stop_s
            while waiting and time.monotonic() < deadline:
                self._look(waiting)
                waiting = [held for held in waiting if held.pilot.status is None]
                if waiting:
                    time.sleep(0.1)  # a file on another machine tells nobody that it is there
            for held in going:
                if held.pilot.job is not None and held.pilot.status is None:
                    self._system.cancel(held.pilot.job)
        except GridError as exc:
            logger.warning("jobs %s could not be ended: %s", ", ".join(str(held.pilot.job) for held in going), exc)
        for held in going:
            held.over = True
            try:
                self._connection.run(pilots.remove_script(held.pilot.directory))
            except GridError as exc:
                logger.warning("%s is left on %s: %s", held.pilot.directory, self.login.label, exc)

    # -- submitting ------------------------------------------------------------------------------------------------

    def _submit(self, predecessor: _Held | None = None) -> _Held:
        assert self._connection is not None and self._system is not None
        number = next(self._numbers_of_pilots)
        token = f"{self.grid_id}-{number}"
        directory, *addresses = self._connection.run(pilots.prepare_script(token)).text.split() or [""]
        if not directory.startswith("/"):
            raise AllocationError(
                f"{self.login.label!r} can't make a directory in ~/.grid/pilots", hint="Is the home directory full?"
            )
        name = self._submission["name"]
        homes = [self._make_home(Host(f"{name}-{number}.{rank}", **self._node), self.ppn) for rank in range(self.nodes)]
        for home in homes:
            home.host.env = {**self._system.dialect.variables_of_servers({}, self.ppn), **home.host.env}
        kernels = [home.invite(PilotConnection(self._connection, addresses)) for home in homes]
        command = f"exec /bin/sh {shlex.quote(directory)}/nodes.sh"  # SIGTERM for the job's script is for this one
        pilot = Pilot(token, directory, command, self.walltime_s, [Rank(n) for n in range(self.nodes)])
        try:
            done = self._connection.run(
                pilots.unpack_script(directory),
                stdin=pilots.pilot_files(directory, kernels, self._system.dialect),
                timeout=600,
            )
            if done.returncode:
                raise AllocationError(
                    f"{self.login.label!r} can't write to {directory}: {done.stderr.decode(errors='replace').strip()}",
                    hint="Is the home directory full?",
                )
            spec = JobSpec(
                nodes=self.nodes,
                ppn=self.ppn,
                walltime_s=self.walltime_s,
                output="/dev/null",  # the script has files of its own: what a system copies at the end may not arrive
                error="/dev/null",
                workdir=directory,
                command=pilot.command,
                **self._submission,
            )
            pilot.job = self._system.submit(spec)
        except BaseException:
            self._connection.run(pilots.remove_script(directory))
            raise
        pilot.state = "queued"
        held = _Held(pilot, homes, time.monotonic(), predecessor=predecessor)
        self._held.append(held)
        logger.info("submitted job %s: %d nodes", pilot.job, self.nodes)
        self._polled = float("-inf")
        self._polls = 0
        return held

    # -- looking after pilots --------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Thread: look, and do what follows, until the grid ends."""
        while not self._halted:
            try:
                self._look_and_poll()
                self._trouble.pop("login", None)
            except GridError as exc:
                self._trouble["login"] = str(exc)
                logger.warning("can't look after jobs: %s", exc)
                self._reconnect()
            try:
                for held in list(self._held):
                    if not held.over:
                        self._drive(held)
                self._pay_what_is_owed()
                self._house_the_homeless()
                self._tell_expectations()
            except Exception:
                logger.exception("looking after jobs failed")
            self._wake.wait(self._pause())
            self._wake.clear()

    def _pause(self) -> float:
        starting = any(held.pilot.started is not None and not held.settled for held in self._held if not held.over)
        busy, idle = _LOOK_S
        if starting:
            return busy
        waiting = [time.monotonic() - held.submitted for held in self._held if held.started is None and not held.over]
        if waiting:  # a job that has just been submitted may start at once; one that waits for hours may wait
            return max(busy, min(idle, 0.05 * min(waiting)))
        return idle

    def _look_and_poll(self) -> None:
        now = time.monotonic()
        open_ones = [held for held in self._held if not held.over]
        if any(not held.settled for held in open_ones) or now - self._looked > self._poll_s:
            self._look(open_ones)
        if now - self._polled > min(self._poll_s, 1.0 * 2**self._polls):
            self._polls += 1
            self._polled = now
            self._poll(open_ones)

    def _look(self, held: Sequence[_Held]) -> None:
        assert self._connection is not None
        if held:
            self._looked = time.monotonic()
            found = [each.pilot for each in held]
            pilots.take_news(found, self._connection.run(pilots.look_script(found)).stdout)

    def _poll(self, held: Sequence[_Held]) -> None:
        assert self._system is not None
        jobs = {each.pilot.job: each for each in held if each.pilot.job is not None}
        if not jobs:
            return
        for job, status in self._system.status(list(jobs)).items():
            each = jobs[job]
            each.unknown = each.unknown + 1 if status.state in (JobState.UNKNOWN, JobState.DONE) else 0
            if each.unknown:
                self._polls = 0  # ask again soon
                if status.state is JobState.DONE and not any(home.up for home in each.homes):
                    each.unknown = _GRACE_POLLS  # its kernels said so before
            each.hopeless = each.started is None and self._system.dialect.never_runs(status)
            each.pilot.facts = {"state": status.state.name.lower(), "reason": status.reason}
            if each.started is None:
                each.pilot.reason = status.reason or ""

    def _reconnect(self) -> None:
        """The log-in may be gone: servers with direct connections go on meanwhile."""
        assert self._connection is not None
        if self._connection.alive() or self._halted:
            return
        try:
            connection = connect(self.login)
            self._system = BatchSystem(connection, self._dialect)
            self._connection = connection
        except GridError as exc:
            self._trouble["login"] = str(exc)

    def _drive(self, held: _Held) -> None:
        """What follows for one pilot from what was seen."""
        pilot, now = held.pilot, time.monotonic()
        if held.started is None and pilot.age_s is not None:
            held.started = now - pilot.age_s
            held.ends_at = held.started + self.walltime_s
            pilot.state, pilot.reason = "started", ""
            for home in held.homes:
                home.ends(held.ends_at)
        for rank, home in zip(pilot.ranks, held.homes, strict=True):
            self._drive_rank(held, rank, home, now)
        # Kernels that answer are worth more than what qstat says or does not say.
        answers = any(home.up and home.outage() is None for home in held.homes)
        if pilot.status is not None or (held.unknown >= _GRACE_POLLS and not answers):
            self._pilot_ended(held)
            return
        if held.hopeless:
            self._withdraw(held)
            return
        if held.ends_at is None or held.over:
            return
        if held.retired and not held.ending and not any(self.servers_of(home) for home in held.homes):
            held.ending = True  # all have moved
            self.in_thread("grid-give-back", self._give_back, held, False)
            return
        left = held.ends_at - now
        if self._renewals > 0 and held.successor is None and not held.retired and left < self.ahead_s:
            self._renew(held)
        if left < self.handover_s and held.settled and (held.leaving or not held.retired):
            self._retire(held, left)

    def _withdraw(self, held: _Held) -> None:
        """A job that can never run is no hope: it goes, and whoever waits for it is told."""
        held.pilot.facts["reason"] = f"it can never run here: {held.pilot.reason}"
        self._pilot_ended(held)
        assert self._system is not None and held.pilot.job is not None
        try:
            self._system.cancel(held.pilot.job)
        except GridError as exc:
            logger.warning("job %s could not be withdrawn: %s", held.pilot.job, exc)

    def _drive_rank(self, held: _Held, rank: Rank, home: Home, now: float) -> None:
        if rank.settled or rank.accepting:
            return
        if rank.words is not None:
            rank.accepting = True
            self.in_thread("grid-accept", self._accept, held, rank, home)
        elif rank.status is not None:
            self._rank_failed(held, rank, home, f"its kernel ended with status {rank.status}")
        elif held.started is not None and now - held.started > self.limits.start_s:
            self._rank_failed(held, rank, home, f"no kernel came up within {self.limits.start_s:g} s")

    def _rank_failed(self, held: _Held, rank: Rank, home: Home, what: str) -> None:
        rank.settled = True
        noise = rank.noise or held.pilot.noise
        printed = f"; it printed: {noise}" if noise else ""
        error = HostError(
            f"node {rank.number} of job {held.pilot.job}: {what}{printed}",
            host=home.host.label,
            hint="Do the nodes share the home directory with the login machine?",
        )
        self._absent.add(Missing(home.host.label, error))
        with self._changed:
            self.failures[home.host.label] = error
            self._changed.notify_all()

    def _accept(self, held: _Held, rank: Rank, home: Home) -> None:
        """Thread: connect to a kernel that has reported."""
        try:
            report = json.loads(rank.words or "{}")
            name = report.get("hostname")
            if isinstance(name, str) and pilots.is_safe_name(name):
                home.host.name = name
            home.accept(report)
        except Exception as exc:
            rank.words = None
            self._rank_failed(held, rank, home, str(exc))
            return
        self.processes.add_agent(home)
        before = held.predecessor
        if before is None or before.over or before.retired:
            self._join(held, rank, home)
        # else it waits until its predecessor gives way
        rank.settled = True

    def _join(self, held: _Held, rank: Rank, home: Home) -> None:
        """A node takes part from now on: for servers that look for a home, and for fresh ones on what is left.

        Where its predecessor still runs, servers come from there, and fresh ones only after its end.
        """
        with self._lock:
            if rank.number in held.joined or self._halted:
                return
            held.joined.add(rank.number)
            self._joins_late(home)
            self._homes = [*self._homes, home]
            self.hosts = FixedHosts([*self.hosts, home.host])
        self._house_the_homeless()
        if held.predecessor is None or held.predecessor.over:
            self._fill(home)
        with self._changed:
            self._changed.notify_all()

    def _fill(self, home: Home) -> None:
        """Fresh servers of every service for the slots that it has left."""
        with self._lock:
            publications = list(self._publications.values())
        for publication in publications:
            with self._lock:
                room = self._room(home, publication.service_id)
            self._publish_there(home, publication, room)

    # -- the end of a pilot, foreseen and not ----------------------------------------------------------------------

    def _renew(self, held: _Held) -> None:
        try:
            with self._opening:
                held.successor = self._submit(held)
        except GridError as exc:
            self._trouble["renew"] = str(exc)
            logger.warning("no successor of job %s yet: %s", held.pilot.job, exc)
            return
        self._trouble.pop("renew", None)
        self._renewals -= 1

    def _pay_what_is_owed(self) -> None:
        """Successors of pilots that ended before their time; tried again with each poll."""
        if self._owed and time.monotonic() - self._paid > min(self._poll_s, 2.0):
            self._paid = time.monotonic()
            for held in list(self._owed):
                if self._renewals > 0:
                    self._renew(held)
                if held.successor is not None or self._renewals <= 0:
                    self._owed.remove(held)

    def _retire(self, held: _Held, left: float) -> None:
        """Its end is near: its servers move away, or are told at least; those that come up later, later."""
        servers = [server for home in held.homes for server in self.servers_of(home) if self._is_up(server)]
        if not held.leaving and held.successor is None and not self._takers(held):
            self._tell_end([server for server in servers if server.name not in held.told], left)
            held.told |= {server.name for server in servers}
            return
        if not held.leaving:
            held.leaving = held.retired = True
            held.told.clear()
            logger.info("job %s ends in %.0f s: %d servers move", held.pilot.job, left, len(servers))
            if held.successor is not None:
                for rank, home in zip(held.successor.pilot.ranks, held.successor.homes, strict=True):
                    if home.up:
                        self._join(held.successor, rank, home)
        for server in servers:
            if server.name not in held.told:
                held.told.add(server.name)
                self._move_out(server, left)

    def _takers(self, held: _Held) -> bool:
        """Whether other nodes have room: after `shrink` of others, or where services have fewer servers than slots."""
        now = time.monotonic()
        return any(
            home.up and home not in held.homes and self._takes_in(home, now) and not self.servers_of(home)
            for home in self._homes
        )

    def _takes_in(self, home: Home, now: float) -> bool:
        return home.ends_at is None or home.ends_at - now > self.handover_s

    def _pilot_ended(self, held: _Held) -> None:
        held.over = True
        pilot = held.pilot
        pilot.state = "ended"
        how = f"status {pilot.status}" if pilot.status is not None else f"{pilot.facts.get('reason') or 'no word'}"
        reason = f"its job {pilot.job} ended ({how})"
        logger.info("job %s ended (%s)", pilot.job, how)
        for rank, home in zip(pilot.ranks, held.homes, strict=True):
            if not rank.settled:
                self._rank_failed(held, rank, home, "the job ended before its kernel answered")
            elif home.up and not home.gone and self._link is not None:
                self._link.errand(lambda h=home: self.lose_home(h, reason))  # type: ignore[misc]
        self._forget_homes(held)
        if held.successor is not None:
            for rank, home in zip(held.successor.pilot.ranks, held.successor.homes, strict=True):
                if rank.number in held.successor.joined:
                    self._fill(home)
                elif home.up:
                    self._join(held.successor, rank, home)
        elif not held.retired and self._renewals > 0 and held.started is not None:
            self._owed.append(held)  # it was cut short: qdel, a node that died
        self.in_thread("grid-clear", self._clear, held)

    def _clear(self, held: _Held) -> None:
        if self._connection is not None:
            try:
                self._connection.run(pilots.remove_script(held.pilot.directory))
            except GridError as exc:
                logger.warning("%s is left on %s: %s", held.pilot.directory, self.login.label, exc)

    def _forget_homes(self, held: _Held) -> None:
        with self._lock:
            self._homes = [home for home in self._homes if home not in held.homes]
            gone = {id(home.host) for home in held.homes}
            self.hosts = FixedHosts(host for host in self.hosts if id(host) not in gone)

    # -- hopes -----------------------------------------------------------------------------------------------------

    def _expecting(self) -> bool:
        return not self._halted and (bool(self._homeless) or self._awaited())

    def _awaited(self) -> bool:
        """Whether nodes are on their way."""
        return bool(self._owed) or any(
            not held.over and (not held.settled or len(held.joined) < sum(home.up for home in held.homes))
            for held in self._held
        )

    def _renewing(self) -> bool:
        return self._renewals > 0 and any(not held.retired for held in self._held)

    def _more_homes_may_come(self) -> bool:
        return self._awaited() or self._renewing() or any(home.outage() is not None for home in self._homes)

    def _hoping(self) -> bool:
        """Whether servers may come yet: who waits for one waits on, even if there is none now."""
        return self._expecting() or (self._renewing() and not self._halted)

    def _size_of_a_service(self) -> int:
        return sum(len(held.homes) * self.ppn for held in self._held if not held.over and held.predecessor is None)

    def _add_service(self, service_id: str, methods: frozenset[str]) -> Any:
        service = super()._add_service(service_id, methods)
        with self._lock:
            service.roster.expect(self._hoping())
        return service

    def _tell_expectations(self) -> None:
        hoping = self._hoping()
        services = self._services.all()
        for service in services:
            service.happen(partial(Roster.expect, expecting=hoping))
        with self._changed:
            self._changed.notify_all()

    def _on_their_way(self) -> list[str]:
        words = []
        for held in self._held:
            if not held.over:
                left = "" if held.ends_at is None else f", {held.ends_at - time.monotonic():.0f} s left"
                why = f" ({held.pilot.reason})" if held.pilot.reason else ""
                words.append(f"job {held.pilot.job} {held.pilot.state}{why}{left}")
        return words + list(self._trouble.values())

    def status(self) -> dict[str, Any]:
        """As of every grid, with `pilots`: each job, its state and reason, and its nodes."""
        now = time.monotonic()
        return {
            **super().status(),
            "login": self.login.label,
            "trouble": dict(self._trouble),
            "pilots": [
                {
                    "job": held.pilot.job,
                    "state": held.pilot.state,
                    "reason": held.pilot.reason,
                    "left_s": None if held.ends_at is None else round(held.ends_at - now, 1),
                    "nodes": [
                        {"node": home.host.label, "state": _state_of(held, rank, home), "reason": self._reason_of(home)}
                        for rank, home in zip(held.pilot.ranks, held.homes, strict=True)
                    ],
                }
                for held in self._held
            ],
        }

    def _reason_of(self, home: Home) -> str:
        error = self.failures.get(home.host.label)
        return str(error) if error is not None and not home.up else ""


def _state_of(held: _Held, rank: Rank, home: Home) -> str:
    """submitted, queued, started, bootstrapped, connected or lost: how far a node has come."""
    if home.up:
        return "connected" if rank.number in held.joined else "standing by"
    if held.over or (rank.settled and rank.words is None) or home.gone:
        return "lost"
    if rank.words is not None:
        return "bootstrapped"
    if held.started is not None:
        return "started"
    return held.pilot.state
