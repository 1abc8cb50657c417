"""The crew of a grid: one published runner, and which functions its servers have.

A function is shipped to a server when a call there needs it first, and not with each call. Plain functions are known
by their identity, and by what the names of `__main__` that they use are bound to: a cell of a notebook may bind them
anew. Other callables (bound methods, partials, instances with `__call__`) may change between two maps, so they are
known by what they look like pickled: one that changed is shipped again.

Lives here: the one runner service of a grid, names of functions, shipping, forgetting.
Elsewhere:  what runs on servers (`runner`), calls (`work`).
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grid.compat.runner import Runner
from grid.errors import ServerLost
from grid.wire import codec
from grid.wire.mainimage import globals_used

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.server import Server

KEPT = 32
"""Functions that servers keep although nothing uses them; the one that was not used for longest is dropped."""

_making = threading.Lock()


class Function:
    """A function that servers can have. `uses`: maps and calls that need it now."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self.function = name, function
        self.uses = 0
        self.refers = _names_of_main(function)
        self.on: weakref.WeakKeyDictionary[Server, Result] = weakref.WeakKeyDictionary()


    @property
    def title(self) -> str:
        """What people call it."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def is_stale(self) -> bool:
        """Whether a name of `__main__` that its code uses was bound anew: as cells of a notebook do."""
        main = sys.modules["__main__"].__dict__
        return any(main.get(name) is not value for name, value in self.refers.items())


class Crew:
    """The runner of one grid; see the module. Get it with `crew_of`."""

    def __init__(self, grid: AbstractGrid, service_id: str) -> None:
        self.grid, self.service_id = grid, service_id
        self._lock = threading.Lock()
        self._names = (f"f{number}" for number in itertools.count())
        self._functions: OrderedDict[object, Function] = OrderedDict()
        self._dropped: weakref.WeakKeyDictionary[Server, list[str]] = weakref.WeakKeyDictionary()

    @property
    def size(self) -> int:
        """How many servers it has when all hosts are up."""
        return max(1, self.grid.n_hosts)

    def take(self, function: Callable[..., Any]) -> Function:
        """The function as servers know it, in use until `give_back`.

        Raises:
            SerialisationError: It can't travel; the message names the part.
        """
        key = _identity(function)
        with self._lock:
            known = self._functions.get(key)
            if known is not None and known.is_stale():
                self._functions[object()] = self._functions.pop(key)  # whoever uses it goes on with it
                known = None
            if known is None:
                known = self._functions[key] = Function(next(self._names), function)
            self._functions.move_to_end(key)
            known.uses += 1
            idle = [key for key, other in self._functions.items() if not other.uses]
            for key in idle[: max(0, len(self._functions) - KEPT)]:
                self._drop(self._functions.pop(key))
        return known

    def give_back(self, function: Function) -> None:
        """One use of it is over."""
        with self._lock:
            function.uses -= 1

    def _drop(self, function: Function) -> None:
        for server in list(function.on):
            self._dropped.setdefault(server, []).append(function.name)

    def ship(self, function: Function, proxy: Proxy) -> None:
        """Have it on the proxy's server before the calls that are made from now on.

        Raises:
            SerialisationError, MissingModules: It can't travel, or the host lacks what it needs.
        """
        server = proxy._server
        try:
            with self._lock:
                dropped = self._dropped.pop(server, None)
            if dropped:
                proxy._call("forget", (dropped,), {})
            if server not in function.on:
                function.on[server] = proxy._call("install", (function.name, function.function), {})
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


def _identity(function: Callable[..., Any]) -> object:
    if isinstance(function, (types.FunctionType, type)):
        return id(function)  # the entry holds it, so nothing else gets this id
    if isinstance(function, types.BuiltinFunctionType):
        owner = function.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            return id(function)
    dumped = codec.dumps(function, f"the function {function!r:.200}")
    digest = hashlib.blake2b(dumped.data, digest_size=20)
    for buffer in dumped.buffers:
        digest.update(buffer)
    return digest.digest()


def _names_of_main(function: Callable[..., Any]) -> dict[str, Any]:
    """What the code uses by name of `__main__`, and what is used there, with what is bound to each now."""
    main = sys.modules["__main__"].__dict__
    found: dict[str, Any] = {}
    todo: list[object] = [function]
    while todo:
        item = todo.pop()
        if isinstance(item, (type, types.FunctionType)) and item.__module__ != "__main__":
            continue
        for name in globals_used(item):
            if name in main and name not in found and not name.startswith("__"):
                found[name] = main[name]
                if isinstance(main[name], (type, types.FunctionType)):
                    todo.append(main[name])
    return found


def crew_of(grid: AbstractGrid) -> Crew:
    """The crew of a grid; its runner is published at the first call, and once more if somebody has withdrawn it.

    Raises:
        PublishError: No host brought up a server. GridStopped: The grid was terminated.
    """
    with _making:
        crew: Crew | None = grid.__dict__.get("_crew")
        grid._check_usable()
        if crew is None or crew.service_id not in grid.servers:
            crew = Crew(grid, grid.publish(Runner()))
            grid.__dict__["_crew"] = crew
    return crew
