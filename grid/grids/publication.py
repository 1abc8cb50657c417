"""What is published, and what was asked for it.

Lives here: `Publication`, where its servers go (`Place`), what somebody wants who publishes (`Wish`).
Elsewhere:  publishing (`publishing.py`).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from grid.grids.home import Home
from grid.grids.snapshots import SaidOnce, SnapshotRule
from grid.hosts.where import Where
from grid.services.retry import Retry
from grid.slots.needs import Needs
from grid.wire.codec import Dumped
from grid.wire.mainimage import Packed


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which hosts servers of a service go to, how many, and what each needs there."""

    needs: Needs | None = None
    where: Where | None = None
    servers: int | None = None  # on each host
    waits_s: float = 0.0  # for devices and cores that others have

    def count(self, home: Home) -> int:
        """How many servers it wants there, as far as that host has room."""
        if not home.slots or not (self.where is None or self.where.means(home.host.words)):
            return 0
        return home.slots if self.servers is None else self.servers

    def plain(self) -> dict[str, Any]:
        """In plain values (JSON)."""
        needs = None if self.needs is None else vars(self.needs)
        where = None if self.where is None else self.where.text
        return {"needs": needs, "where": where, "servers": self.servers}

    @classmethod
    def of_plain(cls, said: Mapping[str, Any]) -> Place:
        """What `plain` was made of."""
        needs, where = said["needs"], said["where"]
        return cls(needs=needs and Needs(**needs), where=where and Where(where), servers=said["servers"])


ANYWHERE = Place()
"""All hosts, with as many servers as each has slots."""
NOBODY: tuple[Place, dict[str, Any]] = Place(servers=0), {}
"""What is asked for a service that is not published."""


@dataclass(kw_only=True)
class Publication:
    """A published instance, ready to be sent to any host, once each."""

    service_id: str
    dumped: Dumped
    image: Packed | None  # what it needs of __main__
    code: object  # of the instance's class
    has: dict[Any, Any]  # what its servers have: names of __main__, editions of modules
    restarts: int  # how many lost servers may yet be replaced
    reseed: bool | None  # whether generators get another state on each server; None: nobody said
    logging: dict[str, Any] | None  # how it is set up on servers
    place: Place = Place()
    snapshots: SnapshotRule = field(default_factory=SnapshotRule)
    told: SaidOnce = field(default_factory=SaidOnce)
    surplus: int = 0  # servers that have no slot on their host
    blobs: dict[Home, dict[str, Any]] = field(default_factory=dict)  # what servers there are told of it
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=itertools.count)  # of its servers
    withdrawn: bool = False
    callers: int = 1  # of `publish` that have its id, or will

    def wishes(self) -> dict[str, Any]:
        """What the kernel of each of its servers is told."""
        return {"reseed": bool(self.reseed), "logging": self.logging, "argv": list(sys.argv)}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody wants who publishes: see `Publisher.publish`."""

    wait: str | int
    lenient: bool
    patience_s: float
    restarts: int
    reseed: bool | None
    logging: dict[str, Any] | None
    place: Place
    retry: Retry | None
    snapshots: SnapshotRule

    def servers(self, total: int) -> int:
        """How many servers are waited for, of so many."""
        return total if self.wait == "all" else 1 if self.wait == "first" else min(int(self.wait), total)
