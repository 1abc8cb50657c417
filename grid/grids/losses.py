"""What is lost: servers and whole hosts, with the calls that they had.

A lost server's calls are not repeated: nobody knows how far they were. Their error says what is known of the end, and
how many servers have died with the very same call.

All servers that are lost at one stroke leave the tables together, before a call of any of them fails: who then asks for
another server, in a call-back of the first error, gets none of the dead. Terminated servers that had calls yet are lost
with their host, because nobody else will tell of their end.

Lives here: `Losses`, by the grid's thread, and the error of calls that were lost.
Elsewhere:  who finds out (`news.py`, `outages.py`), who takes their place (`publishing.py`), moves (`mover.py`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from grid.errors import ConnectError, GridError, ServerLost
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.mover import Mover
from grid.grids.processes import home_of
from grid.grids.publishing import Publisher
from grid.services.kernel_server import KernelServer
from grid.services.roster import Event
from grid.services.server import Server
from grid.slots.needs import shown
from grid.wire.frames import HEAD

logger = logging.getLogger(__name__)

_REMEMBERED_DEATHS = 1000


class Losses:
    """See the module."""

    def __init__(self, fleet: Fleet, publisher: Publisher, mover: Mover) -> None:
        self._fleet, self._publisher, self._mover = fleet, publisher, mover
        self._fatal: dict[bytes, int] = {}  # digest of a call -> how many servers died with it

    def lose_server(self, server: KernelServer, what: str, certificate: dict[str, Any] | None = None) -> None:
        """A server was lost: its calls fail, it leaves the tables, it is replaced if that was asked for."""
        self._lose([server], what, certificate)

    def lose_home(self, home: Home, reason: str) -> None:
        """A host was lost, and all that ran there."""
        close = home.part()
        if close is None:
            return  # that is known
        label, fleet = home.host.label, self._fleet
        error = ConnectError(reason, host=label, hint=f"Try `grid doctor {label}`")
        fleet.grid.failures[label] = error
        servers = self._mover.servers_at(home)
        terminated = [server for server in fleet.processes.servers() if server.final_state and server.home is home]
        servers += [server for server in terminated if server not in servers]
        self._lose(servers, f"host {label!r} was lost: {reason}", None)
        if home.peer is not None:
            fleet.processes.remove(home.peer.number)
            fleet.link.drop(home.peer, error)
        self._mover.turn_away(home)
        fleet.in_thread("grid-let-go", close)

    def _lose(self, servers: Sequence[KernelServer], what: str, certificate: dict[str, Any] | None) -> None:
        struck_off = [(server, *self._strike_off(server, what, certificate)) for server in servers]
        for server, error, start_another in struck_off:
            if server.connected:
                self._fleet.link.drop(server.peer, error)
                if not home_of(server).gone:
                    home_of(server).detach(server.peer)
            if start_another is not None:
                start_another()
        self._fleet.notify()

    def _strike_off(self, server: KernelServer, what: str, certificate: dict[str, Any] | None) -> tuple[Any, Any]:
        """Take a lost server off all tables; returns the error of its calls, and what starts another in its place."""
        terminated = server.final_state is not None or self._fleet.halted
        deaths = 0 if terminated else self._deaths_with(server)
        error = _death(server, (server.reason or "terminated") if terminated else what, certificate, deaths=deaths)
        self._fleet.processes.remove(server.number)
        self._fleet.processes.end_start(server.name)
        if not terminated:
            logger.warning("%s", error)
            self._fleet.grid.failures.setdefault(server.name, error)
        start_another = None if terminated else self._publisher.replace(server)
        self._fleet.gone(server, Event.LOST, what)
        return error, start_another

    def _deaths_with(self, server: KernelServer) -> int:
        """How many servers have died now while they ran the call that this one was running."""
        oldest = server.oldest() if server.connected else None
        frame = server.peer.session.kept.get(oldest.call) if oldest is not None else None
        if frame is None:
            return 0
        digest = hashlib.blake2b(frame[HEAD.size :], digest_size=16).digest()  # the head is of this sending only
        with self._fleet.changed:
            self._fatal[digest] = deaths = self._fatal.pop(digest, 0) + 1
            while len(self._fatal) > _REMEMBERED_DEATHS:
                del self._fatal[next(iter(self._fatal))]
        return deaths

    def left(self, server: KernelServer, reason: str) -> None:
        """It has left the tables, lost or terminated: it goes nowhere any more."""
        if self._fleet.keep is not None and not self._fleet.halted:
            self._fleet.keep.server_gone(server, home_of(server).number, reason)
        if server.connected:
            self._mover.forget(server, _death(server, reason))

    def end_at_once(self, servers: Sequence[Server]) -> None:
        """End servers whatever they do, and have others in their places."""
        for server in servers:
            if not isinstance(server, KernelServer) or server.final_state is not None:
                continue
            start_another = self._publisher.replace(server)
            self._fleet.gone(server, Event.TERMINATED, "its calls were ended with their pool")
            try:
                server.end(force=True)
            except GridError as exc:
                logger.warning("server %s can't be told to end: %s", server.name, exc)
            if start_another is not None:
                start_another()


def _what_follows(server: KernelServer) -> str:
    """For the calls that it had."""
    retry = getattr(server.service, "retry", None)
    return "The call was not repeated" if retry is None else "Calls that its service declares repeatable are made again"


def _death(
    server: KernelServer, what: str, certificate: dict[str, Any] | None = None, *, deaths: int = 0
) -> ServerLost:
    """The error of all calls that a lost server had."""
    certificate = certificate or {"exit_status": None, "signal": None, "last_output": ""}
    oldest = server.oldest() if server.connected else None
    call = getattr(oldest, "method", None)
    if call == "@call":
        call = "__call__"
    left_s, kills = server.left_s, certificate.get("oom_kills", 0)
    facts = [what]
    if taken := certificate.get("memory_taken"):
        limit = shown(certificate["memory_limit"])
        facts = [f"it was ended because it took {shown(taken)} of memory, and may have {limit} (needs: memory)"]
        kills = 0
    if kills:
        plural = "processes" if kills > 1 else "a process"
        facts.append(f"meanwhile the kernel of that host killed {plural} for lack of memory: most likely this one")
    if server.slot:
        facts.append(f"its slot was {server.slot}")
    if left_s is not None:
        facts.append(f"its allocation had {left_s:.0f} s left" if left_s > 0 else "its allocation had ended")
    if server.snapshots is not None:
        facts.append(server.snapshots.words())
    if call == "@snapshot":
        facts.append("its state was being saved")
    elif call is not None:
        facts.append(f"it was running {call!r}" if not call.startswith("@") else "it was running calls of a map")
    if deaths > 1:
        facts.append(f"{deaths} servers have died with this very call: don't give it to another unchanged")
    return ServerLost(
        "; ".join(facts),
        service_id=server.service_id,
        server=server.name,
        host=server.host.label,
        hint=_what_follows(server),
        exit_status=certificate["exit_status"],
        signal=certificate["signal"],
        last_output=certificate["last_output"],
        oom_kills=kills,
        left_s=left_s,
        call=call,
        deaths=deaths,
        slot=server.slot,
        memory_peak=certificate["peak_kb"] << 10 if certificate.get("peak_kb") else None,
        memory_limit=certificate.get("memory_limit"),
        snapshot_age_s=None if server.snapshots is None else server.snapshots.age_s(),
    )
