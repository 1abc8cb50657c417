"""Whether a host answers: its liveness as a table. Events in, actions out.

    down ──started──> connected ──fell silent──> probed <──due── silent <──tried── rejoining
                          ^                        └────stands────^  └─────broke────^
                          └──────── heard again, from each of these ────────┘
    each of these but `down` ──parted──> lost ──started──> connected

A host that falls silent may be cut off or dead. Calls under way are not lost yet: the host keeps them for `orphan_s`.
So it is asked at once, and then with every heartbeat, whether its agent is dead (`PROBE`: only a host that can be
reached can say that). Where its tunnel broke, the tunnel is made anew (`REJOIN`). `LOSE` gives the host up.

`LOSE` moves nothing by itself, and is repeated until somebody parts: what leads to the host must be forgotten in the
same step (`PARTED`), or a start that begins at once would have its own connection closed.

A server that is silent while its host answers is another matter. Its heartbeats stopped, so it is stopped or swapped
out; or its host has just become unreachable, and nobody knows yet. Its agent is asked (`Verify`): only an agent that
answers promptly, on a host that has been reachable for a while, proves that it is the server.

Lives here: the moves, who is probed when, which servers are suspected and which answer proves it.
Elsewhere:  probing and reconnecting (`home.py`), threads, tables, what a loss means (`grid.py`), the time (passed in).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from grid.limits import Limits


class HostState(Enum):
    """How a host stands with us."""

    DOWN = "down"  # never started, or its start failed
    CONNECTED = "connected"
    SILENT = "silent"  # it does not answer; nothing is under way
    PROBED = "probed"  # ... and is being asked whether its agent is dead
    REJOINING = "rejoining"  # ... and its tunnel is being made anew
    LOST = "lost"


class HostEvent(Enum):
    """What is heard of a host."""

    STARTED = "started"
    FELL_SILENT = "fell silent"  # libzmq lost the connection
    HEARD_AGAIN = "heard again"  # libzmq has it back
    DUE = "due"  # a heartbeat has passed since it was asked
    STANDS = "stands"  # it did not say that its agent is dead
    REFUSED = "refused"  # it said that
    BROKE = "broke"  # the ssh connection of its tunnel ended
    TRIED = "tried"  # somebody tried to make another, whether that worked or not
    EXPIRED = "expired"  # it was silent for longer than the host itself waits for us
    PARTED = "parted"  # what leads there is forgotten


class HostAction(Enum):
    """What follows, for the one that acts."""

    SET_ASIDE = "hand out none of its servers"
    HAND_OUT = "hand them out again"
    PROBE = "ask it whether its agent is dead, then tell STANDS or REFUSED"
    REJOIN = "make its tunnel anew, then tell TRIED"
    LOSE_DEAD = "give it up: its agent died"
    LOSE_EXPIRED = "give it up: it did not answer for too long"


_S, _E, _A = HostState, HostEvent, HostAction

MOVES: dict[tuple[HostState, HostEvent], tuple[HostState, tuple[HostAction, ...]]] = {
    (_S.DOWN, _E.STARTED): (_S.CONNECTED, ()),
    (_S.LOST, _E.STARTED): (_S.CONNECTED, ()),
    # Aside first: a caller that asks for a server now must not be given one that most likely can't be called.
    (_S.CONNECTED, _E.FELL_SILENT): (_S.PROBED, (_A.SET_ASIDE, _A.PROBE)),
    (_S.SILENT, _E.DUE): (_S.PROBED, (_A.PROBE,)),
    (_S.PROBED, _E.STANDS): (_S.SILENT, ()),
    (_S.SILENT, _E.BROKE): (_S.REJOINING, (_A.REJOIN,)),
    (_S.PROBED, _E.BROKE): (_S.REJOINING, (_A.REJOIN,)),  # a tunnel has no port that could refuse us
    (_S.REJOINING, _E.TRIED): (_S.SILENT, ()),  # where it worked, HEARD_AGAIN follows
    (_S.CONNECTED, _E.PARTED): (_S.LOST, ()),
    **{
        move: target
        for silent in (_S.SILENT, _S.PROBED, _S.REJOINING)
        for move, target in {
            (silent, _E.HEARD_AGAIN): (_S.CONNECTED, (_A.HAND_OUT,)),
            (silent, _E.REFUSED): (silent, (_A.LOSE_DEAD,)),
            (silent, _E.EXPIRED): (silent, (_A.LOSE_EXPIRED,)),
            (silent, _E.PARTED): (_S.LOST, ()),
        }.items()
    },
}
"""Events that a state does not name change nothing: news of a host come late, from threads that knew it otherwise."""


@dataclass(frozen=True)
class Verify:
    """Ask the agent about this process, then tell `Silence.is_guilty` when it answered."""

    process: int


class Silence:
    """Of one host. Times are seconds of any clock that only runs forward. Not thread-safe: its owner locks."""

    def __init__(self, limits: Limits, reconnect_s: float) -> None:
        self.state = HostState.DOWN
        self._limits, self._reconnect_s = limits, reconnect_s
        self._since: float | None = None  # when it fell silent; stays after a loss, until it is started anew
        self._back = float("-inf")  # when it was last heard again
        self._probed = float("-inf")  # when it was last asked by the clock
        self._suspects: dict[int, float] = {}  # process -> when its silence is to be verified

    def outage(self, now: float) -> float | None:
        """Seconds since it fell silent; None while it answers."""
        since = self._since
        return None if since is None else now - since

    def hear(self, event: HostEvent, now: float) -> tuple[HostAction, ...]:
        """One event; returns what follows."""
        state, actions = MOVES.get((self.state, event), (self.state, ()))
        if state is HostState.CONNECTED:
            self._since = None
            if event is HostEvent.HEARD_AGAIN:
                self._back = now
        elif self.state is HostState.CONNECTED and state is not HostState.LOST:
            self._since = now
        self.state = state
        return actions

    def tick(self, now: float, *, broken: bool) -> list[HostAction | Verify]:
        """The clock strikes. `broken`: its tunnel ended with its ssh connection, and is ours to make anew."""
        outage = self.outage(now)
        if outage is None:
            return [Verify(process) for process in self._overdue(now)]
        actions: list[HostAction | Verify] = []
        if self.state is not HostState.LOST:
            if now - self._probed > self._limits.heartbeat_s:  # a dying agent may have accepted the first time
                self._probed = now
                actions += self.hear(HostEvent.DUE, now)
            if broken:
                actions += self.hear(HostEvent.BROKE, now)
            if outage > self._limits.orphan_s:
                actions += self.hear(HostEvent.EXPIRED, now)
        return actions

    # -- its servers -----------------------------------------------------------------------------------------------

    def suspect(self, process: int, patience_s: float, now: float) -> None:
        """It is silent, or has just been connected to: it has `patience_s` seconds to be heard."""
        self._suspects[process] = now + patience_s

    def trust(self, process: int) -> None:
        """It was heard, or is lost, or has left."""
        self._suspects.pop(process, None)

    def _overdue(self, now: float) -> list[int]:
        """Each is put off until its agent has had time to answer: else it is the host that can't be reached."""
        overdue = [process for process, deadline in self._suspects.items() if now >= deadline]
        self._suspects.update((process, now + self._limits.lost_s) for process in overdue)
        return overdue

    def is_guilty(self, process: int, asked: float, now: float) -> bool:
        """Whether an answer of the agent to a question of the time `asked` proves that this server is silent alone.

        Not if the host had been out of reach a moment before: then its servers are just being connected again.
        """
        settled = asked - self._back > self._limits.lost_s + self._reconnect_s
        prompt = now - asked < self._limits.lost_s / 2
        return prompt and settled and self.outage(now) is None and process in self._suspects
