"""A pilot that a grid holds, with what the grid has on it; and how another client finds it again.

Lives here: `Held`, what of it a session remembers.
Elsewhere:  the pilot's files (`pilots.py`), what is done with it (`tending.py`), the session (`keep.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.login import LoginMachine
from grid.grids.pilots import Pilot, PilotConnection, Rank
from grid.grids.plan import PilotStage
from grid.grids.request import PilotRequest
from grid.hosts import Host
from grid.keeping.memory import SessionMemory


@dataclass(eq=False)
class Held:
    """A pilot with what the grid has on it. Times are monotonic."""

    number: int
    pilot: Pilot
    request: PilotRequest
    homes: list[Home]
    submitted: float
    predecessor: Held | None = None
    successor: Held | None = None
    started: float | None = None
    ends_at: float | None = None
    hurried: bool = False  # it was told that it ends before its time: its servers leave at once
    unknown: int = 0  # polls in a row that did not know the job
    hopeless: bool = False  # the batch system says that it can never run
    stage: PilotStage = PilotStage.HELD
    retired: bool = False  # its servers were moved away, or it was given back: no successor takes its place
    returned: bool = False  # given back by `shrink`: nobody is told of it any more once it has ended
    told: set[str] = field(default_factory=set)  # servers that heard of its end, by name
    joined: set[int] = field(default_factory=set)  # ranks that take part in the grid

    def part(self, stage: PilotStage) -> None:
        """The grid gives it up."""
        self.stage, self.retired = stage, True

    @property
    def over(self) -> bool:
        """Whether its job has ended."""
        return self.stage is PilotStage.OVER

    @property
    def settled(self) -> bool:
        """Whether all its nodes are connected, or have failed."""
        return all(rank.settled for rank in self.pilot.ranks)

    @property
    def nodes(self) -> Iterable[tuple[Rank, Home]]:
        """Its ranks with their homes."""
        return zip(self.pilot.ranks, self.homes, strict=True)

    def fact(self, addresses: Sequence[str], epoch: int) -> dict[str, Any]:
        """What another client has to know to go on with it, in plain values (JSON).

        Args:
            addresses: Of the login machine, towards which its nodes listen.
            epoch: Of the client that has invited its kernels.
        """
        return {
            "token": self.pilot.token,
            "directory": self.pilot.directory,
            "command": self.pilot.command,
            "job": self.pilot.job,
            "request": self.request.plain(),
            "numbers": [home.number for home in self.homes],
            "hosts": [home.host.__getstate__() for home in self.homes],
            "python": self.homes[0].python,
            "predecessor": None if self.predecessor is None else self.predecessor.number,
            "submitted": time.time() - (time.monotonic() - self.submitted),
            "addresses": list(addresses),
            "epoch": epoch,
        }


def held_again(past: SessionMemory, fleet: Fleet, machine: LoginMachine) -> list[Held]:
    """The pilots that an earlier client has left, with homes that have not been reached yet."""
    found: dict[int, Held] = {}
    for number, fact in sorted(((int(key), fact) for key, fact in past.facts_of("pilot").items())):
        request = PilotRequest.of_plain(fact["request"])
        ranks, homes = [], []
        for rank, agent in enumerate(fact["numbers"]):
            up = past.facts.get(f"home/{agent}")  # it was connected
            home = fleet.make_home(Host.of_state(up["host"] if up else fact["hosts"][rank]), request.ppn)
            home.python = fact["python"]
            home.expect(agent, partial(way_to, machine, fact["addresses"]), fact["epoch"])
            homes.append(home)
            ranks.append(Rank(rank, words="{}" if up else None, settled=up is not None))
        where = fact["token"], fact["directory"], fact["command"]
        pilot = Pilot(*where, request.walltime_s, ranks, fact["job"], "queued")
        submitted = time.monotonic() - max(0.0, time.time() - fact["submitted"])
        held = Held(number, pilot, request, homes, submitted, found.get(fact["predecessor"] or 0))
        if held.predecessor is None:
            held.joined = {rank.number for rank in ranks if rank.settled}
        else:
            held.predecessor.successor = held
        found[number] = held
    return list(found.values())


def way_to(machine: LoginMachine, addresses: Sequence[str]) -> PilotConnection:
    """What leads to a node of a pilot."""
    return PilotConnection(machine.connection, addresses)


def known_homes(held: Iterable[Held]) -> dict[int, Home]:
    """Those that have been connected, by the numbers of their agents."""
    return {home.number: home for each in held for rank, home in each.nodes if rank.settled}
