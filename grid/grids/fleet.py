"""The hosts of a grid, and what all its parts stand on: the link, the table of processes, threads that help.

Lives here: `Fleet`: homes are made, started and looked up; errands for the grid's thread; helpers.
Elsewhere:  one home (`home.py`), what is done on homes (`publishing.py`, `stager.py`, `mover.py`), how they end
            (`grid.py`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from grid.grids.absent import Absent
from grid.grids.home import Home
from grid.grids.keep import Keep
from grid.grids.needs import HostNeeds, Stage
from grid.grids.packages import Packages
from grid.grids.processes import Processes
from grid.hosts import Host
from grid.services.kernel_server import KernelServer
from grid.services.roster import Event
from grid.services.server import Server
from grid.wire.keys import Keys, make_keys
from grid.wire.link import Link

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid


class Fleet:
    """See the module. `grid` has the tables of services, and settings that may change.

    `stage` and `warn` are given to homes; `check` is called with each that came up, and may raise.
    """

    def __init__(
        self,
        grid: AbstractGrid,
        grid_id: str,
        *,
        stage: Stage,
        warn: Callable[[set[str]], None],
        check: Callable[[Home], None],
        packages: Packages,
    ) -> None:
        self.grid, self.grid_id, self._stage, self._warn, self._check = grid, grid_id, stage, warn, check
        self.limits, self.packages = grid.limits, packages
        self.processes = Processes()
        self.absent = Absent()
        self.homes: list[Home] = []
        self.halted = False
        self.keep: Keep | None = None
        """Where the grid is kept: its session."""
        self.changed = threading.Condition(grid._lock)
        """Notified when servers or hosts came or went. Its lock is that of the services."""
        self._link: Link | None = None
        self._keys: tuple[Keys, Keys] | None = None
        self._helpers: list[threading.Thread] = []

    def forked(self, lock: threading.RLock) -> None:
        """In a child process: somebody may have had the old lock."""
        self.changed = threading.Condition(lock)
        if self._link is not None:
            self._link.forked()
        if self.keep is not None:
            self.keep.place.leave()  # the lock is the parent's, which may die before this one

    @property
    def link(self) -> Link:
        """The link; the grid has started."""
        assert self._link is not None
        return self._link

    @property
    def has_begun(self) -> bool:
        """Whether there is a link."""
        return self._link is not None

    def begin(self, link: Link | None) -> None:
        """From now on this is the link; None: it could not be."""
        self._link = link

    # -- homes -----------------------------------------------------------------------------------------------------

    def make_homes(self, hosts: Iterable[Host]) -> None:
        """One home for each distinct host: entries that are alike in all that matters share one, slots add up."""
        kinds: dict[tuple[Any, ...], list[Host]] = {}
        for host in hosts:
            kind = (
                *(host.label, host.ssh, host.python, host.init_cmd, host.niceness, host.temp_path, host.transport),
                *(host.jump, host.key, tuple(sorted(host.env.items())), host.said, host.words),
                *(host.environment, host.python_archive),
            )
            kinds.setdefault(kind, []).append(host)
        self.homes = [self.make_home(alike[0], sum(host.use_n_cpu for host in alike)) for alike in kinds.values()]
        machines = Counter[str]()
        for home in self.homes:
            machines[home.host.label] += home.slots
        for home in self.homes:
            home.on_machine = machines[home.host.label]
        if self.grid.shared_temp_path:
            for home in self.homes:
                home.host.temp_path = self.homes[0].host.temp_path

    def make_home(self, host: Host, slots: int) -> Home:
        """A home that has not started, and takes no part yet."""
        if self._keys is None and host.ssh != "local":
            self._keys = make_keys()
            if self.keep is not None:
                self.keep.note_keys(self._keys)
        home = Home(
            *(host, slots, self.link, self.limits, self._keys, self.grid_id),
            shared=self.grid.shared_temp_path,
            debug=self.grid.debug,
            needs=lambda home: HostNeeds(home, self._stage, self._warn),
            packages=self.packages,
        )
        home.keep_s = None if self.keep is None else self.keep.keep_s
        return home

    def use_keys(self, keys: tuple[Keys, Keys]) -> None:
        """The keys of both ends of the grid."""
        self._keys = keys

    def add(self, home: Home) -> None:
        """It takes part from now on."""
        with self.changed:
            self.homes = [*self.homes, home]

    def remove(self, homes: Iterable[Home]) -> None:
        """They take no part any more."""
        leaving = list(homes)
        with self.changed:
            self.homes = [home for home in self.homes if home not in leaving]

    def start(self, home: Home) -> None:
        """Start a host's agent unless it runs. Raises HostError."""
        if not home.up:
            home.start(self.grid._loader)
            self.processes.add_agent(home)
            self._check(home)
            if self.keep is not None:
                self.keep.home_up(home.host, home.facts())

    # -- threads ---------------------------------------------------------------------------------------------------

    def errand(self, what: Callable[[], None]) -> None:
        """Have it done by the grid's thread, in order."""
        self.link.errand(what)

    def in_thread(self, name: str, body: Callable[..., None], *args: Any) -> None:
        """Have it done by a thread of its own, for which the end waits a little."""
        thread = threading.Thread(target=body, args=args, name=name, daemon=True)
        with self.changed:  # a caller that joins them must see none that has not started
            thread.start()
            self._helpers = [helper for helper in self._helpers if helper.is_alive()] + [thread]

    def join_helpers(self, deadline: float) -> None:
        """Wait for such threads until then (monotonic), but for a moment at least."""
        for thread in self._helpers:
            thread.join(max(0.1, deadline - time.monotonic()))

    def notify(self) -> None:
        """Servers or hosts came or went: all that wait for that look."""
        with self.changed:
            self.changed.notify_all()

    # -- servers ---------------------------------------------------------------------------------------------------

    def servers(self) -> list[KernelServer]:
        """Of all services, those that are being started among them."""
        return [server for server in self.grid._services.servers() if isinstance(server, KernelServer)]

    def is_up(self, server: KernelServer) -> bool:
        """Whether it can be spoken to."""
        return server.final_state is None and server.connected and not self.processes.is_starting(server)

    def gone(self, server: Server, event: Event, reason: str) -> None:
        """It was lost or terminated: it leaves the tables of its service."""
        self.grid._server_gone(server, event, reason)

    def set_aside(self, server: Server, aside: bool) -> None:
        """Don't hand it out, or do so again: it moves, or its host can't be reached."""
        service = self.grid._services.get(server.service_id)
        if service is not None:
            service.set_aside(server, aside)
