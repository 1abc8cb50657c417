"""News of servers, as their hosts' agents tell it: up, failed, ended, printed.

News is late by nature, and comes from two sides: an agent tells that a process listens, or has ended; the process
itself answers its first word (`answered`). Meanwhile the server may have been withdrawn, lost with its host, or moved
to another one. So all of it is taken by the grid's thread alone, in the order in which it came; and each kind of news
looks first whether the server is still starting, and still at the host that speaks of it. A name that is in the table
of starting servers leaves it once: by the first of answer, failure and loss.

Lives here: `News`.
Elsewhere:  the agent (`kernel/agent.py`), losses (`losses.py`), servers that arrive by a move (`mover.py`).
"""

from __future__ import annotations

import errno
import logging
import os
import signal
from collections.abc import Callable
from typing import Any

from grid.errors import HostError
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.losses import Losses
from grid.grids.mover import Mover
from grid.grids.output import Output
from grid.grids.publishing import DESCRIPTORS, Publisher
from grid.kernel.descriptors import left, limit
from grid.wire.link import Peer

logger = logging.getLogger(__name__)


class News:
    """See the module."""

    def __init__(self, fleet: Fleet, publisher: Publisher, mover: Mover, losses: Losses, output: Output) -> None:
        self._fleet, self._publisher, self._mover, self._losses, self._output = fleet, publisher, mover, losses, output
        self.on_attached: Callable[..., None] = lambda *_: None
        """A server that an earlier client had listens to us now; see `resuming.py`."""
        self.on_taken: Callable[[str], None] = lambda who: None
        """Another client has taken our place."""

    def on_event(self, peer: Peer, event: tuple[Any, ...]) -> None:
        """In the grid's thread: an agent has news."""
        process = self._fleet.processes.find(peer.number)
        if process is None or process.server is not None:
            return
        home, (kind, *details) = process.home, event
        if kind == "ready":
            self.server_up(home, *details)
        elif kind == "failed":
            self._server_failed(home, *details)
        elif kind == "ended":
            self.server_ended(home, *details)
        elif kind == "output":
            for name, text in details[0]:
                self._output.show(name, home.host.label, text)
        elif kind == "attached":
            self.on_attached(home, *details)
        elif kind == "taken":
            self.on_taken(str(details[0]))
        elif kind == "farewell":
            self._losses.lose_home(home, str(details[0]))

    def server_up(self, home: Home, name: str, inlet: str, outlet: str, pid: int) -> None:
        """A process listens: connect to it."""
        if self._mover.connect(name, home, inlet, outlet):
            return
        fleet = self._fleet
        server = fleet.processes.has_begun(name)
        if server is None or server.final_state is not None or fleet.halted:
            if home.up:
                home.ask_later("stop", [name], True)  # it was withdrawn while it started
            return
        try:
            if left() < DESCRIPTORS:  # libzmq would try again for ever
                raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}; {limit()} on this machine")
            peer = home.attach(server.number, inlet, outlet)
        except Exception as exc:  # no descriptor is left, or the tunnel is closed: it would be starting for ever
            if home.up:
                home.ask_later("stop", [name], True)
            what = f"server {name} started, but can't be connected to ({exc})"
            error = HostError(what, host=home.host.label, hint="See `ulimit -n`, and `grid doctor`")
            self._publisher.host_failed(home, error, [server])
            return
        has = self._publisher.has(server.service_id)
        server.attach(fleet.link, peer, has if server.snapshots is None else server.snapshots.born(has))
        if fleet.keep is not None:
            fleet.keep.server_up(server, home.number)
        fleet.processes.add(server.number, server, home, fleet.limits.lost_s)

    def answered(self, peer: Peer) -> None:
        """In the grid's thread: a process on a host answered for the first time."""
        fleet = self._fleet
        process = fleet.processes.find(peer.number)
        if process is None or process.server is None:
            return
        home, server = process.home, process.server
        home.life.trust(peer.number)
        if fleet.processes.end_start(server.name) is None:
            return
        home.has_served()
        fleet.absent.came(server.host.label)
        if self._mover.arrived(server):
            return
        if fleet.grid.display:
            self._output.open_window(server.name, server.host.label, fleet.grid.window_size)
        if server.service_id in fleet.grid._services:
            fleet.grid.add_server(server)
        fleet.notify()

    def _server_failed(self, home: Home, name: str, reason: str, tail: str) -> None:
        self._output.forget(name)
        if self._mover.refused(name, home, reason.strip()) or self._mover.is_arriving(name):
            return  # it looks for another home, or has found one
        server = self._fleet.processes.end_start(name)
        if server is None or server.final_state is not None:
            return
        printed = f"\nLast lines that it printed:\n{tail}" if tail and tail not in reason else ""
        error = HostError(
            f"server {name} did not start: {reason.strip()}{printed}",
            host=home.host.label,
            hint="Its log is kept until the grid ends; see `grid logs`" if printed else "The others serve",
        )
        self._publisher.host_failed(home, error, [server])

    def server_ended(self, home: Home, name: str, certificate: dict[str, Any]) -> None:
        """A process has ended."""
        self._output.forget(name)
        server = self._fleet.processes.named(name)
        if server is None or not self._mover.is_at(server, home):
            return  # it moves, or has moved, and has ended only here
        if certificate["signal"]:
            how = f"ended by {signal.Signals(certificate['signal']).name}"
        else:
            how = f"ended with exit status {certificate['exit_status']}"
        peak = f"peak memory {certificate['peak_kb'] / 1024:.0f} MB"
        self._losses.lose_server(server, f"its process {how} ({peak})", certificate)
