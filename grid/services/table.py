"""All services of one grid, and how they look from outside.

Lives here: the table, ids of services, the views `servers` and `queues`.
Elsewhere:  one service (`service`), what publishes (`grids/`).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic

from typing_extensions import TypeVar

from grid.errors import GridStopped, UnknownService
from grid.services import html
from grid.services.retry import Retry
from grid.services.roster import State
from grid.services.server import Server
from grid.services.service import Service, ServiceGround

_numbers = itertools.count()
"""Of services: unique among all grids of the process."""


def reserve_ids(service_ids: Iterable[str]) -> None:
    """Services of an earlier process have these ids: no new one gets the number of one of them."""
    global _numbers
    taken = [int(number) for each in service_ids if (number := each.rpartition(".")[2]).isdecimal()]
    _numbers = itertools.count(max([*taken, next(_numbers) - 1]) + 1)


T = TypeVar("T", default=Any)


class ServiceId(str, Generic[T]):
    """The id of a service: text, that type checkers know as the id of a service of `T`. It travels as plain text."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def new_id(instance: object) -> str:
    """The class's name, a dot, a number that this process uses once; safe in file names."""
    name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in type(instance).__name__)
    return f"{name}.{next(_numbers)}"


class Services(Mapping[str, Service]):
    """Service id -> service. `lock` guards the table and all services; it is the grid's as well."""

    def __init__(self, ground: ServiceGround) -> None:
        self._ground = ground
        self._by_id: dict[str, Service] = {}
        self.published: dict[int, tuple[Any, str]] = {}
        """id of a live instance -> (it, its service id)."""
        self.lock = threading.RLock()

    def __getitem__(self, service_id: str) -> Service:
        return self._by_id[service_id]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_id))

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, service_id: str) -> Service:
        """The service of that id.

        Raises:
            UnknownService, GridStopped: There is none.
        """
        service = self._by_id.get(service_id)
        if service is None:
            if self._ground.ishalted():
                raise GridStopped("the grid was terminated", hint="Make another one")
            known = ", ".join(map(repr, self._by_id)) or "none"
            raise UnknownService("no such service is published", service_id=service_id, hint=f"Published: {known}")
        return service

    def add(
        self,
        service_id: str,
        methods: frozenset[str],
        yielding: frozenset[str] = frozenset(),
        retry: Retry | None = None,
    ) -> Service:
        """A new service. `yielding`: those of its methods that yield. `retry`: which of its calls are made again."""
        with self.lock:
            service = self._by_id[service_id] = Service(self._ground, service_id, methods, self.lock, yielding, retry)
        return service

    def note(self, instance: Any, service_id: str) -> None:
        """`instance` is published: the same live object has the same service, unless that was withdrawn meanwhile."""
        with self.lock:
            if service_id in self._by_id:
                self.published[id(instance)] = (instance, service_id)
                self._by_id[service_id].instance = instance

    def disown(self, service_id: str) -> None:
        """It is about to be withdrawn: who publishes its object from now on gets another service."""
        with self.lock:
            for key in [key for key, (_, sid) in self.published.items() if sid == service_id]:
                del self.published[key]

    def remove(self, service_id: str) -> None:
        """It was withdrawn."""
        with self.lock:
            service = self._by_id.pop(service_id, None)
            if service is not None:
                service.instance = None
            self.disown(service_id)

    def all(self) -> list[Service]:
        """At this moment."""
        with self.lock:
            return list(self._by_id.values())

    def servers(self) -> list[Server]:
        """Of all services, those that are being started among them."""
        with self.lock:
            return [server for service in self._by_id.values() for server in service.servers.values()]

    def clear_servers(self) -> None:
        """The grid has ended, and so have they. What was published is let go of."""
        with self.lock:
            for service in self._by_id.values():
                for server in service.servers.values():
                    server.final_state = server.final_state or State.TERMINATED
                service.servers.clear()
                service.instance = None
            self.published.clear()

    def forked(self) -> None:
        """In a child process: somebody may have had the old lock."""
        self.lock = threading.RLock()
        for service in self._by_id.values():
            service.lock = self.lock


class View(Mapping[str, Any]):
    """Read-only: service id -> what `look` shows of it."""

    def __init__(self, find: Callable[[str], Service], services: Services, look: Callable[[Service], Any]) -> None:
        self._find, self._services, self._look = find, services, look

    def __getitem__(self, service_id: str) -> Any:
        return self._look(self._find(service_id))

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    def _repr_html_(self) -> str:
        return "".join(
            html.table(service_id, html.SERVERS, map(html.server, shown if isinstance(shown, list) else shown.items()))
            for service_id, shown in self.items()
        )

    def __repr__(self) -> str:
        return repr({service_id: self[service_id] for service_id in self})


def servers_of(service: Service) -> list[Server]:
    """Its servers that are up, in order."""
    with service.lock:
        return [service.servers[name] for name in service.roster.names(State.FREE, State.BUSY)]


class FreeQueue:
    """The queue of free servers of one service: FIFO, unbounded; to look at, not to take from."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def qsize(self) -> int:
        """How many servers are free."""
        return len(self.items())

    def empty(self) -> bool:
        """Whether none is free."""
        return not self.items()

    def items(self) -> list[Server]:
        """The free servers, the next to go first."""
        with self._service.lock:
            return [self._service.servers[name] for name in self._service.roster.free]

    def __len__(self) -> int:
        return self.qsize()

    def _repr_html_(self) -> str:
        return html.table(f"free servers of {self._service.service_id}", html.SERVERS, map(html.server, self.items()))

    def __repr__(self) -> str:
        return f"<FreeQueue {[server.name for server in self.items()]}>"
