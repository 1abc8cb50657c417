"""Servers that move from a host which is about to end to another one, with their state, while their proxies go on.

    here ──leave──> its state is on the way to us ──> homeless ──(a host takes it in)──> arriving ──> there
                    (later calls are kept)

A move begins behind the calls that the server has: the state that travels is the state after them. Calls made from then
on are kept here and run at the new place, in order. The server keeps its name and whoever has acquired it.

Lives here: the steps of one move.
Elsewhere:  when, and which hosts (`batch.py`), what is kept (`services/kernel_server.py`), asking the instance for its
            state (`kernel/serve.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grid.errors import GridError, ServerLost
from grid.services.kernel_server import KernelServer
from grid.services.result import Reply
from grid.wire import codec
from grid.wire.edited import as_they_are

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid as _Base
    from grid.grids.home import Home
    from grid.grids.processes import Processes
    from grid.wire.link import Link
else:
    _Base = object

logger = logging.getLogger(__name__)


@dataclass
class Move:
    """One server on its way."""

    server: KernelServer
    origin: Home
    state: tuple[bytes, list[Any], list[str]] | None = None  # pickle, its buffers, modules that it needs
    home: Home | None = None  # where it goes
    number: int = 0  # its new one, on our link
    peer: Any = None


class Moves(_Base):
    """The part of `Grid` that moves servers."""

    _arriving: dict[str, Move]
    _homeless: dict[str, Move]
    # of the grid
    _link: Link | None
    _homes: list[Home]
    _halted: bool
    processes: Processes
    in_thread: Callable[..., None]
    lose_server: Callable[..., None]
    servers_of: Callable[[Home], list[KernelServer]]
    _start_home: Callable[[Home], None]
    _workdir_of: Callable[[Home], str | None]
    _furnish: Callable[[Home], None]
    _wishes_of: Callable[[str], dict[str, Any]]

    def _tell_end(self, servers: list[KernelServer], seconds: float) -> None:
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

    def _move_out(self, server: KernelServer, seconds: float) -> None:
        """Begin to move a server away; a home is found for it when its state is here."""
        if not self._is_up(server) or server.peer.refuses is not None:  # else it moves already
            return
        self.set_aside(server, True)
        origin = server.home
        reply = Reply(server.link)
        move = Move(server, origin)  # type: ignore[arg-type]
        reply.when_done(lambda _: self.in_thread("grid-move", self._moved_out, move, reply))
        try:
            server.leave("@ends", (seconds, True), reply)
        except Exception as exc:
            logger.warning("server %s can't be moved: %s", server.name, exc)
            self.set_aside(server, False)

    def _is_up(self, server: KernelServer) -> bool:
        """Whether it can be spoken to."""
        return server.final_state is None and server.connected and not self.processes.is_starting(server)

    def _moved_out(self, move: Move, reply: Reply) -> None:
        """Thread: its state is here, or there will be none."""
        server = move.server
        if server.final_state is not None or self._halted:
            return
        try:
            move.state = reply.get(0)
        except ServerLost:
            return  # that is dealt with where losses are
        except Exception as exc:
            logger.warning("server %s stays where it is until its end: %s", server.name, exc)
            self.failures[f"{server.name} (move)"] = exc
            server.stay()
            self.set_aside(server, False)
            server.free_if_idle()
            return
        assert self._link is not None
        self.processes.remove(server.number)
        self._link.bye(server.peer)
        with self._lock:
            self._homeless[server.name] = move
        if move.origin.up:
            try:
                move.origin.ask_later("stop", [server.name], False)
            except GridError:
                pass  # its end is near anyway
        self._house_the_homeless()

    def _house_the_homeless(self) -> None:
        """Give each server without a home a place, as far as there are any; one that can hope for none is lost."""
        housed: list[tuple[Move, Home]] = []
        with self._lock:
            more = self._more_homes_may_come()
            for name, move in list(self._homeless.items()):
                home = self._home_for(move, anyway=not more)
                if home is not None:
                    del self._homeless[name]
                    move.home = home
                    self._arriving[name] = move
                    housed.append((move, home))
            hopeless = [] if more else [move.server for move in self._homeless.values()]
        for move, home in housed:
            self.in_thread("grid-move-in", self._move_in, move, home)
        for server in hopeless:
            assert self._link is not None
            self._link.errand(lambda lost=server: self._lose_homeless(lost))  # type: ignore[misc]

    def _lose_homeless(self, server: KernelServer) -> None:
        if server.name in self._homeless:  # nothing was found meanwhile
            self.lose_server(server, "its allocation ends, no other host has room for it, and none is to come")

    def _home_for(self, move: Move, *, anyway: bool) -> Home | None:
        """The home with the most room for a server of that service that does not end soon; locked by the caller.

        With `anyway` rather one that ends soon than none: the last to end.
        """
        now = time.monotonic()
        open_ones = {
            home: self._room(home, move.server.service_id)
            for home in self._homes
            if home.up and home.outage() is None and home is not move.origin
        }
        roomy = [home for home, room in open_ones.items() if room > 0]
        lasting = [home for home in roomy if self._takes_in(home, now)]
        if lasting:
            return max(lasting, key=lambda home: open_ones[home])
        return max(roomy, key=lambda home: home.ends_at or now) if roomy and anyway else None

    def _more_homes_may_come(self) -> bool:
        """Whether a host may join yet."""
        return True

    def _room(self, home: Home, service_id: str) -> int:
        """How many more servers of a service it has slots for."""
        here = [s for s in self.servers_of(home) if s.service_id == service_id]
        coming = [m for m in self._arriving.values() if m.home is home and m.server.service_id == service_id]
        return home.slots - len(here) - len(coming)

    def _takes_in(self, home: Home, now: float) -> bool:
        """Whether servers may move to this home."""
        return home.ends_at is None

    def _move_in(self, move: Move, home: Home) -> None:
        """Thread: start the server at its new home, from the state that it had."""
        server = move.server
        if move.home is not home:  # it was lost just now, and the server looks for another
            return
        assert self._link is not None and move.state is not None
        data, buffers, modules = move.state
        try:
            self._start_home(home)
            self._furnish(home)
            entries = dict(server.peer.image)
            packed = home.needs.pack_image(entries) if entries else None
            home.needs.have_modules(codec.modules_in(data) | set(modules) | (packed.modules if packed else set()))
            image = packed.parts if packed else ()
            parts = [memoryview(part) for part in (data, *buffers, *image)]
            blob = home.store().write(parts)
            move.number = self._link.number()
            self.processes.begin(server)
            wish = {"name": server.name, "service_id": server.service_id, "peer": move.number}
            published = {"blob": blob, "sizes": [len(part) for part in parts], "image": len(image), "warm": []}
            published |= {**self._wishes_of(server.service_id), "moved": True}
            home.ask("start", [{**wish, "niceness": home.host.niceness, "workdir": self._workdir_of(home)}], published)
        except Exception as exc:
            reason = f"it could not be moved to host {home.host.label!r}: {exc}"
            self._link.errand(lambda: self._lose_arrival(move, home, reason))

    def _lose_arrival(self, move: Move, home: Home, reason: str) -> None:
        if move.home is home:  # else that one was lost meanwhile, and the server looks for another
            self.lose_server(move.server, reason)

    def _connect_arrival(self, move: Move, inlet: str, outlet: str) -> None:
        """In the grid's thread: its new process listens."""
        assert move.home is not None
        move.peer = move.home.attach(move.number, inlet, outlet)
        self.processes.add(move.number, move.server, move.home, self.limits.lost_s)

    def _arrived(self, server: KernelServer) -> None:
        """In the grid's thread: its new process answers."""
        move = self._arriving.pop(server.name)
        assert self._link is not None and move.home is not None
        old, image = server.peer, {**server.peer.image, **as_they_are()}
        server.host = move.home.host
        server.settle(move.home, move.number, move.peer, image)
        where = move.origin.host.label
        self._link.drop(old, ServerLost("it has moved", service_id=server.service_id, server=server.name, host=where))
        if not move.origin.gone:
            move.origin.detach(old)
        logger.info("server %s moved from %s to %s", server.name, move.origin.host.label, move.home.host.label)
        self.set_aside(server, False)
        server.free_if_idle()

    def _turned_away(self, home: Home) -> None:
        """A host was lost to which servers were on their way: they look for another."""
        with self._lock:
            for name, move in list(self._arriving.items()):
                if move.home is home:
                    del self._arriving[name]
                    self.processes.end_start(name)
                    self.processes.remove(move.number)
                    move.home, move.peer = None, None
                    self._homeless[name] = move
        self._house_the_homeless()

    def _forget_move(self, server: KernelServer, error: ServerLost) -> None:
        """It was lost on its way, if it was on one."""
        arriving = self._arriving.pop(server.name, None)
        self._homeless.pop(server.name, None)
        if arriving is not None and arriving.peer is not None and self._link is not None:
            self.processes.remove(arriving.number)
            self._link.drop(arriving.peer, error)
        server.fail_kept(error)

    def set_aside(self, server: KernelServer, aside: bool) -> None:
        """Don't hand it out while it moves."""
        service = self._services.get(server.service_id)
        if service is None:
            return
        service.set_aside(server, aside)
