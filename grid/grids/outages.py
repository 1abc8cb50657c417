"""What a grid does when a host or a server falls silent: it asks, reconnects, waits, and gives up in the end.

Why it does what, is in the table of `silence.py`. Its events come from three sides: libzmq tells of connections in the
watch's thread, the watch's clock strikes, and threads that asked or reconnected come back. All that changes tables is
done by the grid's thread (an errand), so that news of one host never cross: its agent's farewell and the end of its
connection come within a moment.

Lives here: `Outages`: threads and errands.
Elsewhere:  the rules (`silence.py`), what a loss means (`losses.py`).
"""

from __future__ import annotations

import logging

from grid.errors import GridError
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.losses import Losses
from grid.grids.mover import Mover
from grid.grids.silence import HostAction, HostEvent, Verify
from grid.wire.link import Peer

logger = logging.getLogger(__name__)

_LOOK_S = 3.0
"""For a last look at a server that is given up."""


class Outages:
    """See the module."""

    def __init__(self, fleet: Fleet, mover: Mover, losses: Losses) -> None:
        self._fleet, self._mover, self._losses = fleet, mover, losses

    def on_connection(self, peer: Peer, up: bool) -> None:
        """In the watch's thread: libzmq lost, or regained, the connection to a process."""
        process = self._fleet.processes.find(peer.number)
        if process is None:
            return
        life = process.home.life
        if process.server is None:
            event = HostEvent.HEARD_AGAIN if up else HostEvent.FELL_SILENT
            self._fleet.errand(lambda: self.hear(process.home, event))
        elif up:
            life.trust(peer.number)
        else:
            # Heartbeats were missed already; an agent that is in touch tells of a death within milliseconds.
            life.suspect(peer.number, self._fleet.limits.heartbeat_s)

    def hear(self, home: Home, event: HostEvent) -> None:
        """In the grid's thread."""
        if self._fleet.halted:
            return
        for action in home.life.hear(event):
            self._perform(home, action)

    def look(self) -> None:
        """In the watch's thread, now and then."""
        for home in self._fleet.homes:
            for action in home.life.tick(broken=home.broken()):
                self._perform(home, action)
        if self._mover.has_homeless():  # a home that did not answer may do so now
            self._mover.house_the_homeless()

    def _perform(self, home: Home, action: HostAction | Verify) -> None:
        label, fleet = home.host.label, self._fleet
        if isinstance(action, Verify):
            fleet.in_thread("grid-verify", self._verify, home, action.process)
        elif action is HostAction.SET_ASIDE or action is HostAction.HAND_OUT:
            aside = action is HostAction.SET_ASIDE
            if aside:
                logger.warning("host %s does not answer", label)
            else:
                logger.info("host %s is back", label)
            for server in self._mover.servers_at(home):
                fleet.set_aside(server, aside)
        elif action is HostAction.PROBE:
            fleet.in_thread("grid-probe", self._probe, home)
        elif action is HostAction.REJOIN:
            fleet.in_thread("grid-rejoin", self._rejoin, home)
        elif action is HostAction.LOSE_DEAD:
            fleet.errand(lambda: self._losses.lose_home(home, "its agent died"))
        elif action is HostAction.LOSE_EXPIRED:
            reason = f"it did not answer for {fleet.limits.orphan_s:g} s"
            fleet.errand(lambda: self._losses.lose_home(home, reason))

    def _probe(self, home: Home) -> None:
        """Thread: does a host that can't be reached say that its agent is dead?"""
        event = HostEvent.REFUSED if home.refuses() else HostEvent.STANDS
        self._fleet.errand(lambda: self.hear(home, event))

    def _rejoin(self, home: Home) -> None:
        """Thread: the ssh connection of a tunnelled host broke; have another before the host gives us up."""
        try:
            home.reconnect()
        except GridError as exc:
            logger.info("host %s: no new connection yet: %s", home.host.label, exc)
        finally:
            self._fleet.errand(lambda: self.hear(home, HostEvent.TRIED))

    def _verify(self, home: Home, number: int) -> None:
        """Thread: is it the server that is silent, or its whole host?"""
        process, asked = self._fleet.processes.find(number), home.life.now()
        if process is None or process.server is None:
            return
        try:
            home.ask("tail", process.server.name, 1, timeout=self._fleet.limits.lost_s)
        except GridError:
            return
        if home.life.is_guilty(number, asked):
            new = self._fleet.processes.is_starting(process.server)
            word = "did not answer after its start" if new else "went silent"
            at = process.server.where(_LOOK_S)  # its agent answers, and looks from outside
            self._fleet.errand(lambda: self._give_up(number, word, at))

    def _give_up(self, number: int, word: str, at: str) -> None:
        process = self._fleet.processes.find(number)
        if process is None or process.server is None:
            return  # it has ended in the meantime
        if process.home.up:
            try:
                process.home.ask_later("stop", [process.server.name], True)
            except GridError:
                pass
        limit = self._fleet.limits.lost_s
        seen = at.partition(";")[0] or "is it stopped or swapped out?"
        what = f"it {word} (no heartbeat for {limit:g} s; {seen})"
        self._losses.lose_server(process.server, what)
