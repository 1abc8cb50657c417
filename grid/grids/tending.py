"""Pilots as a source of hosts: they are submitted, looked after, renewed and given back by one thread.

The thread looks at what it holds and does what the plan says (`plan.py`). What may take its time has a thread of its
own: connecting to a kernel that has reported, giving a pilot back, removing its files. They change a pilot only by one
store each (`rank.settled`, `stage`), which the next look finds; who joins is decided under the lock of the services.

Lives here: `Pilots`.
Elsewhere:  what is asked of them (`request.py`), what follows from what is seen (`plan.py`), the login machine
            (`login.py`), a pilot's files (`pilots.py`).
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from grid.arguments import check_number
from grid.batch import JobState
from grid.errors import GridError, HostError
from grid.grids import pilots
from grid.grids.absent import Missing
from grid.grids.fleet import Fleet
from grid.grids.holding import Held, held_again, known_homes, way_to
from grid.grids.home import Home
from grid.grids.login import LoginMachine
from grid.grids.losses import Losses
from grid.grids.mover import Mover
from grid.grids.pilots import Rank
from grid.grids.plan import (
    GRACE_POLLS,
    Accept,
    End,
    Fail,
    GiveBack,
    Leave,
    PilotAction,
    PilotSeen,
    PilotStage,
    RankSeen,
    Renew,
    Tell,
    Terms,
    Withdraw,
    pause_s,
    plan,
)
from grid.grids.publishing import Publisher
from grid.grids.request import PilotRequest
from grid.grids.source import HostSource
from grid.grids.stager import Stager
from grid.hosts import FixedHosts
from grid.keeping.memory import SessionMemory
from grid.services.kernel_server import KernelServer
from grid.services.roster import Roster

logger = logging.getLogger(__name__)


class Pilots(HostSource):
    """The pilots of one grid."""

    def __init__(self, request: PilotRequest) -> None:
        self.request = request
        self.machine = LoginMachine(request.login_host(), request.dialect)
        walltime_s = request.walltime_s
        self.ahead_s = walltime_s / 4 if request.ahead_s is None else request.ahead_s
        self.handover_s = request.terms_handover_s
        self.patience_s = request.queue_s
        self.poll_s = request.poll_s
        self.held: list[Held] = []
        self._renewals = (1 << 30) if request.renew is True else int(request.renew)
        self._numbers = itertools.count(1)
        self._taken_up = False  # an earlier client has submitted what there is
        self._intended: dict[int, PilotRequest] = {}  # pilots that it had not submitted yet, or was just submitting
        self._opening = threading.Lock()
        self._tending: threading.Thread | None = None
        self._wake = threading.Event()
        self._owed: list[Held] = []  # ended before their time, and have no successor yet
        self._polls = 0  # since a job was submitted
        self._polled = self._looked = self._paid = float("-inf")
        self._trouble: dict[str, str] = {}  # what does not work at the moment: for status and messages

    def serve(self, fleet: Fleet, stager: Stager, publisher: Publisher, mover: Mover, losses: Losses) -> None:
        """These are the parts of the grid that gets the hosts."""
        self._fleet, self._stager, self._publisher, self._mover, self._losses = fleet, stager, publisher, mover, losses

    def take_up(self, past: SessionMemory) -> dict[int, Home]:
        self._taken_up = True
        self.held = held_again(past, self._fleet, self.machine)
        self._renewals = past.facts["pilots"]["renewals"]
        intended = past.facts_of("intended").items()
        self._intended = {int(number): PilotRequest.of_plain(request) for number, request in intended}
        self._numbers = itertools.count(1 + max([0, *self._intended, *map(int, past.facts_of("pilot"))]))
        return known_homes(self.held)

    def takes_part(self, home: Home) -> bool:
        return any(rank.number in held.joined for held in self.held for rank, each in held.nodes if each is home)

    # -- life ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        with self._opening:
            if self._tending is not None or self._fleet.halted:
                return
            try:
                self.machine.enter()
                if not self._taken_up:
                    self._note_renewals()
                    for kind in self.request.every_kind():
                        for _ in range(kind.pilots):
                            self._intend(kind)
                for number, request in sorted(self._intended.items()):
                    if self._taken_up:  # a job that begins there finds nothing, and ends
                        self.machine.remove_files(self._token(number))
                    self._submit(request, number=number)
            except BaseException:
                if not self._taken_up:  # else it stays as it was
                    self._fleet.grid._ending.everything(force=True)
                raise
            self._tending = threading.Thread(target=self._tend, name="grid-pilots", daemon=True)
            self._tending.start()

    def wake(self) -> None:
        self._wake.set()

    def leave(self) -> None:
        self._stop_tending()
        self.machine.leave()

    def _stop_tending(self) -> None:
        self._wake.set()
        if self._tending is not None and self._tending is not threading.current_thread():
            self._tending.join(self._fleet.limits.control_s)

    def end(self) -> None:
        self._stop_tending()
        self._end_jobs([held for held in self.held if not held.over])
        self.machine.leave()

    def grow(self, /, pilots: int = 1, **kind: Any) -> None:
        """Submit more pilots; their servers join services as they come up.

        Args:
            kind: What they have otherwise than the grid's own, as in `kinds` of the grid.
        """
        request = self.request.kind(kind) if kind else self.request
        self._fleet.grid.start()
        with self._opening:
            for number in [self._intend(request) for _ in range(pilots)]:
                self._submit(request, number=number)
        self._wake.set()

    def shrink(self, pilots: int = 1, *, force: bool = False) -> None:
        """Give pilots back, those that are still queued first, then the youngest.

        Servers that somebody has acquired finish first, and their jobs end then; with `force` at once.
        """
        with self._opening:
            going = [held for held in self.held if not held.over and not held.retired]
            going.sort(key=lambda held: (held.started is not None, -held.submitted))
            for held in going[:pilots]:
                held.part(PilotStage.ENDING)
                held.returned = True
                self._fleet.in_thread("grid-shrink", self._give_back, held, force)

    def _give_back(self, held: Held, force: bool) -> None:
        """Thread: end one pilot, after the calls that its servers have."""
        fleet = self._fleet
        servers = self._servers_on(held)
        for server in servers:
            fleet.set_aside(server, True)
        if not force:
            with fleet.changed:
                while not (fleet.halted or held.over) and any(server.proxy is not None for server in servers):
                    fleet.changed.wait(0.2)
        fleet.grid._terminate_servers(servers)
        for home in held.homes:
            home.shut_down(force=force)
        self._forget_homes(held)
        self._end_jobs([held])
        if held.returned:
            self.held = [each for each in self.held if each is not held]

    def _end_jobs(self, going: Sequence[Held]) -> None:
        """Our own stop was said before; what has not ended by itself is cancelled. Removes the files."""
        if not going or not self.machine.is_entered:
            return
        try:
            waiting = [held.pilot for held in going if held.pilot.started is not None]
            deadline = time.monotonic() + 2 * self._fleet.limits.stop_s
            while waiting and time.monotonic() < deadline:
                self.machine.look(waiting)
                waiting = [pilot for pilot in waiting if pilot.status is None]
                if waiting:
                    time.sleep(0.1)  # nothing tells that a file on another machine has come
            for held in going:
                if held.pilot.job is not None and held.pilot.status is None:
                    self.machine.system.cancel(held.pilot.job)
        except GridError as exc:
            logger.warning("jobs %s could not be ended: %s", ", ".join(str(held.pilot.job) for held in going), exc)
        for held in going:
            held.stage, held.pilot.state = PilotStage.OVER, "ended"
            self.machine.remove(held.pilot)
            self._forget(held, "its job was given back")

    def _intend(self, request: PilotRequest) -> int:
        """The number of a pilot that is to be submitted: another client does it if we are killed before."""
        number = next(self._numbers)
        self._intended[number] = request
        if self._fleet.keep is not None:
            self._fleet.keep.intended(number, request.plain())
        return number

    def _token(self, number: int) -> str:
        return f"{self._fleet.grid_id}-{number}"

    def _submit(self, request: PilotRequest, predecessor: Held | None = None, *, number: int) -> Held:
        names = [f"{request.job_name}-{number}.{rank}" for rank in range(request.nodes)]
        homes = [self._fleet.make_home(request.node(name, self.machine.host), request.ppn) for name in names]
        for home in homes:
            shares = self.machine.system.dialect.variables_of_servers({}, request.ppn)
            home.host.env = {**shares, **home.host.env}

        # Nodes have the home directory of the log-in machine, and one environment among them.
        python = self._fleet.packages.bring(self.machine.connection, homes[0].host)
        for home in homes:
            home.python = python

        towards: list[str] = []

        def kernels(addresses: Sequence[str]) -> list[tuple[str, bytes]]:
            towards.extend(addresses)
            return [home.invite(partial(way_to, self.machine, addresses)) for home in homes]

        try:
            pilot = self.machine.submit(self._token(number), request.spec(), kernels)
            held = Held(number, pilot, request, homes, time.monotonic(), predecessor)
            if self._fleet.keep is not None:
                self._fleet.keep.pilot(number, held.fact(towards, self._fleet.link.epoch))
        finally:  # whoever asked for it hears of a refusal
            self._intended.pop(number, None)
            if self._fleet.keep is not None:
                self._fleet.keep.intended(number, None)
        self.held.append(held)
        logger.info("submitted job %s: %d nodes", pilot.job, request.nodes)
        self._polled = float("-inf")
        self._polls = 0
        return held

    # -- looking ---------------------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Thread: look, and do what follows, until the grid ends."""
        while not self._fleet.halted:
            try:
                self._look_and_poll()
                self._trouble.pop("login", None)
            except GridError as exc:
                self._trouble["login"] = str(exc)
                logger.warning("can't look after jobs: %s", exc)
                try:
                    self.machine.enter_again()
                except GridError as again:
                    self._trouble["login"] = str(again)
            try:
                for held in list(self.held):
                    self._follow(held)
                self._pay_what_is_owed()
                self._mover.house_the_homeless()
                self._tell_expectations()
            except Exception:
                logger.exception("looking after jobs failed")
            self._wake.wait(self._pause())
            self._wake.clear()

    def _pause(self) -> float:
        open_ones = [held for held in self.held if not held.over]
        starting = any(held.pilot.started is not None and not held.settled for held in open_ones)
        return pause_s([time.monotonic() - held.submitted for held in open_ones if held.started is None], starting)

    def _look_and_poll(self) -> None:
        now = time.monotonic()
        open_ones = [held for held in self.held if not held.over]
        if open_ones and (any(not held.settled for held in open_ones) or now - self._looked > self.poll_s):
            self._looked = now
            self.machine.look([held.pilot for held in open_ones])
        if now - self._polled > min(self.poll_s, 1.0 * 2**self._polls):
            self._polls += 1
            self._polled = now
            self._poll(open_ones)

    def _poll(self, open_ones: Sequence[Held]) -> None:
        jobs = {held.pilot.job: held for held in open_ones if held.pilot.job is not None}
        if not jobs:
            return
        for job, status in self.machine.poll(list(jobs)).items():
            held = jobs[job]
            held.unknown = held.unknown + 1 if status.state in (JobState.UNKNOWN, JobState.DONE) else 0
            if held.unknown:
                self._polls = 0  # ask again soon
                if status.state is JobState.DONE and not any(home.up for home in held.homes):
                    held.unknown = GRACE_POLLS  # its kernels said so before
            held.hopeless = held.started is None and self.machine.system.dialect.never_runs(status)
            held.pilot.facts = {"state": status.state.name.lower(), "reason": status.reason}
            if held.started is None:
                held.pilot.reason = status.reason or ""

    # -- what follows ----------------------------------------------------------------------------------------------

    def _follow(self, held: Held) -> None:
        """Do what the plan says for one pilot."""
        now = time.monotonic()
        self._note_start(held, now)
        ahead_s = float("inf") if held.hurried else self.ahead_s
        terms = Terms(ahead_s=ahead_s, handover_s=self._handover_s(held), start_s=self._fleet.limits.start_s)
        for action in plan(self._see(held, now), terms, self._renewals, now):
            self._perform(held, action)
            if isinstance(action, Renew):
                for more in plan(self._see(held, now), terms, 0, now):
                    self._perform(held, more)

    def _note_start(self, held: Held, now: float) -> None:
        pilot = held.pilot
        if held.started is None and pilot.age_s is not None and not held.over:
            held.started = now - pilot.age_s
            held.ends_at = held.started + held.request.walltime_s
            pilot.state, pilot.reason = "started", ""
            self._ends(held, held.ends_at)
        if pilot.notice is not None and not held.hurried and pilot.started is not None and held.started is not None:
            logger.info("job %s was told that its end is near", pilot.job)
            self._hurry(held, held.started + (pilot.notice - pilot.started) + held.request.notice_s)

    def _hurry(self, held: Held, at: float) -> None:
        held.hurried = True
        self._ends(held, at)

    def _handover_s(self, held: Held) -> float:
        """How long before its end servers of a pilot leave."""
        return float("inf") if held.hurried else self.handover_s

    def _ends(self, held: Held, at: float) -> None:
        """Its job ends then (monotonic), or before."""
        held.ends_at = at if held.ends_at is None else min(at, held.ends_at)
        for home in held.homes:
            home.ends(held.ends_at)

    def evacuate(self, node: str, within_s: float) -> None:
        """Have servers move away from a pilot's nodes as at the end of its walltime: a notice says that it ends soon.

        They go to nodes that have room, or to its successor (`renew`); until there is one their state waits here.

        Args:
            node: The name of one of its nodes, or its job.
            within_s: Seconds until it ends.
        Raises:
            ValueError: No pilot of this grid has such a node.
        """
        check_number("within_s", within_s, 0, float)
        open_ones = [held for held in self.held if not held.over]
        meant = [held for held in open_ones if node == held.pilot.job or node in {h.host.label for h in held.homes}]
        if not meant:
            known = sorted({home.host.label for held in open_ones for home in held.homes})
            raise ValueError(f"no pilot of this grid has a node {node!r}; there are {', '.join(known) or 'none'}")
        for held in meant:
            self._hurry(held, time.monotonic() + within_s)
        self._wake.set()

    def _see(self, held: Held, now: float) -> PilotSeen:
        leaving = held.stage is PilotStage.LEAVING
        near = held.ends_at is not None and (leaving or held.ends_at - now < self._handover_s(held))
        with self._fleet.changed:  # no server is between the two
            servers = self._servers_on(held) if near else []
            back = [server for home in held.homes for server in self._mover.may_return(home)] if near else []
        return PilotSeen(
            stage=held.stage,
            started=held.started,
            ends_at=held.ends_at,
            status=held.pilot.status,
            unknown=held.unknown,
            hopeless=held.hopeless,
            answers=any(home.up and home.outage() is None for home in held.homes),
            has_successor=held.successor is not None,
            ranks=[
                RankSeen(
                    number=rank.number,
                    reported=rank.words is not None,
                    status=rank.status,
                    dealt_with=rank.settled or rank.accepting,
                )
                for rank in held.pilot.ranks
            ],
            settled=held.settled,
            servers=frozenset(server.name for server in (*servers, *back)),
            speaking=frozenset(server.name for server in servers if self._fleet.is_up(server)),
            told=frozenset(held.told),
            room_elsewhere=near and self._has_room_elsewhere(held, now),
        )

    def _perform(self, held: Held, action: PilotAction) -> None:
        pilot, in_thread = held.pilot, self._fleet.in_thread
        if isinstance(action, Accept):
            rank, home = pilot.ranks[action.rank], held.homes[action.rank]
            rank.accepting = True
            in_thread("grid-accept", self._accept, held, rank, home)
        elif isinstance(action, Fail):
            self._rank_failed(held, pilot.ranks[action.rank], action.what)
        elif isinstance(action, End):
            self._ended(held, owed=action.owed)
        elif isinstance(action, Withdraw):
            self._withdraw(held)
        elif isinstance(action, GiveBack):
            held.stage = PilotStage.ENDING
            in_thread("grid-give-back", self._give_back, held, False)
        elif isinstance(action, Renew):
            self._renew(held)
        elif isinstance(action, Leave):
            held.part(PilotStage.LEAVING)
            held.told.clear()
            logger.info("job %s is about to end: its servers move", pilot.job)
            if held.successor is not None:
                for rank, home in held.successor.nodes:
                    if home.up:
                        self._join(held.successor, rank, home)
        else:
            servers = [server for server in self._servers_on(held) if server.name in action.servers]
            held.told |= action.servers
            if isinstance(action, Tell):
                self._mover.tell_end(servers, action.seconds)
            else:
                for server in servers:
                    self._mover.move_out(server, action.seconds)

    # -- nodes come ------------------------------------------------------------------------------------------------

    def _rank_failed(self, held: Held, rank: Rank, what: str) -> None:
        rank.settled = True
        label = held.homes[rank.number].host.label
        noise = rank.noise or held.pilot.noise
        printed = f"; it printed: {noise}" if noise else ""
        error = HostError(
            f"node {rank.number} of job {held.pilot.job}: {what}{printed}",
            host=label,
            hint="Do the nodes share the home directory with the login machine?",
        )
        self._fleet.absent.add(Missing(label, error))
        with self._fleet.changed:
            self._fleet.grid.failures[label] = error
            self._fleet.changed.notify_all()

    def _accept(self, held: Held, rank: Rank, home: Home) -> None:
        """Thread: connect to a kernel that has reported."""
        try:
            report = json.loads(rank.words or "{}")
            name = report.get("hostname")
            if isinstance(name, str) and pilots.is_safe_name(name):
                home.host.name = name
            home.accept(report)
        except Exception as exc:
            rank.words = None
            self._rank_failed(held, rank, str(exc))
            return
        self._fleet.processes.add_agent(home)
        if self._fleet.keep is not None:
            self._fleet.keep.home_up(home.host, home.facts())
        before = held.predecessor
        if before is None or before.stage is not PilotStage.HELD:
            self._join(held, rank, home)
        # else it waits until its predecessor gives way
        rank.settled = True

    def _join(self, held: Held, rank: Rank, home: Home) -> None:
        """A node takes part from now on: for servers that look for a home, and for fresh ones on what is left.

        Where its predecessor still runs, servers come from there, and fresh ones only after its end.
        """
        fleet = self._fleet
        with fleet.changed:
            if rank.number in held.joined or fleet.halted:
                return
            held.joined.add(rank.number)
            self._stager.joins_late(home)
            fleet.add(home)
            fleet.grid.hosts = FixedHosts([*fleet.grid.hosts, home.host], fleet.grid)
        self._mover.house_the_homeless()
        if held.predecessor is None or held.predecessor.over:
            self._fill(home)
        fleet.notify()

    def _fill(self, home: Home) -> None:
        """Fresh servers of every service for the slots that it has left, after those that wait for a home.

        They come first though the home may end soon: fresh ones would take their room, and they would be lost.
        """
        self._mover.house_the_homeless(anyway=True)
        self._publisher.fill(home, self._mover.room)

    # -- pilots end, foreseen and not ------------------------------------------------------------------------------

    def _withdraw(self, held: Held) -> None:
        """A job that can never run is no hope: it is dropped, and all that wait for it are told."""
        held.pilot.facts["reason"] = f"it can never run here: {held.pilot.reason}"
        self._ended(held, owed=False)
        assert held.pilot.job is not None
        try:
            self.machine.system.cancel(held.pilot.job)
        except GridError as exc:
            logger.warning("job %s could not be withdrawn: %s", held.pilot.job, exc)

    def _renew(self, held: Held) -> None:
        try:
            with self._opening:
                held.successor = self._submit(held.request, held, number=self._intend(held.request))
        except GridError as exc:
            self._trouble["renew"] = str(exc)
            logger.warning("no successor of job %s yet: %s", held.pilot.job, exc)
            return
        self._trouble.pop("renew", None)
        self._renewals -= 1
        self._note_renewals()

    def _pay_what_is_owed(self) -> None:
        """Successors of pilots that ended before their time; tried again with each poll."""
        if self._owed and time.monotonic() - self._paid > min(self.poll_s, 2.0):
            self._paid = time.monotonic()
            for held in list(self._owed):
                if self._renewals > 0:
                    self._renew(held)
                if held.successor is not None or self._renewals <= 0:
                    self._owed.remove(held)

    def _ended(self, held: Held, *, owed: bool) -> None:
        """Its job has ended. `owed`: before its time."""
        held.stage = PilotStage.OVER
        pilot = held.pilot
        pilot.state = "ended"
        how = f"status {pilot.status}" if pilot.status is not None else f"{pilot.facts.get('reason') or 'no word'}"
        reason = f"its job {pilot.job} ended ({how})"
        logger.info("job %s ended (%s)", pilot.job, how)
        for rank, home in held.nodes:
            if not rank.settled:
                self._rank_failed(held, rank, "the job ended before its kernel answered")
            elif home.up:
                self._fleet.errand(lambda home=home: self._losses.lose_home(home, reason))  # type: ignore[misc]
            else:
                home.has_ended(reason)
        self._forget_homes(held)
        self._forget(held, reason)
        if held.successor is not None:
            for rank, home in held.successor.nodes:
                if rank.number in held.successor.joined:
                    self._fill(home)
                elif home.up:
                    self._join(held.successor, rank, home)
        elif owed:
            self._owed.append(held)  # it was cut short: qdel, a node that died
        self._fleet.in_thread("grid-clear", self.machine.remove, pilot)

    def _forget_homes(self, held: Held) -> None:
        fleet = self._fleet
        with fleet.changed:
            fleet.remove(held.homes)
            gone = {id(home.host) for home in held.homes}
            staying = (host for host in fleet.grid.hosts if id(host) not in gone)
            fleet.grid.hosts = FixedHosts(staying, fleet.grid)

    # -- what another client has to know ---------------------------------------------------------------------------

    def _note_renewals(self) -> None:
        if self._fleet.keep is not None:
            self._fleet.keep.pilots(self.request.plain(), self._renewals)

    def _forget(self, held: Held, reason: str) -> None:
        """Its job has ended: a later client has no business there."""
        if self._fleet.keep is not None and not self._fleet.keep.journal.leaving:
            for rank, home in held.nodes:
                if rank.settled and rank.words is not None:
                    self._fleet.keep.home_gone(home, reason)
            self._fleet.keep.pilot(held.number, None)

    def _servers_on(self, held: Held) -> list[KernelServer]:
        return [server for home in held.homes for server in self._mover.servers_at(home)]

    def _has_room_elsewhere(self, held: Held, now: float) -> bool:
        """Whether other nodes have room: after `shrink` of others, or where services have fewer servers than slots."""
        others = [home for home in self._fleet.homes if home.up and home not in held.homes]
        return any(self.takes_in(home, now) and not self._mover.servers_at(home) for home in others)

    # -- hopes -----------------------------------------------------------------------------------------------------

    def standing_by(self) -> list[Home]:
        return [home for held in self.held for home in held.homes]

    def takes_in(self, home: Home, now: float) -> bool:
        held = next((each for each in self.held if home in each.homes), None)
        handover_s = self.handover_s if held is None else self._handover_s(held)
        return home.ends_at is None or home.ends_at - now > handover_s

    def takes_back(self, home: Home) -> bool:
        return any(home in held.homes and held.stage in (PilotStage.HELD, PilotStage.LEAVING) for held in self.held)

    def is_expecting(self) -> bool:
        return not self._fleet.halted and (self._mover.has_homeless() or self._awaited())

    def _awaited(self) -> bool:
        """Whether nodes are on their way."""
        return bool(self._owed) or any(
            not held.over and (not held.settled or len(held.joined) < sum(home.up for home in held.homes))
            for held in self.held
        )

    def _renewing(self) -> bool:
        return self._renewals > 0 and any(not held.retired for held in self.held)

    def more_may_come(self) -> bool:
        return self._awaited() or self._renewing() or any(home.outage() is not None for home in self._fleet.homes)

    def is_hoping(self) -> bool:
        return self.is_expecting() or (self._renewing() and not self._fleet.halted)

    def homes_to_be(self) -> list[Home]:
        return [home for held in self.held if not held.over and held.predecessor is None for home in held.homes]

    def _tell_expectations(self) -> None:
        hoping = self.is_hoping()
        for service in self._fleet.grid._services.all():
            service.happen(partial(Roster.expect, expecting=hoping))
        self._fleet.notify()

    # -- in words --------------------------------------------------------------------------------------------------

    def on_their_way(self) -> list[str]:
        words = []
        for held in self.held:
            if not held.over:
                left = "" if held.ends_at is None else f", {held.ends_at - time.monotonic():.0f} s left"
                why = f" ({held.pilot.reason})" if held.pilot.reason else ""
                words.append(f"job {held.pilot.job} {held.pilot.state}{why}{left}")
        return words + list(self._trouble.values())

    def status(self) -> dict[str, Any]:
        now, failures = time.monotonic(), self._fleet.grid.failures
        return {
            "login": self.machine.host.label,
            "trouble": dict(self._trouble),
            "pilots": [
                {
                    "job": held.pilot.job,
                    "state": held.pilot.state,
                    "reason": held.pilot.reason,
                    "left_s": None if held.ends_at is None else round(held.ends_at - now, 1),
                    "nodes": [
                        {
                            "node": home.host.label,
                            "state": _state_of(held, rank, home),
                            "reason": "" if home.up else str(failures.get(home.host.label, "")),
                        }
                        for rank, home in held.nodes
                    ],
                }
                for held in self.held
            ],
        }


def _state_of(held: Held, rank: Rank, home: Home) -> str:
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
