"""What a grid does when a host or a server falls silent: it asks, reconnects, waits, and gives up in the end.

Why it does what, is in the table of `silence.py`. Its events come from three sides: libzmq tells of connections in the
watch's thread, the watch's clock strikes, and threads that asked or reconnected come back. All that changes tables is
done by the grid's thread (an errand), so that news of one host never cross: its agent's farewell and the end of its
connection come within a moment.

Lives here: `Outages`: threads and errands.
Elsewhere:  the rules (`silence.py`), what a loss means (`grid.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from grid.errors import GridError
from grid.grids.home import Home
from grid.grids.processes import Processes
from grid.grids.silence import Action, Event, Verify
from grid.limits import Limits
from grid.services.kernel_server import KernelServer
from grid.wire.link import Peer

logger = logging.getLogger(__name__)


class Bereaved(Protocol):
    """The grid, as far as outages know it."""

    limits: Limits

    @property
    def processes(self) -> Processes: ...
    def ishalted(self) -> bool: ...
    def errand(self, what: Callable[[], None]) -> None:
        """Have it done by the grid's thread."""

    def in_thread(self, name: str, body: Callable[..., None], /, *args: object) -> None: ...
    def servers_of(self, home: Home) -> list[KernelServer]: ...
    def set_aside(self, server: KernelServer, aside: bool) -> None:
        """Hand it out to nobody, or again."""

    def lose_home(self, home: Home, reason: str) -> None: ...
    def lose_server(self, server: KernelServer, what: str) -> None: ...


class Outages:
    """See the module."""

    def __init__(self, grid: Bereaved) -> None:
        self._grid = grid

    def on_connection(self, peer: Peer, up: bool) -> None:
        """In the watch's thread: libzmq lost, or regained, the connection to a process."""
        process = self._grid.processes.find(peer.number)
        if process is None:
            return
        life = process.home.life
        if process.server is None:
            event = Event.HEARD_AGAIN if up else Event.FELL_SILENT
            self._grid.errand(lambda: self.hear(process.home, event))
        elif up:
            life.trust(peer.number)
        else:
            # Heartbeats were missed already; an agent that is in touch tells of a death within milliseconds.
            life.suspect(peer.number, self._grid.limits.heartbeat_s)

    def hear(self, home: Home, event: Event) -> None:
        """In the grid's thread."""
        if self._grid.ishalted():
            return
        for action in home.life.hear(event):
            self._perform(home, action)

    def look(self, homes: Sequence[Home]) -> None:
        """In the watch's thread, now and then."""
        for home in homes:
            for action in home.life.tick(broken=home.broken()):
                self._perform(home, action)

    def _perform(self, home: Home, action: Action | Verify) -> None:
        label, grid = home.host.label, self._grid
        if isinstance(action, Verify):
            grid.in_thread("grid-verify", self._verify, home, action.process)
        elif action is Action.SET_ASIDE or action is Action.HAND_OUT:
            aside = action is Action.SET_ASIDE
            if aside:
                logger.warning("host %s does not answer", label)
            else:
                logger.info("host %s is back", label)
            for server in grid.servers_of(home):
                grid.set_aside(server, aside)
        elif action is Action.PROBE:
            grid.in_thread("grid-probe", self._probe, home)
        elif action is Action.REJOIN:
            grid.in_thread("grid-rejoin", self._rejoin, home)
        elif action is Action.LOSE_DEAD:
            grid.errand(lambda: grid.lose_home(home, "its agent died"))
        elif action is Action.LOSE_EXPIRED:
            reason = f"it did not answer for {grid.limits.orphan_s:g} s"
            grid.errand(lambda: grid.lose_home(home, reason))

    def _probe(self, home: Home) -> None:
        """Thread: does a host that can't be reached say that its agent is dead?"""
        event = Event.REFUSED if home.refuses() else Event.STANDS
        self._grid.errand(lambda: self.hear(home, event))

    def _rejoin(self, home: Home) -> None:
        """Thread: the ssh connection of a tunnelled host broke; have another before the host gives us up."""
        try:
            home.reconnect()
        except GridError as exc:
            logger.info("host %s: no new connection yet: %s", home.host.label, exc)
        finally:
            self._grid.errand(lambda: self.hear(home, Event.TRIED))

    def _verify(self, home: Home, number: int) -> None:
        """Thread: is it the server that is silent, or its whole host?"""
        process, asked = self._grid.processes.find(number), home.life.now()
        if process is None or process.server is None:
            return
        try:
            home.ask("tail", process.server.name, 1, timeout=self._grid.limits.lost_s)
        except GridError:
            return
        if home.life.is_guilty(number, asked):
            new = self._grid.processes.is_starting(process.server)
            word = "did not answer after its start" if new else "went silent"
            self._grid.errand(lambda: self._give_up(number, word))

    def _give_up(self, number: int, word: str) -> None:
        process = self._grid.processes.find(number)
        if process is None or process.server is None:
            return  # it has ended in the meantime
        if process.home.up:
            try:
                process.home.ask_later("stop", [process.server.name], True)
            except GridError:
                pass
        limit = self._grid.limits.lost_s
        what = f"it {word} (no heartbeat for {limit:g} s; is it stopped or swapped out?)"
        self._grid.lose_server(process.server, what)
