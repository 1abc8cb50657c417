"""Servers that move from a host which is about to end to another one, with their state, while their proxies go on.

    here ──leave──> leaving ──saved──> homeless ──housed──> arriving ──answered──> there
                       └──stayed──> stays     └─turned away, refused─┘   lost, from each of these

A move begins behind the calls that the server has: the state that travels is the state after them. Calls made from then
on are kept here and run at the new place, in order. The server keeps its name and whoever has acquired it. A home that
lacks what it needs refuses: others are tried, and then the one that it came from. A home that did not answer has not
refused: it may be asked again after a heartbeat.

Two processes of one server exist for a while, and a host may be lost under either: so each step is taken under the
lock, from the state that the table names, or not at all. The old process is off the table of processes before the move
is homeless: what is heard of it afterwards is no loss.

Lives here: the steps of one move.
Elsewhere:  when, and which hosts (`source.py`), which of them (`housing.py`), what is kept
            (`services/kernel_server.py`), asking the instance for its state (`kernel/serve.py`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from grid.errors import ConnectError, GridError, NeedsError, ServerLost
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.housing import Lodging, where_to
from grid.grids.processes import home_of
from grid.grids.reserving import reserve
from grid.grids.snapshots import bring_state
from grid.grids.source import HostSource
from grid.grids.stager import Stager
from grid.kernel.saving import Saved
from grid.services.kernel_server import KernelServer
from grid.services.result import Reply
from grid.slots.needs import Needs
from grid.wire import codec
from grid.wire.edited import as_they_are

logger = logging.getLogger(__name__)

_FOR_EVER = float("inf")


class MoveState(Enum):
    """How far a move is."""

    LEAVING = "leaving"  # its state is on the way to us; later calls are kept
    HOMELESS = "homeless"  # its state is here
    ARRIVING = "arriving"  # a new process starts from it
    THERE = "there"
    STAYED = "stayed"
    LOST = "lost"


class MoveEvent(Enum):
    """What becomes of it."""

    SAVED = "saved"  # its state is here
    STAYED = "stayed"  # it can't be saved, or does not want to
    HOUSED = "housed"  # a host has room
    TURNED_AWAY = "turned away"  # that host was lost, or did not answer
    REFUSED = "refused"  # that host lacks what it needs, or could not start it
    ANSWERED = "answered"  # the new process does
    LOST = "lost"  # the server is, or was terminated


UNDER_WAY = (MoveState.LEAVING, MoveState.HOMELESS, MoveState.ARRIVING)

MOVES = {
    (MoveState.LEAVING, MoveEvent.SAVED): MoveState.HOMELESS,
    (MoveState.LEAVING, MoveEvent.STAYED): MoveState.STAYED,
    (MoveState.HOMELESS, MoveEvent.HOUSED): MoveState.ARRIVING,
    (MoveState.ARRIVING, MoveEvent.TURNED_AWAY): MoveState.HOMELESS,
    (MoveState.ARRIVING, MoveEvent.REFUSED): MoveState.HOMELESS,
    (MoveState.ARRIVING, MoveEvent.ANSWERED): MoveState.THERE,
    **{(state, MoveEvent.LOST): MoveState.LOST for state in UNDER_WAY},
}
"""An event that a state does not name comes too late: a server may be lost in any thread's middle."""


@dataclass(frozen=True)
class Refusal:
    """Why a home did not take a server in, and until when it is not asked again (by the clock of its `life`)."""

    why: str
    until: float

    @property
    def lasting(self) -> bool:
        """It lacks what the server needs: asking again helps nobody."""
        return self.until == _FOR_EVER


@dataclass
class Move:
    """One server on its way."""

    server: KernelServer
    origin: Home
    state: MoveState = MoveState.LEAVING
    saved: Saved | None = None
    home: Home | None = None  # where it goes
    number: int = 0  # its new one, on our link
    peer: Any = None
    refusals: dict[Home, Refusal] = field(default_factory=dict)  # homes that were tried in vain


