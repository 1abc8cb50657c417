"""The processes of a grid on its hosts, by their numbers on our link: one agent for each host, and servers.

A server is here under its number while it can be spoken to; while it moves, under the number of its new process as
well. Before, while it starts, it is here by its name.

Lives here: the tables. Any thread reads; each entry is put in and taken out by one step of a dict.
Elsewhere:  servers of a service by state (`services/roster.py`), what becomes of a process (`grid.py`, `losses.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

from grid.grids.home import Home
from grid.services.kernel_server import KernelServer


class GridProcess(NamedTuple):
    """Where it runs, and what it is: a server, or (None) the host's agent."""

    home: Home
    server: KernelServer | None


def home_of(server: KernelServer) -> Home:
    """Where it runs; servers know less of it."""
    return cast("Home", server.home)


class Processes:
    """See the module."""

    def __init__(self) -> None:
        self._running: dict[int, GridProcess] = {}
        self._starting: dict[str, KernelServer] = {}

    def find(self, number: int) -> GridProcess | None:
        """The process with this number."""
        return self._running.get(number)

    def add_agent(self, home: Home) -> None:
        """The agent of a host came up."""
        assert home.peer is not None
        self._running[home.peer.number] = GridProcess(home, None)

    def expect_agent(self, number: int, home: Home) -> None:
        """The agent of a host is about to answer."""
        self._running[number] = GridProcess(home, None)

    def add(self, number: int, server: KernelServer, home: Home, patience_s: float) -> None:
        """A server's process listens; it has `patience_s` seconds to answer."""
        self._running[number] = GridProcess(home, server)
        home.life.suspect(number, patience_s)

    def add_known(self, number: int, server: KernelServer, home: Home) -> None:
        """A server's process listens, and may be deep in a call of an earlier client: it answers when it can."""
        self._running[number] = GridProcess(home, server)

    def remove(self, number: int) -> None:
        """It has ended, or left; harmless if it is not here."""
        process = self._running.pop(number, None)
        if process is not None:
            process.home.life.trust(number)

    def servers(self) -> Iterable[KernelServer]:
        """All that can be spoken to."""
        return [process.server for process in list(self._running.values()) if process.server is not None]

    def named(self, name: str) -> KernelServer | None:
        """The server with this name, if it can be spoken to."""
        return next((server for server in self.servers() if server.name == name), None)

    # -- that start ------------------------------------------------------------------------------------------------

    def begin(self, server: KernelServer) -> None:
        """A process of it is being started."""
        self._starting[server.name] = server

    def has_begun(self, name: str) -> KernelServer | None:
        """The server of this name, if it is starting."""
        return self._starting.get(name)

    def is_starting(self, server: KernelServer) -> bool:
        """Whether it has not answered yet."""
        return server.name in self._starting

    def end_start(self, name: str) -> KernelServer | None:
        """It answered, or failed; None if that was told before."""
        return self._starting.pop(name, None)
