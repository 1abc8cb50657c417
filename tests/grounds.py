"""A grid as services see it, and servers whose calls a test answers: nothing is started, nobody waits.

Lives here: `Ground`, `Seat`, `Due`. Elsewhere: a whole grid in one process (`grid/testing/simulation.py`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from types import SimpleNamespace
from typing import Any

from grid.errors import ServerLost, fork_error
from grid.hosts import Host
from grid.limits import Limits
from grid.services.roster import Event
from grid.services.server import Server
from grid.services.service import Service
from grid.services.table import Services
from grid.services.waste import Waste


class Ground:
    """What a service needs of its grid. `then`: what happens while somebody would wait."""

    def __init__(self) -> None:
        self.limits, self.failures, self.hooks = Limits(), dict[str, Exception](), list[Any]()
        self._waste, self._pid = Waste(), os.getpid()
        self.halted = False
        self.roused: list[Any] = []
        self.ended: list[Server] = []
        self.then: Callable[[Any], object] = lambda waiter: None

    def ishalted(self) -> bool:
        return self.halted

    def release_service(self, proxy: Any) -> None:
        proxy._hold.released = True
        proxy._server.free_if_idle()

    def _wait(self, waiter: Any, timeout: float | None) -> bool:
        self.then(waiter)
        return bool(waiter.done_flag)

    def _rouse(self, waiter: Any) -> None:
        self.roused.append(waiter)

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise fork_error()

    def _terminate_servers(self, servers: Any) -> None:
        self.ended += servers

    _end_at_once = _terminate_servers

    def _on_their_way(self) -> list[str]:
        return []


class Due:
    """The result of a call on a `Seat`: done when the test says so."""

    def __init__(self, server: Seat, method: str, args: tuple[Any, ...]) -> None:
        self.server, self.method, self.args = server, method, args
        self.call, self.seconds = len(server.made) + 1, 0.001
        self._told: list[Callable[[Any], Any]] = []
        self._outcome: Any = None
        self.over = False

    def end(self, value: Any = None, error: BaseException | None = None) -> None:
        self.over, self._outcome = True, (value, error)
        self.server.free_if_idle()
        for told in self._told:
            told(self)

    def when_done(self, fn: Callable[[Any], Any]) -> None:
        self._told.append(fn)
        if self.over:
            fn(self)

    add_done_callback = when_done

    def cancel(self) -> bool:
        if not self.over and self.server.running() is not self:
            self.end(error=CancelledError())
            return True
        return False

    def cancel_later(self, then: Callable[[bool], None] | None = None) -> None:
        self.server.recalled += 1
        if self.server.tells_itself and not self.over and self.server.running() is not self:
            self.end(error=CancelledError())  # the word of its agent comes later, and changes nothing
            if then is not None:
                then(True)
        elif self.server.tells and not self.over and self.server.running() is not self:
            if then is not None:
                then(True)
            self.end(error=CancelledError())
        elif self.server.tells and not self.over and then is not None:
            then(False)

    def cancelled(self) -> bool:
        return self.over and isinstance(self._outcome[1], CancelledError)

    def done(self) -> bool:
        return self.over

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._outcome[1]

    def get(self, timeout: float | None = None) -> Any:
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    def _where(self) -> str:
        return ""


class Seat(Server):
    """A server whose calls wait until the test answers them. `changed` tells of each.

    `tells`: whether its host answers. `recalled`: how often it was asked to give a call back.
    """

    tells = True
    tells_itself = False  # that a call was withdrawn, before its agent does
    recalled = 0

    def __init__(self, name: str) -> None:
        super().__init__(name.partition("/")[0], name, Host("here"))
        self.made: list[Due] = []
        self.changed = threading.Semaphore(0)

    def running(self) -> Due | None:
        return next((due for due in self.made if not due.over), None)

    @property
    def idle(self) -> bool:
        return self.running() is None

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Any) -> Any:
        if self.final_state is not None:
            raise lost(self)
        self.made.append(Due(self, method, args))
        self.changed.release()
        return self.made[-1]

    def next_call(self) -> Due:
        """The next call that is made on it."""
        assert self.changed.acquire(timeout=20), f"nothing was called on {self.name}"
        return self.made[len(self.made) - 1 - self._waiting()]

    def _waiting(self) -> int:
        return self.changed._value  # how many more there are already

    def die(self) -> None:
        """Its calls fail, as those of a lost server do."""
        assert isinstance(self.service, Service)
        self.service.gone(self, Event.LOST, "it died")
        for due in [due for due in self.made if not due.over]:
            due.end(error=lost(self))


def lost(server: Server) -> ServerLost:
    facts = SimpleNamespace(exit_status=9, signal=None, last_output="", oom_kills=0, left_s=None, call=None, deaths=1)
    return ServerLost(
        "it died", service_id=server.service_id, server=server.name, host="here", hint="Publish", **vars(facts)
    )


def service_of(*names: str, ground: Ground | None = None) -> tuple[Service, list[Seat]]:
    """A service with servers that are up."""
    service = Services(ground or Ground()).add(names[0].partition("/")[0], frozenset())
    seats = [Seat(name) for name in names]
    service.announce(seats)
    for seat in seats:
        service.add(seat)
    return service, seats
