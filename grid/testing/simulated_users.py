"""Users of a simulated grid: each deed is one step of the world.

Lives here: `Users`, who own their calls, what they hold and wait for; a `UserCall` and what is known of it.
Elsewhere:  when they do what, and whether it went well (`simulation.py`).
"""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

from grid.errors import Backlog, CallTimeout, GridError, ServerLost
from grid.services.hold import Waiter
from grid.services.kernel_server import KernelServer
from grid.services.packing import Packing
from grid.services.proxy import Proxy
from grid.services.result import Result
from grid.services.service import Service


class Interrupted(KeyboardInterrupt):
    """A user pressed Ctrl-C while he stood still."""


class Violation(AssertionError):
    """Something that must always be true was not."""


class UserCall:
    """One call that a user made, and what is known of it."""

    __slots__ = ("cancelled", "fails", "items", "number", "result", "runs", "server", "tried_to_cancel")

    def __init__(self, number: int, server: str, fails: bool, items: tuple[int, ...] = ()) -> None:
        self.number, self.server, self.fails, self.items = number, server, fails, items
        self.result: Result
        self.runs = 0
        self.tried_to_cancel = self.cancelled = False


class Users:
    """The users of one world, what they have, and what they wait for; of each deed it says what came of it.

    `calls`: all that they made, by the number of each item; `open`: those that were not seen done; `ended`: numbers of
    those that call-backs told of. `granted`: waiters that were not handed out yet; `blocked`: those for which somebody
    stands still; `interruptible`: whether the next one who does may press Ctrl-C.
    """

    def __init__(self, rng: random.Random, grid: Any, happened: Counter[str]) -> None:
        self.rng, self.grid, self.happened = rng, grid, happened
        self.calls: dict[int, UserCall] = {}
        self.open: dict[int, UserCall] = {}
        self.ended: list[int] = []
        self.held: list[Proxy] = []
        self.waiting: list[tuple[Service, Waiter]] = []
        self.granted: list[Waiter] = []
        self.blocked: list[Any] = []
        self.packings: dict[Proxy, Packing] = {}
        self.interruptible = False
        self.complaints: list[str] = []  # what was seen on a host, or logged as an error
        self._last_number = 0

    def demand(self, truth: object, otherwise: str) -> None:
        """Raise a Violation unless it is true."""
        if not truth:
            self.complaints.append(otherwise)  # a server would make a reply of it
            raise Violation(otherwise)

    def some_service(self) -> Service | None:
        """One of those that there are."""
        services = self.grid._services
        return services[self.rng.choice(list(services))] if services else None

    def acquire(self) -> None:
        """A user asks for a server, or for all, or for one that suits him."""
        service = self.some_service()
        if service is None or len(self.waiting) > 20:
            return
        waiter = Waiter()
        waiter.told = self.granted.append
        kind = self.rng.randrange(8)
        odd = kind == 1
        fits = (lambda name: (ord(name[-1]) & 1) == odd) if kind <= 1 else None
        self.waiting.append((service, waiter))
        service.carry_out(service.roster.acquire(waiter, everyone=kind == 2, fits=fits))

    def give_up(self) -> None:
        """A user who waits has enough of it."""
        if self.waiting:
            service, waiter = self.rng.choice(self.waiting)
            if not waiter.done_flag:
                self.waiting.remove((service, waiter))
                service.give_up(waiter)

    def stand_in_line(self) -> None:
        """A user who stands still until a server is there, or patience is over."""
        service = self.some_service()
        if service is None or len(self.blocked) > 1:
            return
        self.interruptible = True
        try:
            if self.rng.random() < 0.7:
                self.take(self.grid.acquire_service(service.service_id, self.rng.randint(0, 20)))
            else:
                for proxy in service.hold_group(self.rng.randint(0, 20)):
                    self._note_grant(proxy)
        except (GridError, ValueError):
            pass  # in time, or there is none: `check` knows better
        except Interrupted:
            self.happened["interrupted in line"] += 1
        finally:
            self.interruptible = False

    def take(self, proxy: Proxy) -> None:
        """A server is handed to a user."""
        self._note_grant(proxy)
        self.held.append(proxy)

    def _note_grant(self, proxy: Proxy) -> None:
        server = proxy._server
        assert isinstance(server, KernelServer)
        owing = [p for p in list(server.peer.pending.values()) if isinstance(p, Result) and p.proxy is not proxy]
        self.demand(not owing or server.proxy is not proxy, f"{server.name} is given away with calls under way")

    def call(self) -> None:
        """A user calls a method."""
        if self.held:
            self._make_call(self.rng.choice(self.held))

    def burst(self) -> None:
        """A user makes many calls at once."""
        if self.held:
            proxy = self.rng.choice(self.held)
            for _ in range(self.rng.randint(10, 200)):
                self._make_call(proxy)

    def pack(self) -> None:
        """A user who maps: packs as large as the rule says."""
        if not self.held:
            return
        proxy = self.rng.choice(self.held)
        packing = self.packings.setdefault(proxy, Packing())
        left = self.rng.randint(1, 100)
        size = packing.take(2, left)
        self.demand(1 <= size <= left, f"a pack of {size} items where {left} are left")
        packing.took(size, self.rng.uniform(0, 0.01) * size, self.rng.uniform(0, 0.02) * size)
        self._make_call(proxy, size)

    def _make_call(self, proxy: Proxy, size: int = 0) -> None:
        first = self._last_number + 1
        self._last_number += max(1, size)
        call = UserCall(first, proxy._server.name, not size and self.rng.random() < 0.02)
        self.calls[first] = call
        try:
            if size:
                call.items = tuple(range(first, first + size))
                for item in call.items:
                    self.calls[item] = call
                call.result = proxy._call("@map", ("touch", list(call.items), False), {})
            elif not call.fails and self.rng.random() < 0.02:
                call.result = proxy.touch(first, b"x" * 6000)
            else:
                call.result = (proxy.refuse if call.fails else proxy.touch)(first)
        except (Backlog, ServerLost) as exc:
            self.demand(isinstance(exc, Backlog) or proxy._server.final_state is not None, f"refused: {exc}")
            return
        self.open[first] = call
        if self.rng.random() < 0.5:
            call.result.add_done_callback(lambda _, number=first: self.ended.append(number))  # type: ignore[misc]

    def scatter(self) -> None:
        """A group call, by who holds a group."""
        service = self.some_service()
        if service is None or not service.group:
            return
        if self.rng.random() < 0.5:
            self.grid.release_all(service.service_id)
        else:
            for proxy in list(service.group):
                self._make_call(proxy)

    def release(self) -> None:
        """A user gives a server back, perhaps twice."""
        if self.held:
            proxy = self.held.pop(self.rng.randrange(len(self.held)))
            self.packings.pop(proxy, None)
            self.grid.release_service(proxy)
            if self.rng.random() < 0.1:
                self.grid.release_service(proxy)  # harmless

    def cancel(self) -> None:
        """A user takes a call back."""
        if not self.open:
            return
        call = self.open[self.rng.choice(list(self.open)[-20:])]
        call.tried_to_cancel = True
        try:
            if call.result.cancel():
                call.cancelled = True
                self.demand(call.runs == 0, f"call {call.number} was cancelled, and has run")
        except GridError:
            pass  # its host does not answer

    def get(self) -> None:
        """A user who waits for a result, a moment."""
        if self.open:
            self.interruptible = True
            try:
                self._wait_for(self.open[self.rng.choice(list(self.open)[-20:])])
            except Interrupted:
                self.happened["interrupted"] += 1
            finally:
                self.interruptible = False

    def _wait_for(self, call: UserCall) -> None:
        try:
            call.result.get(self.rng.choice((0.0, 0.01, 1.0, 3.0)))
        except CallTimeout:
            self.demand(not call.result.done(), f"call {call.number} was done and said that it was not")
        except (GridError, ValueError, CancelledError):
            pass  # `_look_at` judges it

    def wait_in_call_back(self) -> None:
        """A user whose call-back waits for another call of his."""
        if self.open:
            first, second = (self.open[self.rng.choice(list(self.open)[-20:])] for _ in range(2))

            def call_back(_: object) -> None:
                self.happened["waited in a call-back"] += 1
                self._wait_for(second)

            first.result.add_done_callback(call_back)
