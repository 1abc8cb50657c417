"""What follows for pilots from what is seen of them: a pure plan.

    queued ──(its script runs)──> started ──(its end is near)──> leaving ──(nothing is on it)──> ending ──> over
                                     └──(shrink)──> ending        any of them ──(the job has ended)──> over

A pilot that comes to its end gets a successor `ahead_s` before, and `handover_s` before the end its servers move there,
or to whoever has room. Where nobody has, they are told at least, so that instances can save what they have. Servers
that come up later than that are told, or moved, when they are up.

Kernels that answer are worth more than what the batch system says or has forgotten: a job that it does not know counts
as ended only when none of its kernels answers, after some polls.

Lives here: what is seen of a pilot, and what is to be done: same input, same plan.
Elsewhere:  looking, polling, doing it (`tending.py`), a pilot's files (`pilots.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

GRACE_POLLS = 3
"""A job that the batch system does not know counts as ended after this number of polls; its kernels decide earlier."""

LOOK_S = (0.25, 2.0)
"""Seconds between looks at the files of pilots: while kernels are starting, and while nothing is under way."""


class PilotStage(Enum):
    """How far the grid has parted from a pilot."""

    HELD = "held"  # queued, or its kernels serve
    LEAVING = "leaving"  # its end is near: its servers move away
    ENDING = "ending"  # a thread ends it
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class RankSeen:
    """One node of a pilot."""

    number: int
    reported: bool = False  # its kernel is up and has said where it listens
    status: int | None = None  # with which its kernel ended
    dealt_with: bool = False  # connected, failed, or just being connected to


@dataclass(frozen=True, kw_only=True)
class PilotSeen:
    """One pilot. Times are seconds of one clock that only runs forward."""

    stage: PilotStage = PilotStage.HELD
    started: float | None = None
    ends_at: float | None = None
    status: int | None = None  # with which its script ended
    unknown: int = 0  # polls in a row that did not know the job
    hopeless: bool = False  # the batch system says that it can never run
    answers: bool = False  # a kernel of it answers
    has_successor: bool = False
    ranks: Sequence[RankSeen] = ()
    settled: bool = False  # all ranks are connected or have failed
    servers: frozenset[str] = frozenset()  # that it holds, or that may come back to it
    speaking: frozenset[str] = frozenset()  # ... and that can be spoken to
    told: frozenset[str] = frozenset()  # ... and have heard of its end
    room_elsewhere: bool = False  # other nodes could take servers in


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a grid asks of its pilots' ends, in seconds."""

    ahead_s: float
    handover_s: float
    start_s: float  # for a kernel, from the start of its job


@dataclass(frozen=True)
class Accept:
    """Connect to the kernel of this rank."""

    rank: int


@dataclass(frozen=True)
class Fail:
    """No kernel will come from this rank."""

    rank: int
    what: str


@dataclass(frozen=True)
class End:
    """The job has ended. `owed`: it was cut short and is to have a successor all the same."""

    owed: bool


@dataclass(frozen=True)
class Withdraw:
    """The job can never run: it is told to all that wait for it, and dropped."""


@dataclass(frozen=True)
class GiveBack:
    """Nothing is on it any more: end it before its time."""


@dataclass(frozen=True)
class Renew:
    """Submit a successor; then plan again without renewals, because the rest depends on whether that worked."""


@dataclass(frozen=True)
class Tell:
    """These servers hear in how many seconds their allocation ends."""

    servers: frozenset[str]
    seconds: float


@dataclass(frozen=True)
class Leave:
    """The successor's kernels take part from now on, and servers of this one go there."""


@dataclass(frozen=True)
class MoveServers:
    """These servers move away."""

    servers: frozenset[str]
    seconds: float


PilotAction = Accept | Fail | End | Withdraw | GiveBack | Renew | Tell | Leave | MoveServers


def plan(pilot: PilotSeen, terms: Terms, renewals: int, now: float) -> Iterator[PilotAction]:
    """What is to be done for one pilot now, in this order. `renewals`: how many successors may yet be submitted."""
    if pilot.stage is PilotStage.OVER:
        return
    yield from (action for rank in pilot.ranks for action in _for_rank(rank, pilot, terms, now))
    forgotten = pilot.unknown >= GRACE_POLLS and not pilot.answers
    if pilot.status is not None or forgotten:
        foreseen = pilot.has_successor or pilot.stage is not PilotStage.HELD
        yield End(owed=not foreseen and renewals > 0 and pilot.started is not None)
    elif pilot.hopeless:
        yield Withdraw()
    elif pilot.ends_at is not None:
        yield from _near_its_end(pilot, terms, renewals, now)


def _for_rank(rank: RankSeen, pilot: PilotSeen, terms: Terms, now: float) -> Iterator[PilotAction]:
    if rank.dealt_with:
        return
    if rank.reported:
        yield Accept(rank.number)
    elif rank.status is not None:
        yield Fail(rank.number, f"its kernel ended with status {rank.status}")
    elif pilot.started is not None and now - pilot.started > terms.start_s:
        yield Fail(rank.number, f"no kernel came up within {terms.start_s:g} s")


def _near_its_end(pilot: PilotSeen, terms: Terms, renewals: int, now: float) -> Iterator[PilotAction]:
    assert pilot.ends_at is not None
    left, stage = pilot.ends_at - now, pilot.stage
    if stage is PilotStage.LEAVING and not pilot.servers:
        yield GiveBack()
        return
    renewed = pilot.has_successor
    if stage is PilotStage.HELD and renewals > 0 and not renewed and left < terms.ahead_s:
        yield Renew()
        return  # the rest depends on whether that worked: plan again, with no renewals
    if stage is PilotStage.ENDING or left >= terms.handover_s or not pilot.settled:
        return
    told = pilot.told
    if stage is PilotStage.HELD:
        if not renewed and not pilot.room_elsewhere:
            if pilot.speaking - told:
                yield Tell(pilot.speaking - told, left)
            return
        yield Leave()
        told = frozenset()  # what they heard of the end was that they would stay
    if pilot.speaking - told:
        yield MoveServers(pilot.speaking - told, left)


def pause_s(waiting: Sequence[float], starting: bool) -> float:
    """Seconds until the next look. `waiting`: since when pilots have been queued, in seconds."""
    busy, idle = LOOK_S
    if starting:
        return busy
    # a job that has just been submitted may start at once; one that has waited for hours may wait a little more
    return max(busy, min(idle, 0.05 * min(waiting))) if waiting else idle