class Mover:
    """The moves of one grid.

    Args:
        wishes_of: What the kernel of each server of a service is told.
        needs_of: What each server of a service needs of its host.
        count_of: How many servers a service wants on a host; 0: `where=` does not mean it.
        lose: Called, in the grid's thread, with a server that could not be moved, and why.
    """

    def __init__(
        self,
        fleet: Fleet,
        source: HostSource,
        stager: Stager,
        wishes_of: Callable[[str], dict[str, Any]],
        needs_of: Callable[[str], Needs | None],
        count_of: Callable[[str, Home], int],
        lose: Callable[[KernelServer, str], None],
    ) -> None:
        self._fleet, self._source, self._stager = fleet, source, stager
        self._wishes_of, self._needs_of, self._count_of, self._lose = wishes_of, needs_of, count_of, lose
        self._moves: dict[str, Move] = {}  # server -> its move

    def tell_end(self, servers: list[KernelServer], seconds: float) -> None:
        """Tell instances that want to know that their allocation ends in `seconds`; does not wait."""
        for server in servers:
            if server.connected and server.final_state is None:
                word = codec.dumps(("@ends", (seconds, False), {}))
                try:
                    server.link.call(server.peer, word, self._watched(server, "allocation_ends"))
                except Exception as exc:
                    logger.debug("server %s can't be told of its end: %s", server.name, exc)

    def _watched(self, server: KernelServer, what: str) -> Reply:
        reply = Reply(server.link)

        def look(_: Any) -> None:
            if reply.exception() is not None:
                logger.warning("%s of server %s failed: %s", what, server.name, reply.exception())
            server.free_if_idle()

        reply.when_done(look)
        return reply

    def move_out(self, server: KernelServer, seconds: float) -> None:
        """Begin to move a server away; a home is found for it when its state is here."""
        if not self._fleet.is_up(server) or server.peer.refuses is not None:  # else it moves already
            return
        self._fleet.set_aside(server, True)
        reply = Reply(server.link)
        self._moves[server.name] = move = Move(server, home_of(server))
        reply.when_done(lambda _: self._fleet.in_thread("grid-move", self._moved_out, move, reply))
        try:
            server.leave("@ends", (seconds, True), reply)
        except Exception as exc:
            logger.warning("server %s can't be moved: %s", server.name, exc)
            self._happen(move, MoveEvent.STAYED)
            self._fleet.set_aside(server, False)

    def _moved_out(self, move: Move, reply: Reply) -> None:
        """Thread: its state is here, or there will be none."""
        server, fleet = move.server, self._fleet
        if server.final_state is not None or fleet.halted:
            return
        try:
            move.saved = reply.get(0)
        except ServerLost:
            return  # that is dealt with where losses are
        except Exception as exc:
            logger.warning("server %s stays where it is until its end: %s", server.name, exc)
            fleet.grid.failures[f"{server.name} (move)"] = exc
            self._happen(move, MoveEvent.STAYED)
            server.stay()
            fleet.set_aside(server, False)
            server.free_if_idle()
            return
        fleet.processes.remove(server.number)
        fleet.link.bye(server.peer)
        # Only now: from here on a host may take it in, and what the old process says is of no interest.
        if not self._happen(move, MoveEvent.SAVED):
            return
        if move.origin.up:
            try:
                move.origin.ask_later("stop", [server.name], False)
            except GridError:
                pass  # its end is near anyway
        self.house_the_homeless()

    def house_the_homeless(self, *, anyway: bool = False) -> None:
        """Give each server without a home a place, as far as there are any; one that can hope for none is lost.

        With `anyway` a home that ends soon is good enough, though a better one may come.
        """
        housed: list[tuple[Move, Home]] = []
        with self._fleet.changed:
            more = self._source.more_may_come()
            homeless = [move for move in self._moves.values() if move.state is MoveState.HOMELESS]
            for move in homeless:
                home = where_to(self._lodgings(move), anyway=anyway, hopeless=not more)
                if home is not None and self._happen(move, MoveEvent.HOUSED):
                    move.home = home
                    housed.append((move, home))
            waiting = [move for move in homeless if move.state is MoveState.HOMELESS]
            hopeless = [move for move in waiting if not more and not self._may_answer_yet(move)]
        for move, home in housed:
            self._fleet.in_thread("grid-move-in", self._move_in, move, home)
        for move in hopeless:
            self._fleet.errand(lambda move=move: self._lose_homeless(move))  # type: ignore[misc]

    def _lose_homeless(self, move: Move) -> None:
        if move.state is MoveState.HOMELESS:  # nothing was found meanwhile
            told = [f"host {home.host.label!r} can't have it: {no.why}" for home, no in move.refusals.items()]
            what = ["its allocation ends, no other host has room for it, and none is to come", *told]
            self._lose(move.server, "; ".join(what))

    def _lodgings(self, move: Move) -> list[Lodging[Home]]:
        """The homes that a server may go to; locked by the caller."""
        now = time.monotonic()
        return [
            Lodging(
                home,
                self.room(home, move.server.service_id),
                self._source.takes_in(home, now),
                home.ends_at or now,
                origin=home is move.origin,
                refused=home in move.refusals,
            )
            for home in self._open_to(move)
            if home.outage() is None and (home not in move.refusals or move.refusals[home].lasting)
        ]

    def _open_to(self, move: Move) -> list[Home]:
        """The homes that are not lost and may have it; refusals whose time is up are forgotten."""
        homes = self._fleet.homes
        for home in [home for home, no in move.refusals.items() if home.life.now() >= no.until]:
            del move.refusals[home]
        return [home for home in homes if home.up and (home is not move.origin or self._source.takes_back(home))]

    def _may_answer_yet(self, move: Move) -> bool:
        """Whether a home that does not answer now could take it in later: it was not lost yet."""
        silent = {home for home, no in move.refusals.items() if not no.lasting}
        return any(home in silent or home.outage() is not None for home in self._open_to(move))

    def room(self, home: Home, service_id: str) -> int:
        """How many more servers of a service it has slots for."""
        here = [server for server in self.servers_at(home) if server.service_id == service_id]
        coming = [move for move in self._arrivals() if move.home is home and move.server.service_id == service_id]
        return self._count_of(service_id, home) - len(here) - len(coming)

    def _move_in(self, move: Move, home: Home) -> None:
        """Thread: start the server at its new home, from the state that it had."""
        server = move.server
        if move.home is not home:  # it was lost just now, and the server looks for another
            return
        assert move.saved is not None
        blob = ""
        try:
            self._fleet.start(home)
            self._stager.furnish(home)
            slot = ""
            if needs := self._needs_of(server.service_id):
                found = reserve(home, [server.name], needs, self._fleet.limits.lost_s, self._fleet)
                if not found.granted:
                    raise NeedsError(found.why, host=home.host.label, hint=f"It needs {needs}")
                slot = found.granted[server.name]
            wishes = self._wishes_of(server.service_id)
            published, blob = bring_state(home, move.saved, dict(server.peer.image), wishes)
            wish: dict[str, Any] = {"name": server.name, "service_id": server.service_id}
            with self._fleet.changed:
                if self._arriving(server.name) is not move or move.home is not home:
                    raise GridError("it was lost, or its host was")
                server.slot, move.number = slot, self._fleet.link.number()
                self._fleet.processes.begin(server)
            wish |= {"peer": move.number, "niceness": home.host.niceness}
            home.ask("start", [{**wish, "workdir": self._stager.workdir_of(home)}], published)
        except Exception as exc:
            reason = exc.what if isinstance(exc, NeedsError) else str(exc)
            pause_s = self._fleet.limits.heartbeat_s if isinstance(exc, ConnectError) else _FOR_EVER
            if home.up:
                with contextlib.suppress(GridError):
                    home.ask_later("stop", [server.name], True)  # its slot is free again
                    if blob:
                        home.ask_later("drop", blob)
            self._fleet.errand(partial(self._refused, server.name, home, reason, pause_s))

    def _refused(self, name: str, home: Home, reason: str, pause_s: float) -> None:
        self.refused(name, home, reason, pause_s)

    def refused(self, name: str, home: Home, reason: str, pause_s: float = _FOR_EVER) -> bool:
        """In the grid's thread: a home can't have a server that was on its way there, so it looks for another.

        Args:
            pause_s: For how long this home is not asked again; for ever where it lacks what the server needs.

        Returns:
            False: it was not on its way there.
        """
        with self._fleet.changed:
            move = self._arriving(name)
            if move is None or move.home is not home:
                return False  # that home was lost meanwhile, or the server was
            self._fleet.processes.end_start(name)
            move.refusals[home], move.home = Refusal(reason, home.life.now() + pause_s), None
            self._happen(move, MoveEvent.REFUSED if pause_s == _FOR_EVER else MoveEvent.TURNED_AWAY)
        logger.warning("server %s can't move to host %s: %s", name, home.host.label, reason)
        self.house_the_homeless()
        return True

    # -- news of those that arrive: in the grid's thread -----------------------------------------------------------

    def connect(self, name: str, home: Home, inlet: str, outlet: str) -> bool:
        """A process listens; whether it is a new one of a server that moves to this home."""
        move = self._arriving(name)
        if move is None or move.home is not home:
            return False
        move.peer = home.attach(move.number, inlet, outlet)
        self._fleet.processes.add(move.number, move.server, home, self._fleet.limits.lost_s)
        return True

    def arrived(self, server: KernelServer) -> bool:
        """Its process answers; whether it is the new one of a server that moved."""
        move = self._arriving(server.name)
        if move is None or not self._happen(move, MoveEvent.ANSWERED):
            return False
        assert move.home is not None
        old, image = server.peer, {**server.peer.image, **as_they_are()}
        server.host = move.home.host
        if self._fleet.keep is not None:  # before a call goes there
            self._fleet.keep.server_moved(server, move.number, move.home.number)
        server.settle(move.home, move.number, move.peer, image)
        where = move.origin.host.label
        error = ServerLost("it has moved", service_id=server.service_id, server=server.name, host=where)
        self._fleet.link.drop(old, error)
        if not move.origin.gone:
            move.origin.detach(old)
        if move.home is move.origin:
            logger.warning("server %s goes on at %s, where it was: it can move to no other host", server.name, where)
        else:
            logger.info("server %s moved from %s to %s", server.name, where, move.home.host.label)
        self._fleet.set_aside(server, False)
        server.free_if_idle()
        return True

    def turn_away(self, home: Home) -> None:
        """A host was lost to which servers were on their way: they look for another."""
        with self._fleet.changed:
            turned_away = [(move, move.peer) for move in self._arrivals() if move.home is home]
            for move, _ in turned_away:
                self._fleet.processes.end_start(move.server.name)
                self._fleet.processes.remove(move.number)
                move.home, move.peer = None, None
                self._happen(move, MoveEvent.TURNED_AWAY)
        for move, peer in turned_away:
            if peer is not None:
                what, label, server = "its host was lost before it came", home.host.label, move.server
                error = ServerLost(what, service_id=server.service_id, server=server.name, host=label)
                self._fleet.link.drop(peer, error)
        self.house_the_homeless()

    def forget(self, server: KernelServer, error: ServerLost) -> None:
        """It was lost on its way, if it was on one."""
        move = self._moves.get(server.name)
        if move is not None and self._happen(move, MoveEvent.LOST) and move.peer is not None:
            self._fleet.processes.remove(move.number)
            self._fleet.link.drop(move.peer, error)
        server.fail_kept(error)

    # -- moves under way -------------------------------------------------------------------------------------------

    def _happen(self, move: Move, event: MoveEvent) -> bool:
        """A step of a move; false where it can't take that step, because it has ended meanwhile."""
        with self._fleet.changed:
            state = MOVES.get((move.state, event))
            if state is None:
                return False
            move.state = state
            if state not in UNDER_WAY:
                self._moves.pop(move.server.name, None)
            return True

    def _arrivals(self) -> list[Move]:
        return [move for move in list(self._moves.values()) if move.state is MoveState.ARRIVING]

    def _arriving(self, name: str) -> Move | None:
        move = self._moves.get(name)
        return move if move is not None and move.state is MoveState.ARRIVING else None

    def is_arriving(self, name: str) -> bool:
        """Whether a new process of this server is starting."""
        return self._arriving(name) is not None

    def is_at(self, server: KernelServer, home: Home) -> bool:
        """Whether that is the home where its process runs, or the new one starts."""
        move = self._arriving(server.name)
        return (server.home if move is None else move.home) is home

    def may_return(self, home: Home) -> list[KernelServer]:
        """Servers that have left this home, and may come back: other hosts may lack what they need."""
        others = any(other is not home and other.up for other in self._fleet.homes)
        return [
            move.server
            for move in list(self._moves.values())
            if move.origin is home and move.state in (MoveState.HOMELESS, MoveState.ARRIVING)
            if others or self._needs_of(move.server.service_id) is not None
        ]

    def has_homeless(self) -> bool:
        """Whether servers wait for a host."""
        return any(move.state is MoveState.HOMELESS for move in list(self._moves.values()))

    def servers_at(self, home: Home) -> list[KernelServer]:
        """The servers of a home: not those whose state has left it, nor those that are on their way there."""
        moves = self._moves
        return [
            server
            for server in self._fleet.servers()
            if server.home is home and (server.name not in moves or moves[server.name].state is MoveState.LEAVING)
        ]
