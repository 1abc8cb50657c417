"""One service of a grid: its servers, their holders, the callers that wait, and calls of all servers.

An event of the roster is whole or it has not been: in the main thread an exception of the user's may tear it off at any
byte code (`wire/session.py`). So there it happens in a copy, which takes the roster's place by one store; what is to be
told of it stays in the roster until it was told. The commonest events, which nobody waits for, need no copy.

Lives here: `Service`: acquire, give up, hand out, release, the group, the look after what was torn off or dropped.
Elsewhere:  states and queues (`roster`), when a released server is free (`server`), all services of a grid (`table`).
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from grid.errors import AcquireTimeout, GridStopped, NoServers, ServiceError
from grid.hooks import Hook
from grid.limits import Limits, checked_timeout
from grid.services.hold import Hold, Waiter
from grid.services.load import Load
from grid.services.proxy import Proxy, proxy_type
from grid.services.retry import Retry
from grid.services.roster import Action, Event, Granted, Roster, State
from grid.services.server import Server
from grid.services.waste import Waste

if TYPE_CHECKING:
    from grid.services.result import Result

logger = logging.getLogger(__name__)

_OWN_WAIT_S = 3.0
"""A caller that waits for a server which it holds itself gets a warning after this."""


class ServiceGround(Protocol):
    """The part of its grid that a service uses."""

    limits: Limits
    failures: dict[str, Exception]
    hooks: list[Hook]
    _waste: Waste
    _pid: int

    def ishalted(self) -> bool:
        """Whether it has ended."""

    def release_service(self, proxy: Any) -> None:
        """Say that no more calls will come."""

    def _wait(self, waiter: Any, timeout: float | None) -> bool: ...

    def _rouse(self, waiter: Waiter) -> None: ...

    def _check_usable(self) -> None: ...

    def _terminate_servers(self, servers: Sequence[Server]) -> None: ...

    def _end_at_once(self, servers: Sequence[Server]) -> None: ...

    def _on_their_way(self) -> list[str]: ...


class Service:
    """One published instance. `lock` is the one of all services of its grid."""

    def __init__(
        self,
        ground: ServiceGround,
        service_id: str,
        methods: frozenset[str],
        lock: threading.RLock,
        yielding: frozenset[str] = frozenset(),
        retry: Retry | None = None,
    ) -> None:
        self.ground, self.service_id, self.methods, self.lock = ground, service_id, methods, lock
        self.waste = ground._waste
        self.yielding = yielding
        self._short: dict[str, str] = {}  # host -> why no further server has a slot there
        self.proxy_type = proxy_type(methods, yielding, retry)
        self.retry = retry
        self.roster = Roster()
        self.servers: dict[str, Server] = {}  # all that were announced and are not gone
        self.past = Load()
        """What those did that have ended."""
        self.instance: Any = None
        """The object of which servers hold copies; None before it is published and after it was withdrawn."""
        self.group: list[Proxy] | None = None  # what broadcast and scatter hold until release_group
        self._block: weakref.ref[Any] | None = None  # lives as long as the `with` that has the group
        self._forming: Waiter | None = None  # done when whoever asked first for the group has it, or gave up

    def has_ended(self) -> bool:
        """Whether its grid was terminated."""
        return self.ground.ishalted()

    # -- servers come and go ---------------------------------------------------------------------------------------

    def announce(self, servers: Sequence[Server]) -> None:
        """Servers are being started: group calls wait for them, and waiters have hope."""
        with self.lock:
            for server in servers:
                server.service = self
                self.servers[server.name] = server
            self.roster.announce([server.name for server in servers])

    def add(self, server: Server) -> None:
        """A server came up: a waiter may have it."""
        with self.lock:
            server.service = self
            server.hooks = tuple(hook for hook in self.ground.hooks if hook.hears_calls)
            for hook in server.hooks:
                hook.came(server.name, server.host.label)
            if self.roster.state(server.name) is None:
                self.roster.announce([server.name])
            self.servers[server.name] = server
            actions = self.roster.ready(server.name)
        self.carry_out(actions)

    def gone(self, server: Server, event: Event, reason: str) -> None:
        """A server was lost or terminated: serve or refuse the callers that wait."""
        with self.lock:
            if server.final_state is None:
                server.final_state = State.LOST if event is Event.LOST else State.TERMINATED
                server.reason = reason
                for hook in server.hooks:
                    hook.went(server.name, reason)
            if self.servers.pop(server.name, None) is not None:
                self.past.absorb(server.load)
            actions = self.roster.gone(server.name, event)
        self.carry_out(actions)

    def set_aside(self, server: Server, aside: bool) -> None:
        """Don't hand it out, or do so again: it moves, or its host can't be reached."""
        self.happen(partial(Roster.away if aside else Roster.back, name=server.name))

    def close(self) -> None:
        """It is withdrawn: nobody will be served any more."""
        with self.lock:
            actions = self.roster.close()
        self.carry_out(actions)

    def end(self, server: Server) -> None:
        """End one server."""
        self.ground._terminate_servers([server])

    # -- events of the roster --------------------------------------------------------------------------------------

    def happen(self, event: Callable[[Roster], list[Action]]) -> None:
        """Have an event in the roster, whole or not at all, and carry out what follows."""
        with self.lock:
            roster = self._open()
            roster.due += tuple(event(roster))
            self.roster = roster
        self.carry_out()

    def _open(self) -> Roster:
        """The roster, to have an event, under the lock; the caller then puts it into its place by one store."""
        return self.roster.copy() if threading.current_thread() is threading.main_thread() else self.roster

    def carry_out(self, actions: Sequence[Action] = ()) -> None:
        """Give waiters their outcome. If a thread is interrupted here, the next one continues."""
        if actions:
            with self.lock:
                self.roster.due += tuple(actions)
        while self.roster.due:
            with self.lock:
                due = self.roster.due
                if not due:
                    return
                action = due[0]
                waiter: Waiter = action.ticket
                if isinstance(action, Granted) and waiter.granted is None:
                    granted = tuple(self.servers[name] for name in action.servers if name in self.servers)
                    for server in granted:
                        server.hold = Hold(waiter)
                        server.load.jobs += 1
                        server.load.acquired = True
                    waiter.granted = granted
                waiter.done_flag = True
            self.ground._rouse(waiter)
            if waiter.told is not None:
                waiter.told(waiter)
            with self.lock:
                if self.roster.due[:1] == (action,):
                    self.roster.due = self.roster.due[1:]

    # -- to have a server ------------------------------------------------------------------------------------------

    def acquire(self, timeout: float | None = None, *, expect_s: float | None = None, strict: bool = False) -> Proxy:
        """Have one free server; see `AbstractGrid.acquire_service`."""
        timeout = checked_timeout(timeout)
        if strict and self.retry is not None:
            raise ValueError(
                "strict=True and publish(retry=...) exclude each other: a call may fail after the next one was made"
            )
        proxy = self.at_once(strict=strict) if expect_s is None else None
        if proxy is None:
            claim = self.obtain(timeout, expect_s=expect_s)
            server, *_ = claim.granted or ()
            proxy = self.hand_out(server, strict=strict)
        proxy._hold.note_user()
        return proxy

    def at_once(self, this: Server | None = None, *, strict: bool = False) -> Proxy | None:
        """A free server (this one, or the next), where nobody waits for one; else None.

        Torn off before `take` nothing has happened: a free server's hold means nothing. After it nobody has the proxy,
        and so the server goes back as one that was dropped.
        """
        with self.lock:
            name = self.roster.next_free(None if this is None else this.name)
            server = self.servers.get(name) if name is not None and not self.roster.due else None
            if name is None or server is None:
                return None
            server.hold = hold = Hold()
            proxy = self.proxy_type(self.ground, server, self.methods, strict=strict)
            hold.holder = weakref.ref(proxy)
            self.roster.take(name)
            server.load.jobs += 1
            server.load.acquired = True
        return proxy

    def obtain(self, timeout: float | None, *, everyone: bool = False, expect_s: float | None = None) -> Waiter:
        """Wait for a server, or for all of them. They are the waiter's, until proxies have them or it is dropped.

        Raises:
            AcquireTimeout, NoServers, GridStopped: See `AbstractGrid.find_server`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            claim = Waiter()
            fits = None if expect_s is None else lambda name: self.servers[name].lasts(expect_s)
            stands = False
            try:
                self.happen(partial(Roster.acquire, ticket=claim, everyone=everyone, fits=fits))
                stands = True
                if not claim.done_flag:
                    self._stand_in_line(claim, deadline)
            except BaseException:
                if self.give_up(claim, sure=stands):
                    self.give_back(claim)
                raise
            if not claim.done_flag:
                why = self.why_waiting()
                if not self.give_up(claim):
                    raise AcquireTimeout(
                        f"no server became free within {timeout:g} s", service_id=self.service_id, hint=why
                    )
            if claim.granted:
                return claim
            if claim.granted is None:
                if self.has_ended():
                    raise GridStopped("the grid was terminated", hint="Make another one")
                raise self.no_servers()
            # all of them were lost in the moment between grant and waking: stand in line again

    def _stand_in_line(self, claim: Waiter, deadline: float | None) -> None:
        """Wait for a grant. A wait that the caller has made himself says so after a while."""
        began = time.monotonic()
        while not claim.done_flag:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            own = self.held_by_caller()
            if own is None or (remaining is not None and remaining <= _OWN_WAIT_S):
                self.ground._wait(claim, remaining)
                return
            if not self.ground._wait(claim, _OWN_WAIT_S):
                waited = time.monotonic() - began
                logger.warning(
                    "%s: waiting for a server for %.0f s, and %s. %s",
                    *(self.service_id, waited, own, self.why_waiting()),
                )
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                self.ground._wait(claim, remaining)
                return

    def ask(self, waiter: Waiter, told: Callable[[Waiter], None]) -> None:
        """Have it stand in line for a server; `told` hears of the grant, or of the refusal, and must not wait."""
        waiter.told = told
        self.happen(partial(Roster.acquire, ticket=waiter))

    def hand_out(self, server: Server, *, strict: bool = False) -> Proxy:
        """A proxy for a server that was granted."""
        proxy = self.proxy_type(self.ground, server, self.methods, strict=strict)
        proxy._hold.holder = weakref.ref(proxy)  # one store: the waiter has the server, or the proxy
        return proxy

    # -- to give it back -------------------------------------------------------------------------------------------

    def release(self, proxy: Proxy) -> None:
        """No more calls will come through it: its server is free when the last one made has finished."""
        proxy._hold.released = True
        proxy._server.free_if_idle()

    def free(self, server: Server, hold: Hold) -> None:
        """End the hold, once; a lost server does not go back. `Server.free_if_idle` decides when."""
        with self.lock:
            if server.hold is not hold:
                return  # somebody else was faster, and another may have the server by now
            roster = self.roster
            if roster.put_back(server.name) or roster.state(server.name) is not State.BUSY:
                server.hold = None  # torn off before this: a free server's hold means nothing
            else:
                roster = self._open()
                roster.due += tuple(roster.release(server.name))
                # nothing comes in between: it is free, or it is not
                self.roster, server.hold = roster, None
            server.load.acquired = False
        if roster.due:
            self.carry_out()

    def give_up(self, waiter: Waiter, *, sure: bool = True) -> bool:
        """Leave the queue, in which it surely stood or perhaps; True if the grant came first."""
        with self.lock:
            waits = self.roster.waits(waiter)
        self.happen(lambda roster: roster.leave(waiter))
        if sure and not waits and not waiter.done_flag:
            self.ground._wait(waiter, self.ground.limits.control_s)  # another thread granted it, and will say so now
        return not waits

    def give_back(self, waiter: Waiter) -> None:
        """Free what was granted to it and no proxy has."""
        for server in waiter.granted or ():
            hold = server.hold
            if hold is not None and hold.is_of(waiter):
                self.free(server, hold)

    def look_after(self) -> None:
        """Now and then, in a thread of the grid's: what was torn off halfway, what was dropped."""
        if self.roster.due:
            self.carry_out()
        if self._block is not None and self._block() is None:
            self.release_group()
        for server in list(self.servers.values()):
            hold = server.hold
            if hold is not None and not hold.released and hold.is_dropped() and server.idle and not hold.streams:
                self._reclaim(server, hold)
            server.free_if_idle()  # torn off behind the word that it is released

    def _reclaim(self, server: Server, hold: Hold) -> None:
        """Its holder was dropped without a word."""
        if self.roster.state(server.name) is not State.BUSY:
            return
        if hold.where is not None:
            logger.warning(
                "server %s was acquired at %s and its proxy dropped without release_service; it is given back",
                *(server.name, hold.where),
            )
        hold.released = True

    # -- all servers -----------------------------------------------------------------------------------------------

    def hold_group(self, timeout: float | None) -> list[Proxy]:
        """Have all live servers, waiting for those that others have; the same until `release_group`."""
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        ours = Waiter()  # done, whatever becomes of us: see the end
        try:
            while True:
                with self.lock:
                    if self.group is not None:
                        return self.group
                    other = self._forming
                    if other is None or other.done_flag:
                        self._forming = ours
                        break
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self.ground._wait(other, remaining):
                    raise AcquireTimeout(
                        f"another thread waits for all its servers, and did not have them within {timeout:g} s",
                        service_id=self.service_id,
                        hint=self.why_waiting(),
                    )
            own = self.held_by_caller()
            if own is not None and timeout is None:
                raise ServiceError(
                    f"a call of all servers waits for each of them, and {own}",
                    service_id=self.service_id,
                    hint="Release it first; with a timeout the call waits for it all the same",
                )
            claim = self.obtain(timeout, everyone=True)
            self.group = group = [self.hand_out(server) for server in claim.granted or ()]
            return group
        finally:
            ours.done_flag = True
            self.ground._rouse(ours)

    def release_group(self) -> None:
        """Release what group calls hold."""
        with self.lock:
            held, self.group, self._block = self.group or [], None, None
        for proxy in held:
            self.release(proxy)

    @contextmanager
    def in_group(self, timeout: float | None) -> Iterator[list[Proxy]]:
        """Have all live servers in a block."""
        token = Waiter()  # dies with this block, though an exception tears its end off
        self._block = weakref.ref(token)
        try:
            yield self.hold_group(timeout)
        finally:
            if os.getpid() == self.ground._pid:  # else a forked child leaves the block
                self.release_group()

    def scatter(
        self,
        method: str,
        elements: Sequence[Any],
        keywords: Sequence[Mapping[str, Any]] | None,
        *,
        cycle: bool,
        timeout: float | None,
    ) -> list[Result]:
        """Element i goes to server i; see `AbstractGrid.scatter`."""
        words = [{}] * len(elements) if keywords is None else list(keywords)
        if len(words) != len(elements):
            raise ServiceError(
                f"scatter got {len(elements)} elements and {len(words)} mappings of keywords",
                service_id=self.service_id,
                hint="Give one mapping for each element",
            )
        proxies = self.hold_group(timeout)
        if len(elements) > len(proxies) and not cycle:
            raise ServiceError(
                f"scatter got {len(elements)} elements for {len(proxies)} servers",
                service_id=self.service_id,
                hint="Pass at most one element for each server, or cycle=True to go round",
            )
        results = []
        for index, (element, named) in enumerate(zip(elements, words, strict=True)):
            args = tuple(element) if isinstance(element, (list, tuple)) else (element,)
            results.append(proxies[index % len(proxies)]._call(method, args, dict(named)))
        return results

    # -- in words --------------------------------------------------------------------------------------------------

    def check_method(self, method: str) -> None:
        """Raise ServiceError if the instance surely has no such method."""
        if method != "__call__" and self.methods and method not in self.methods:
            known = ", ".join(sorted(self.methods)[:20])
            raise ServiceError(f"it has no method {method!r}", service_id=self.service_id, hint=f"Methods: {known}")

    def held_by_caller(self) -> str | None:
        """The servers of the service that this thread holds itself, in words."""
        if self.group is not None:
            return "broadcast or scatter hold all servers until release_all"
        me = threading.get_ident()
        with self.lock:
            servers = list(self.servers.values())
        for server in servers:
            hold = server.hold
            if hold is not None and hold.thread == me and not hold.released and not hold.is_dropped():
                return f"this thread holds {server.name} itself, acquired at {hold.where}"
        return None

    def no_servers(self) -> NoServers:
        """The error for callers that can't get a server any more."""
        reasons = [str(error) for error in self.ground.failures.values()]
        what = "no server is left" + (f" ({'; '.join(reasons[-3:])})" if reasons else "")
        return NoServers(what, service_id=self.service_id, hint="Publish it again")

    def note_short(self, host: str, why: str) -> None:
        """A host has no slot for a further server of it: what they need is taken, or is not there."""
        with self.lock:
            self._short[host] = why

    def _room(self) -> list[str]:
        """In words, why there are no more servers, where that is because of what they need."""
        with self.lock:
            short = list(self._short.items())
        told = [f"on {host} {why}" for host, why in short[:4]]
        more = [f"and {len(short) - 4} more hosts"] if len(short) > 4 else []
        return [f"there are no more of them, as each needs a slot: {', '.join([*told, *more])}"] if told else []

    def why_waiting(self) -> str:
        """What the servers are doing, for a caller that waits for one."""
        with self.lock:
            servers = list(self.servers.values())
            waiting = self.roster.waiting
        shown = "; ".join(f"{server.name} on {server.host.label}: {server.doing()}" for server in servers[:8])
        more = f"; and {len(servers) - 8} more" if len(servers) > 8 else ""
        coming = [*self._room(), *self.ground._on_their_way()]
        told = f"{waiting} waiting. {shown}{more}"
        return "; ".join([told.removesuffix(". "), *coming]) if coming else told

    def status(self) -> dict[str, Any]:
        """Its servers and their work, in plain values (JSON)."""
        with self.lock:
            roster = self.roster
            spent = Load()
            for load in (self.past, *(server.load for server in self.servers.values())):
                spent.absorb(load)
            return {
                "costs": spent.costs(),
                "free": len(roster.names(State.FREE)),
                "acquired": len(roster.names(State.BUSY)),
                "starting": len(roster.names(State.STARTING)),
                "waiting": roster.waiting,
                "servers": [
                    {
                        "name": server.name,
                        "host": server.host.label,
                        "state": server.state.value,
                        "doing": server.doing(),
                        "jobs": server.load.jobs,
                        "calls": server.load.calls,
                        "mean_s": server.load.mean,
                        "slot": server.slot,
                        "costs": server.load.costs(),
                    }
                    for server in self.servers.values()
                ],
            }
