"""How a grid comes to its end: asked for, at the end of `with` or of the interpreter, in a forked child.

Lives here: who ends, in which order, and that it is whole though Ctrl-C comes in the middle; until then the look after
            what was left halfway.
Elsewhere:  what an engine ends (`_halt` of each grid), steps that must be whole (`undisturbed`).
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Any, Protocol

from grid.errors import GridError
from grid.grids.undisturbed import undisturbed
from grid.hooks import Hook
from grid.limits import Limits
from grid.services.service import Service
from grid.services.table import Services
from grid.services.unfinished import Unfinished
from grid.services.waste import Waste

_running: weakref.WeakSet[Ending] = weakref.WeakSet()


def _end_all() -> None:
    """The interpreter ends: so do grids that nobody has terminated."""
    for ending in list(_running):
        ending.at_exit()


def _in_child() -> None:
    for ending in list(_running):
        ending.grid._forked()
    _running.clear()


os.register_at_fork(after_in_child=_in_child)

# From Python 3.12 on what `atexit` calls can start no thread any more; this is where concurrent.futures ends its pools.
getattr(threading, "_register_atexit", atexit.register)(_end_all)


class Ends(Protocol):
    """What an end needs of its grid."""

    limits: Limits
    hooks: list[Hook]
    unfinished: Unfinished
    _services: Services
    _waste: Waste
    _pid: int
    _leaves_at_exit: bool

    def detach(self) -> None:
        """Go, and leave all as it is."""

    def ishalted(self) -> bool:
        """Whether it has ended."""

    def terminate(self) -> None:
        """End a service, or everything."""

    def _halt(self, *, force: bool) -> None: ...

    def _forked(self) -> None: ...

    def _terminate_servers(self, servers: Any) -> None: ...

    def _withdrawn(self, service_id: str) -> None: ...


class Leaves(Protocol):
    """An engine whose hosts wait for another client."""

    def leave(self, why: GridError) -> None:
        """Go, and end nothing."""


class Ending:
    """The end of one grid. `exiting`: the interpreter ends; by then no signal can be caught."""

    def __init__(self, grid: Ends) -> None:
        self.grid = grid
        self.exiting = False
        self.under_way: threading.Event | None = None
        _running.add(self)

    def look_after(self) -> None:
        """Now and then, in a thread of the grid's: what was torn off halfway, what was dropped."""
        self.grid._waste.take_out()
        for service in self.grid._services.all():
            service.look_after()

    def at_exit(self) -> None:
        """The interpreter ends, and nobody has terminated the grid."""
        grid, self.exiting = self.grid, True
        if self.under_way is not None:
            self.under_way.wait(3 * grid.limits.stop_s + 20.0)  # Ctrl-C has left it to itself
        try:
            if os.getpid() == grid._pid and not grid.ishalted():
                grid.unfinished.finish()
                if grid._leaves_at_exit:
                    grid.detach()
                else:
                    grid.terminate()
        except NotImplementedError:
            pass  # the abstract grid itself: there is nothing to end

    def withdraw(self, service: Service, *, wait: bool) -> None:
        """End one service."""
        if wait:
            undisturbed("grid-terminate", lambda: self._withdraw(service))
        else:
            threading.Thread(target=self._withdraw, args=(service,), name="grid-terminate", daemon=True).start()

    def _withdraw(self, service: Service) -> None:
        grid = self.grid
        grid._services.disown(service.service_id)
        with service.lock:
            servers = list(service.servers.values())
        service.close()
        grid._terminate_servers(servers)
        grid._services.remove(service.service_id)
        grid._withdrawn(service.service_id)

    def everything(self, *, force: bool, wait: bool = True) -> None:
        """End everything, though Ctrl-C comes in the middle: it is raised afterwards, the third one at once."""
        if os.getpid() != self.grid._pid:
            return  # a forked child leaves the block: it has nothing of this grid
        main = threading.current_thread() is threading.main_thread()
        if (wait and not main) or self.exiting:
            self._at_once(force)
            return
        failed: list[BaseException] = []
        # not `join`: until Python 3.12 an interrupted one takes the thread for ended (bpo-45274); nor an Event, whose
        # lock an exception can leave held
        over, claim = threading.Lock(), threading.Lock()
        over.acquire()
        self.under_way = told = threading.Event()

        def terminate() -> None:
            if not claim.acquire(blocking=False):
                return  # another one is at it
            try:
                self._at_once(force)
            except BaseException as exc:
                failed.append(exc)
            finally:
                told.set()
                over.release()

        interrupts: list[BaseException] = []
        while True:
            try:
                if not claim.locked():  # an exception may also come while a thread is made
                    threading.Thread(target=terminate, name="grid-terminate", daemon=True).start()
                if not wait:
                    return
                over.acquire()
                break
            except BaseException as exc:
                interrupts.append(exc)
                if len(interrupts) > 2:
                    raise
        for error in [*failed, *interrupts[:1]]:
            raise error

    def leave(self, engine: Leaves, why: GridError) -> None:
        """The client goes, and servers wait for another one."""
        grid = self.grid
        for hook in grid.hooks:
            hook.ending(grid)
        for service in grid._services.all():
            service.close()
        engine.leave(why)
        grid._services.clear_servers()
        _running.discard(self)
        for hook in grid.hooks:
            hook.ended()

    def _at_once(self, force: bool) -> None:
        grid = self.grid
        for hook in grid.hooks:
            hook.ending(grid)
        grid.unfinished.say_dropped()
        for service in grid._services.all():
            service.close()
        grid._waste.fetch(grid.limits.stop_s)
        grid._halt(force=force)
        grid._waste.tell()
        grid._services.clear_servers()
        _running.discard(self)
        for hook in grid.hooks:
            hook.ended()
