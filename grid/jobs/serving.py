"""A job server in one call: its store, its engine, its manager, and the doors by which others come in.

    with open_server("jobs", services=[Fit], doors=[SocketDoor("lab")]) as server:
        server.donate("node7", "mara")
        ...                                 # others: remote_service("lab")

Lives here: `open_server`, `JobServer`, `SocketDoor`, `new_token`.
Elsewhere:  the door of the network (`grid/web/serving.py`), one in this process for a script (`client/context.py`), the
            command (`grid/cli/serve.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from grid.jobs.line.door import SocketServer
from grid.jobs.manager.engine import Engine, GridEngine, ThreadEngine
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.server import add_user
from grid.jobs.settings import Settings, data_directory
from grid.jobs.store.store import Store

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid


class OpenDoor(Protocol):
    """Where clients come in, until it is closed."""

    @property
    def about(self) -> dict[str, Any]:
        """Its address for clients, such as `path` or `url`."""

    def close(self) -> None:
        """No more clients; the manager is its owner's."""


Door = Callable[[JobManager], OpenDoor]
"""Opens one, when the manager runs."""


@dataclass(frozen=True)
class SocketDoor:
    """A UNIX socket for clients of this user on this machine; `name` is what they call the server."""

    name: str = "default"

    def __call__(self, manager: JobManager) -> OpenDoor:
        return SocketServer(manager, name=self.name)


class JobServer:
    """See `open_server`, which makes it. A context manager, whose end is `close`."""

    def __init__(self, manager: JobManager, doors: list[OpenDoor], closing: ExitStack) -> None:
        self.manager, self.doors = manager, doors
        self._closing = closing

    @property
    def services(self) -> dict[str, list[str]]:
        """Name -> versions."""
        return self.manager.registry.services()

    @property
    def n_servers(self) -> int:
        """How many servers of its grid do units of jobs, once all have started."""
        engine = self.manager.engine
        return engine.grid.n_hosts if isinstance(engine, GridEngine) else engine.size()

    @property
    def about(self) -> dict[str, Any]:
        """Its addresses for clients: those of all its doors."""
        return {key: value for door in self.doors for key, value in door.about.items()}

    def register(self, *services: Any) -> None:
        """Make service classes available; jobs that waited for them can start."""
        for service in services:
            self.manager.register(service)

    def donate(self, host: str, owner: str | None, only: bool = False) -> None:
        """The machine `host` is `owner`'s, whose jobs come first there, or alone (`only`); None: everybody's."""
        self.manager.desk.donate(host, owner, only)

    def close(self) -> None:
        """Jobs at work take a checkpoint and go back to the store; doors are closed first. Harmless if done already."""
        self._closing.close()

    def __enter__(self) -> JobServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_server(
    store: str | os.PathLike[str] | None = None,
    grid: AbstractGrid | Callable[[], AbstractGrid] | None = None,
    *,
    engine: Engine | None = None,
    settings: Settings | None = None,
    at_once: int = 1,
    directory: str | os.PathLike[str] | None = None,
    services: Iterable[Any] = (),
    doors: Iterable[Door] = (),
) -> JobServer:
    """A job server that runs until `close`.

    Args:
        store: A directory (SQLite), or the URL of a database; default: `data_directory()`.
        grid: Where jobs run: one that runs already; or what makes one, `Grid.auto` by default: it is started here, and
            ends with the server.
        engine: Instead of a grid, see `manager/engine.py`.
        at_once: How many jobs run at the same time, at least; a grid of n servers runs n.
        directory: Where output files lie, if `store` is a URL.
        services: Classes to begin with.
        doors: By which clients come in: `SocketDoor`, `grid.web.serving.HttpDoor`, or one of your own.
    Raises:
        StoreLocked, StoreTooNew, StoreFull, StoreError: The store can't be opened.
        JobError: A door can't be opened.
    """
    with ExitStack() as closing:
        opened = Store(store if store is not None else data_directory(), directory)
        closing.callback(opened.close)
        if engine is None:
            if grid is None:
                from grid.grids.grid import Grid

                grid = Grid.auto
            if callable(grid):
                grid = grid()
                closing.callback(grid.terminate)
                grid.start()
            engine = GridEngine(grid, at_once)
        manager = JobManager(opened, engine, settings)
        for service in services:
            manager.register(service)
        closing.callback(manager.stop)
        manager.start()
        found = []
        for door in doors:
            found.append(door(manager))
            closing.callback(found[-1].close)
        return JobServer(manager, found, closing.pop_all())


def new_token(store: str | os.PathLike[str] | None, user: str) -> str:
    """Give a user of a store that no server has open a new token for its socket; it is shown this once."""
    opened = Store(store if store is not None else data_directory())
    try:
        return add_user(JobManager(opened, ThreadEngine(0, 0)), user)
    finally:
        opened.close()
