"""A grid for the simulation: real parts, but threads take their steps when the world says so, and hosts are simulated.

Lives here: `SimulatedGrid` and what is other in its engine.
Elsewhere:  the world (`simulation.py`), hosts (`simulated_hosts.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

from grid.grids.engine import KernelEngine
from grid.grids.fleet import Fleet
from grid.grids.grid import Grid
from grid.grids.mover import Mover
from grid.grids.publishing import Publisher
from grid.limits import Limits
from grid.services.hold import Waiter
from grid.services.result import Result
from grid.services.service import Service
from grid.wire.link import Link


class Scene(Protocol):
    """The world, as far as its grid knows it."""

    link: Link
    threads: list[tuple[Any, Any]]

    def while_blocked(self, waiter: Any, timeout: float | None) -> bool: ...


class SimulatedFleet(Fleet):
    """Its helpers take a step when the world says so."""

    world: Scene

    def in_thread(self, name: str, body: Any, *args: Any) -> None:
        self.world.threads.append((body, args))

    def start(self, home: Any) -> None:
        home.check()


class SimulatedPublisher(Publisher):
    """Nobody waits."""

    def wait_for(self, service: Service, wanted: Callable[[], int], timeout: float) -> None:
        pass


class SimulatedMover(Mover):
    """There is always room for one more."""

    def room(self, home: Any, service_id: str) -> int:
        return 1


class SimulatedEngine(KernelEngine):
    """An engine without threads."""

    fleet_type, publisher_type, mover_type = SimulatedFleet, SimulatedPublisher, SimulatedMover

    def halt(self, *, force: bool) -> None:
        self.fleet.halted = True
        self.fleet.link.close()


class SimulatedGrid(Grid):
    """A grid whose hosts are simulated and whose threads take a step when the world says so."""

    _engine_type = SimulatedEngine

    def __init__(self, world: Scene, names: list[str], limits: Limits) -> None:
        super().__init__(names, limits=limits, output=None)
        self.world = world
        fleet: Any = self._engine.fleet
        fleet.world = world
        fleet.begin(world.link)
        self._numbers_here = itertools.count()

    def create_service_id(self, instance: Any) -> str:
        """The same seed, the same names."""
        return f"{type(instance).__name__}.{next(self._numbers_here)}"

    def start(self) -> None:
        """There is no thread."""

    def _wait(self, waiter: Waiter | Result, timeout: float | None) -> bool:
        return self.world.while_blocked(waiter, timeout)
