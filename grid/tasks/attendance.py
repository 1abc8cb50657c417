"""The hosts of a master: workers as they come and go, hosts that fall silent and come back.

All of it is called in the scheduler's thread.

Lives here: `Attendance`.
Elsewhere:  states of slaves (`slaves`, pure), servers (`workers`), who hears of a slave that was lost (`scheduler`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from grid.errors import ServerLost
from grid.tasks.limits import TaskLimits
from grid.tasks.manager import WorkerManager
from grid.tasks.schedule import Pack
from grid.tasks.slaves import Slave, SlaveRegistry

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy

logger = logging.getLogger(__name__)


class Attendance:
    """See the module. `managers`: the workers of each slave.

    Args:
        back: Called with each pack that has its answer, from any thread.
        clock: Seconds, from any time on.
    """

    def __init__(
        self,
        g: AbstractGrid,
        registry: SlaveRegistry,
        limits: TaskLimits,
        back: Callable[[Pack], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grid, self._registry, self._limits, self._back, self._clock = g, registry, limits, back, clock
        self.managers: dict[str, WorkerManager] = {}
        self._absent: dict[str, WorkerManager] = {}  # removed, and not back yet
        self.why_none = "no worker is up yet"
        self.is_changed = False
        """The registry is another since the slaves were rated: once, however many workers came and went."""

    def hired(self, proxy: Proxy) -> None:
        """A server of ours came up."""
        host = proxy._server.host.label
        manager = self.managers.get(host) or self._absent.get(host)
        if manager is None:
            manager = self.managers[host] = WorkerManager(1, self._grid, limits=self._limits)
            manager.serve_master(host, self._back)
        manager.staff.hire(proxy)
        if host in self.managers:
            self.count(manager)

    def count(self, manager: WorkerManager) -> None:
        """Workers of a slave came or went."""
        name, workers = manager.identity, manager.count()
        known = self._registry.slaves.get(name)
        if known is None or known.workers != workers:
            self._registry.register(name, workers, self._clock())
            self.is_changed = True

    def resize(self, slave_id: str, n: int) -> None:
        """Have `n` workers of a slave work, of those that its host has; no task is lost."""
        manager = self.managers[slave_id]
        manager.staff.want = n
        manager.staff.adjust()
        self.count(manager)

    def nobody(self, reason: str) -> None:
        """The service of our workers has no server."""
        self.why_none = reason
        for manager in self.managers.values():
            for worker in manager.staff.everybody:
                if worker.packs == 0:  # the others' packs come back with the loss
                    manager.staff.fire(worker)
            self.count(manager)

    def heard(self, slave: Slave) -> None:
        """An answer came from it."""
        self.is_changed |= self._registry.heartbeat(slave.slave_id, self._clock())

    def look(self, service_id: str) -> list[tuple[str, ServerLost]]:
        """Every heartbeat: which hosts answer? Those that are silent get no tasks.

        Returns:
            Slaves that were silent for too long: their tasks are lost, and why.
        """
        now = self._clock()
        silent = silent_hosts(self._grid)
        for name in [name for name in self._absent if name not in silent]:
            logger.info("slave %s is back", name)
            self.managers[name] = self._absent.pop(name)
            self.count(self.managers[name])
        for name in self.managers:
            if name not in silent:
                self.is_changed |= self._registry.heartbeat(name, now)
        silenced, removed = self._registry.check(now)
        self.is_changed |= bool(silenced or removed)
        for slave in silenced:
            self.why_none = f"{slave.slave_id} does not answer"
            logger.warning("slave %s does not answer and gets no tasks", slave.slave_id)
        for slave in removed:
            logger.warning("slave %s is removed: it has not answered", slave.slave_id)
            self._absent[slave.slave_id] = self.managers.pop(slave.slave_id)
        return [(slave.slave_id, _lost(service_id, slave.slave_id)) for slave in removed]


def silent_hosts(g: AbstractGrid) -> set[str]:
    """Hosts of a grid that do not answer now, as far as it knows."""
    return {home["host"] for home in g.status().get("homes", ()) if home["state"] == "unreachable"}


def _lost(service_id: str, host: str) -> ServerLost:
    return ServerLost(
        "its host has not answered",
        service_id=service_id,
        server="",
        host=host,
        exit_status=None,
        signal=None,
        last_output="",
    )
