"""The roster of one service: which servers are starting, free or busy, and which callers wait for one.

    STARTING ──ready──> FREE ──acquired──> BUSY        Every state may also go to LOST (it died, or went silent) or to
                         ^                  │          TERMINATED (we ended it); those two are final.
                         └─────released─────┘

Waiters are served first come, first served. A waiter wants one server, or all of them (a group call): a group waiter at
the head of the queue collects servers as they become free, and those behind it wait, so that it always gets its turn.
A waiter may be choosy (`fits`): servers that don't suit it go to those behind it.

Lives here: states, the legal moves, the queue of free servers, the queue of waiters.
Elsewhere:  locks and threads (`service`), sockets (`wire/link.py`), time.

Every method returns what follows from the event: a list of `Granted` and `Refused`, to be carried out by the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from grid.errors import GridError


class State(Enum):
    """Of one server."""

    STARTING = "starting"
    FREE = "free"
    BUSY = "acquired"
    LOST = "lost"
    TERMINATED = "terminated"


class Event(Enum):
    """Events of a server."""

    READY = "ready"
    ACQUIRED = "acquired"
    RELEASED = "released"
    LOST = "lost"
    TERMINATED = "terminated"


LIVE = (State.STARTING, State.FREE, State.BUSY)

MOVES: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.READY): State.FREE,
    (State.FREE, Event.ACQUIRED): State.BUSY,
    (State.BUSY, Event.RELEASED): State.FREE,
    **{(state, Event.LOST): State.LOST for state in LIVE},
    **{(state, Event.TERMINATED): State.TERMINATED for state in LIVE},
}
"""Every legal move. A move that is not here is a bug."""


@dataclass(frozen=True)
class Granted:
    """The waiter `ticket` has these servers now; one, or all for a group, in server order."""

    ticket: Any
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Refused:
    """The waiter `ticket` will never be served: no live server is left."""

    ticket: Any


Action = Granted | Refused


class Roster:
    """See the module. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}  # live servers only, in the order in which they were announced
        self._free: OrderedDict[str, None] = OrderedDict()  # FREE and reachable, longest free first
        self._away: set[str] = set()  # on a host that can't be reached now
        self._waiters: OrderedDict[Any, bool] = OrderedDict()  # ticket -> whether it wants all
        self._fits: dict[Any, Callable[[str], bool]] = {}  # of choosy waiters
        self._collected: dict[Any, list[str]] = {}  # what a group waiter has so far
        self._closed = False
        self._expecting = False
        self.due: tuple[Action, ...] = ()
        """Actions that follow and were not carried out yet; kept for the owner."""

    def copy(self) -> Roster:
        """Another one that is as this one is: an event that an exception tears off halfway harms the copy alone."""
        other = Roster()
        other._states, other._free = self._states.copy(), self._free.copy()
        other._away, other._waiters, other._fits = self._away.copy(), self._waiters.copy(), self._fits.copy()
        other._collected = {ticket: names.copy() for ticket, names in self._collected.items()}
        other._closed, other._expecting, other.due = self._closed, self._expecting, self.due
        return other

    # -- looking ---------------------------------------------------------------------------------------------------

    def state(self, name: str) -> State | None:
        """State of a live server; None for one that was lost or terminated."""
        return self._states.get(name)

    def names(self, *states: State) -> list[str]:
        """Live servers in these states (all, if none is named), in server order."""
        return [name for name, state in self._states.items() if not states or state in states]

    @property
    def free(self) -> list[str]:
        """Names in the queue of free servers, the next to go first."""
        return list(self._free)

    @property
    def waiting(self) -> int:
        """How many waiters there are."""
        return len(self._waiters)

    def waits(self, ticket: Any) -> bool:
        """Whether this waiter has been told nothing yet."""
        return ticket in self._waiters

    @property
    def alive(self) -> bool:
        """Whether waiting makes sense: a live server is left, or expected, and the service was not withdrawn."""
        return (bool(self._states) or self._expecting) and not self._closed

    # -- events ----------------------------------------------------------------------------------------------------

    def announce(self, names: Iterable[str]) -> list[Action]:
        """Servers are being started."""
        for name in names:
            if name in self._states:
                raise GridError(f"server {name!r} is announced twice", hint="Please report this")
            self._states[name] = State.STARTING
        return []

    def ready(self, name: str) -> list[Action]:
        """A server is up."""
        self._move(name, Event.READY)
        return self._put_free(name)

    def release(self, name: str) -> list[Action]:
        """Its holder needs it no more. Nothing, if the server was lost meanwhile."""
        if name not in self._states:
            return []
        self._move(name, Event.RELEASED)
        return self._put_free(name)

    def gone(self, name: str, event: Event) -> list[Action]:
        """A server was lost or terminated, whatever its state was."""
        if name not in self._states:
            return []
        assert MOVES[self._states[name], event] not in LIVE
        del self._states[name]
        self._free.pop(name, None)
        self._away.discard(name)
        for collected in self._collected.values():
            if name in collected:
                collected.remove(name)
        return self._serve()

    def away(self, name: str) -> list[Action]:
        """Its host can't be reached: it is not handed out until it is back."""
        if name in self._states:
            self._away.add(name)
            self._free.pop(name, None)
        return []

    def back(self, name: str) -> list[Action]:
        """Its host can be reached again."""
        self._away.discard(name)
        if self._states.get(name) is State.FREE and name not in self._free:
            return self._put_free(name)
        return self._serve()  # a group may have collected it before it went away

    def close(self) -> list[Action]:
        """The service is withdrawn: nobody will be served any more."""
        self._closed = True
        return self._serve()

    def expect(self, expecting: bool) -> list[Action]:
        """Whether servers are on their way that nobody can name yet: a batch job is queued that will bring some."""
        self._expecting = expecting
        return self._serve()

    def acquire(
        self, ticket: Any, *, everyone: bool = False, fits: Callable[[str], bool] | None = None
    ) -> list[Action]:
        """Somebody wants a server, or all of them; or one for which `fits(name)` is true."""
        assert ticket not in self._waiters
        self._waiters[ticket] = everyone
        if fits is not None:
            self._fits[ticket] = fits
        if everyone:
            self._collected[ticket] = []
        return self._serve()

    # The two that follow are what mostly happens, and cost a tenth of an event. Nothing follows from them, and each is
    # one step: between a store and a `del` of an item CPython does not look for signals, so no copy is needed.

    def next_free(self, name: str | None = None) -> str | None:
        """Who can be handed out at once, because nobody waits: the first free server, or the one that is named."""
        if self._waiters or self._closed:
            return None
        return next(iter(self._free), None) if name is None else name if name in self._free else None

    def take(self, name: str) -> None:
        """What `next_free` answered is acquired."""
        assert self._states[name] is State.FREE, name
        self._states[name] = State.BUSY
        del self._free[name]

    def put_back(self, name: str) -> bool:
        """Its holder is done with it, and nobody waits; False: nothing was done, see `release`."""
        if self._waiters or self._states.get(name) is not State.BUSY or name in self._away:
            return False
        self._states[name], self._free[name] = State.FREE, None
        return True

    def leave(self, ticket: Any) -> list[Action]:
        """A waiter gave up. Servers that a group waiter had collected go back."""
        if self._waiters.pop(ticket, None) is None:
            return []
        self._fits.pop(ticket, None)
        for name in self._collected.pop(ticket, []):
            self._move(name, Event.RELEASED)
            if name not in self._away:
                self._free[name] = None
        return self._serve()

    # -- rules -----------------------------------------------------------------------------------------------------

    def _move(self, name: str, event: Event) -> None:
        state = self._states[name]
        after = MOVES.get((state, event))
        if after is None:
            raise GridError(f"server {name!r} is {state.value} and can't be {event.value}", hint="Please report this")
        self._states[name] = after

    def _put_free(self, name: str) -> list[Action]:
        if name in self._away:
            return []
        self._free[name] = None
        return self._serve()

    def _serve(self) -> list[Action]:
        """Serve waiters from the head of their queue as far as servers go."""
        actions: list[Action] = []
        if not self.alive:
            actions += [Refused(ticket) for ticket in self._waiters]
            for kept in (self._waiters, self._collected, self._fits):
                kept.clear()
            return actions
        for ticket, everyone in self._in_turn():
            if everyone:
                granted = self._collect(ticket)
                if not granted:
                    break  # it has its turn: those behind it wait
            else:
                fits = self._fits.get(ticket)
                name = next((name for name in self._free if fits is None or fits(name)), None)
                if name is None:
                    if self._free:
                        continue  # it is choosy, and the free servers suit others
                    break
                del self._free[name]
                self._move(name, Event.ACQUIRED)
                granted = (name,)
            del self._waiters[ticket]
            self._collected.pop(ticket, None)
            self._fits.pop(ticket, None)
            actions.append(Granted(ticket, granted))
        return actions

    def _in_turn(self) -> Iterator[tuple[Any, bool]]:
        """Waiters, the first first. Where none is choosy each is served before the next is asked for."""
        if self._fits:
            yield from list(self._waiters.items())
        while self._waiters and not self._fits:
            yield next(iter(self._waiters.items()))

    def _collect(self, ticket: Any) -> tuple[str, ...]:
        """A group waiter takes what is free; all servers in order once it has them, else nothing."""
        collected = self._collected[ticket]
        while self._free:
            name, _ = self._free.popitem(last=False)
            self._move(name, Event.ACQUIRED)
            collected.append(name)
        if not self._states or len(collected) < len(self._states) or not self._away.isdisjoint(collected):
            return ()
        had = set(collected)
        return tuple(name for name in self._states if name in had)
