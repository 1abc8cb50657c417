"""The crew of a grid: one published runner, and which functions its servers have.

A function is shipped to a server when a call there needs it first, and not with each call. A server that dies is
replaced, and the new one gets what calls there need: whatever runs on a crew may kill its server, and takes nobody
else's place away.

Lives here: the one runner service of a grid, shipping, forgetting, initializers, servers that are replaced.
Elsewhere:  what runs on servers (`runner`), which function is which (`functions`), calls (`work`).
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from grid.arguments import check, check_number, shown
from grid.compat.functions import KEPT, Function, Functions
from grid.compat.runner import Runner
from grid.errors import GridError, ServerLost

if TYPE_CHECKING:
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.server import Server
    from grid.services.service import Service
    from grid.services.table import Services
    from grid.services.unfinished import Unfinished

__all__ = ["KEPT", "Crew", "Function", "Initializer", "crew_of"]

RESTARTS = 10_000
"""Servers of a crew that are replaced, in the life of a grid: each has died with somebody's call."""

_making = threading.Lock()
_tokens = itertools.count()


class _Ending(Protocol):
    exiting: bool


class Publishes(Protocol):
    """What executors, pools and joblib need of a grid."""

    unfinished: Unfinished
    servers: Any
    _services: Services

    @property
    def n_hosts(self) -> int:
        """How many servers a service gets."""

    @property
    def _ending(self) -> _Ending: ...

    def terminate(self, service_id: str | None = None) -> None:
        """End a service, or everything."""

    def ishalted(self) -> bool:
        """Whether it has ended."""

    def _publish_lasting(self, instance: Any, restarts: int) -> str: ...

    def _check_usable(self) -> None: ...

    def _service(self, service_id: str) -> Service: ...


class Initializer:
    """The function that a pool or executor runs once on each server, before its first call there."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        self.token = next(_tokens)
        self.function, self.args = function, tuple(args)
        self.on: weakref.WeakKeyDictionary[Server, Result] = weakref.WeakKeyDictionary()

    def failure(self, server: Server) -> BaseException | None:
        """Why it failed on a server, once a call after it has been answered; else None."""
        ran = self.on.get(server)
        if ran is None or not ran.done():
            return None
        failed = ran.exception(0)
        return None if isinstance(failed, ServerLost) else failed


def initializer_of(function: Callable[..., Any] | None, args: Iterable[Any] | None) -> Initializer | None:
    """What `initializer` and `initargs` of a pool say, if they say something. Raises TypeError."""
    check("initializer", function, Callable[..., Any] | None)
    if args is not None and not isinstance(args, Iterable):
        raise TypeError(f"initargs must be a tuple of arguments, not {shown(args)}")
    return None if function is None else Initializer(function, tuple(args or ()))


def check_handed(grid: Any, retries: Any) -> None:
    """What an executor, a pool or a backend is made of. Raises TypeError, ValueError."""
    if not hasattr(type(grid), "_publish_lasting"):
        raise TypeError(f"grid must be a grid, as LocalGrid() makes one, not {shown(grid)}")
    check_number("retries", retries, 0)


class Crew:
    """The runner of one grid; see the module. Get it with `crew_of`."""

    def __init__(self, grid: Publishes, service: Service) -> None:
        self.grid, self.service, self.service_id = grid, service, service.service_id
        self.functions = Functions()
        self._lock = threading.Lock()
        self._dropped: weakref.WeakKeyDictionary[Server, list[str]] = weakref.WeakKeyDictionary()
        self._sweeping = False
        self.functions.on_death(self._leave_word)

    @property
    def size(self) -> int:
        """How many servers it has when all hosts are up."""
        return max(1, self.grid.n_hosts)

    def take(self, function: Callable[..., Any], since: float | None = None) -> Function:
        """The function as servers know it, in use until `give_back`. Arguments and errors: `Functions.take`."""
        known, dropped = self.functions.take(function, since)
        self._drop(dropped)
        return known

    def share(self, function: Function) -> Function:
        """One more use of what somebody has taken, to be given back as well."""
        self.functions.share(function)
        return function

    def give_back(self, function: Function) -> None:
        """One use of it has ended."""
        self._drop(self.functions.give_back(function))

    def _drop(self, functions: Sequence[Function]) -> None:
        with self._lock:
            for function in functions:
                for server in list(function.on):
                    self._dropped.setdefault(server, []).append(function.name)
        if functions:
            self._leave_word()

    def ship(self, function: Function, proxy: Proxy) -> None:
        """Have it on the proxy's server before the calls that are made from now on.

        Raises:
            SerialisationError, MissingModules: It can't travel, or the host lacks what it needs.
        """
        server = proxy._server
        try:
            self._forget_on(proxy)
            if server not in function.on:
                function.on[server] = proxy._call("install", (function.name, function.function), {})
        except ServerLost:
            pass  # the call that follows says so

    def prepare(self, initializer: Initializer | None, proxy: Proxy) -> None:
        """Have an initializer run on the proxy's server before the calls that are made from now on."""
        if initializer is None or proxy._server in initializer.on:
            return
        what = (initializer.token, initializer.function, initializer.args)
        try:
            initializer.on[proxy._server] = proxy._call("prepare", what, {})
        except ServerLost:
            pass  # the call that follows says so

    def refusal(self, function: Function, server: Server) -> BaseException | None:
        """Why a server could not take the function, once a call after it has been answered; else None."""
        installed = function.on.get(server)
        if installed is None or not installed.done():
            return None
        refused = installed.exception(0)
        if refused is not None:
            function.on.pop(server, None)  # the next call tries again
        return refused

    # -- functions that nobody can call any more -------------------------------------------------------------------

    def _forget_on(self, proxy: Proxy) -> None:
        with self._lock:
            dropped = self._dropped.pop(proxy._server, None)
        if dropped:
            proxy._call("forget", (dropped,), {})

    def _leave_word(self) -> None:
        """Have the grid's watch sweep. This may run in a destructor: it takes no lock."""
        if not self._sweeping:
            self._sweeping = True
            self.service.waste.put(self._sweep)

    def _sweep(self) -> bool:
        """Free servers drop what they need no more; the others get the note with their next call."""
        self._sweeping = False
        self._drop(self.functions.bury())
        with self._lock:
            servers = [server for server in self._dropped if server.final_state is None]
        for server in servers:
            proxy = self.service.at_once(server)
            if proxy is None:
                continue
            try:
                self._forget_on(proxy)
            except GridError:
                pass  # it ends, or was lost: then nothing is kept there
            finally:
                self.service.release(proxy)
        self._sweeping = False  # dropping has left word once more
        return True


def crew_of(grid: Publishes) -> Crew:
    """The crew of a grid; its runner is published at the first call, and again if it was withdrawn or has no server.

    Raises:
        PublishError: No host brought up a server. GridStopped: The grid was terminated.
    """
    with _making:
        crew: Crew | None = grid.__dict__.get("_crew")
        grid._check_usable()
        if crew is not None and crew.service_id in grid.servers and not crew.service.roster.names():
            grid.terminate(crew.service_id)  # no server is there or is being started
        if crew is None or crew.service_id not in grid.servers:
            crew = Crew(grid, grid._service(grid._publish_lasting(Runner(), RESTARTS)))
            grid.__dict__["_crew"] = crew
    return crew
