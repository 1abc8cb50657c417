"""Results that somebody still wants: which of them a session must remember, and for how long.

    r = proxy.energy(x)                  # unnamed: remembered as long as this client has `r`, or is killed before
    proxy.energy(x).named("run7")        # named: remembered until somebody has fetched it
    g.results()                          # of earlier clients: until this one has fetched them

A result that was fetched is remembered until the client drops it as well. So whoever is killed while he works with a
value finds it again.

Lives here: `Claim`, which a result carries, and `Claims`, all of a grid.
Elsewhere:  results (`services/result`), writing down (`journal`).
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from grid.keeping.journal import Journal


class ClaimedResult(Protocol):
    """A result, as its session sees it."""

    name: str | None
    claim: Any
    done_flag: bool
    _decoded: bool
    _failure: BaseException | None


class Claim:
    """On the result of one call. While it lives, so does the record of the call."""

    __slots__ = ("_drop", "call", "fetched", "held", "peer")

    def __init__(self, drop: Callable[[tuple[int, int]], None], peer: int, call: int) -> None:
        self._drop, self.peer, self.call = drop, peer, call
        self.fetched = False
        """Somebody has asked for the error of the call."""
        self.held = False
        """Nobody has fetched it yet, and it is to be remembered even if it is dropped."""

    def __del__(self) -> None:
        if not self.held:
            self._drop((self.peer, self.call))  # any thread, any lock held: so no more than that


class Claims:
    """See the module. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], Any] = {}  # peer and call -> result: not fetched yet
        self._named: dict[str, weakref.ref[Any]] = {}
        self.claim: Callable[[int, int], Claim] = partial(Claim, journal.dropped.append)
        """For the result of a call that was made just now: peer and call."""

    def hold(self, result: ClaimedResult) -> None:
        """It is to be remembered until somebody has fetched it. It has a claim."""
        with self._lock:
            result.claim.held = True
            self._held[result.claim.peer, result.claim.call] = result
            if result.name is not None:
                self._named[result.name] = weakref.ref(result)

    def name(self, result: ClaimedResult, name: str) -> None:
        """It has this name from now on. ValueError: another one has it, and was not fetched."""
        with self._lock:
            other = self._of(name)
            if other is not None and other is not result and not _is_fetched(other):
                raise ValueError(f"another call is named {name!r}, and nobody has fetched its result yet")
        self._journal.name(result.claim.peer, result.claim.call, name)
        result.name = name
        self.hold(result)

    def look(self) -> None:
        """Now and then: who was fetched is its holder's alone."""
        with self._lock:
            for key, result in list(self._held.items()):
                if _is_fetched(result):
                    result.claim.held = False
                    del self._held[key]
            for name in [name for name, known in self._named.items() if known() is None]:
                del self._named[name]

    def all(self) -> list[Any]:
        """Those that nobody has fetched."""
        self.look()
        with self._lock:
            return [result for _, result in sorted(self._held.items(), key=lambda item: item[0])]

    def named(self, name: str) -> Any:
        """The result of that name. KeyError: there is none; it has all names."""
        with self._lock:
            result = self._of(name)
            if result is None:
                raise KeyError(", ".join(sorted(known for known in self._named if self._of(known) is not None)))
        return result

    def _of(self, name: str) -> Any:
        known = self._named.get(name)
        return None if known is None else known()


def _is_fetched(result: ClaimedResult) -> bool:
    return result._decoded and (result._failure is None or result.claim.fetched)
