"""The grid without its engine: services, queues of free servers, exclusive use, late release, groups.

A derived grid supplies how a server comes to be: `publish`, `ishalted`, and a `Server` subclass that can `submit` a
call. Everything else is here, and the same for all: our own kernels (`grid.py`), or another system's actors.

Lives here: acquire and release, group calls, terminate, the tables `servers` and `queues`.
Elsewhere:  the rules of states and queues (`services/roster.py`); waiting (`_wait`, which a derived grid may improve).
"""

from __future__ import annotations

import atexit
import inspect
import itertools
import logging
import operator
import os
import reprlib
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from grid.errors import (
    AcquireTimeout,
    GridError,
    GridStopped,
    NoServers,
    ServiceError,
    StagingError,
    UnknownService,
    fork_error,
)
from grid.failures.keeper import Keeper, keeper_of
from grid.grids.undisturbed import undisturbed
from grid.hosts import Host, as_hosts
from grid.kernel.title import script_name
from grid.limits import Limits, checked_timeout
from grid.services import html
from grid.services.mapping import MapResult, MapWork, Zipped
from grid.services.packing import Packing
from grid.services.proxy import Proxy, proxy_type
from grid.services.remote_value import RemoteValue
from grid.services.result import Result, Waiter
from grid.services.roster import Action, Event, Granted, Roster, State
from grid.services.server import Server
from grid.services.unfinished import Unfinished
from grid.wire.signals import came_by_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from grid.compat.executor import GridExecutor
    from grid.compat.pool import GridPool
    from grid.trace import Trace

logger = logging.getLogger(__name__)


_running: weakref.WeakSet[AbstractGrid] = weakref.WeakSet()


_ids = itertools.count()
"""Numbers of services: unique among all grids of the process."""
_OWN_WAIT_S = 3.0
"""Who waits for a server that he holds himself is told so after this."""

observers: list[Callable[[AbstractGrid], None]] = []
"""Each is called with a grid that is about to end, while its tables are still there."""


def _end_all() -> None:
    """The interpreter ends: so do grids that nobody has terminated."""
    for grid in list(_running):
        grid._at_exit()


def _in_child() -> None:
    for grid in list(_running):
        grid._forked()
    _running.clear()


os.register_at_fork(after_in_child=_in_child)

# From Python 3.12 on what `atexit` calls can start no thread any more; this is where concurrent.futures ends its pools.
getattr(threading, "_register_atexit", atexit.register)(_end_all)


class _Service:
    """What the grid keeps of one published instance."""

    def __init__(self, service_id: str, methods: frozenset[str]) -> None:
        self.service_id = service_id
        self.methods = methods
        self.proxy_type = proxy_type(methods)
        self.roster = Roster()
        self.servers: dict[str, Server] = {}  # all that were announced and are not gone
        self.group: list[Proxy] | None = None  # what broadcast and scatter hold until release_all
        self.block: weakref.ref[Any] | None = None  # lives as long as the `with` that has the group
        self.forming: Waiter | None = None  # done when whoever asked first for the group has it, or gave up


class _Claim(Waiter):
    """Waits for servers, and has them from the grant until their proxies do; dropped in between it gives them back."""

    def __init__(self, grid: AbstractGrid, service: _Service) -> None:
        super().__init__()
        self._grid, self._service = grid, service

    def give_back(self) -> None:
        """Free what no proxy has."""
        servers, self.left = self.left, ()
        self._grid._return(self._service, servers)

    def __del__(self) -> None:
        if self.left:  # any thread, any lock held: so no more than a word
            self._grid._waste.put(partial(self._grid._return, self._service, self.left))


class FreeQueue:
    """The queue of free servers of one service: FIFO, unbounded; to look at, not to take from."""

    def __init__(self, service: _Service, lock: threading.RLock) -> None:
        self._service, self._lock = service, lock

    def qsize(self) -> int:
        """How many servers are free."""
        return len(self.items())

    def empty(self) -> bool:
        """Whether none is free."""
        return not self.items()

    def items(self) -> list[Server]:
        """The free servers, the next to go first."""
        with self._lock:
            return [self._service.servers[name] for name in self._service.roster.free]

    def __len__(self) -> int:
        return self.qsize()

    def _repr_html_(self) -> str:
        return html.table(f"free servers of {self._service.service_id}", html.SERVERS, map(html.server, self.items()))

    def __repr__(self) -> str:
        return f"<FreeQueue {[server.name for server in self.items()]}>"


class _Table(Mapping[str, Any]):
    """A read-only view: service id -> what `look` shows of it."""

    def __init__(self, grid: AbstractGrid, look: Any) -> None:
        self._grid, self._look = grid, look

    def __getitem__(self, service_id: str) -> Any:
        return self._look(self._grid._service(service_id))

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._grid._services))

    def __len__(self) -> int:
        return len(self._grid._services)

    def _repr_html_(self) -> str:
        return "".join(
            html.table(service_id, html.SERVERS, map(html.server, shown if isinstance(shown, list) else shown.items()))
            for service_id, shown in self.items()
        )

    def __repr__(self) -> str:
        return repr({service_id: self[service_id] for service_id in self})


class AbstractGrid(threading.Thread):
    """A grid of servers over hosts. Subclass it to bring an engine; use `LocalGrid`, `SSHGrid` or `Grid` otherwise.

    Args:
        hosts: Names or `Host` objects, in order; one that occurs twice gets twice the servers.
        src_path: Directory that `copy_files` and `initialise` take relative names from.
        display: Show each server's output in a terminal of its own (tmux or xterm).
        X11_delay: Seconds between launches of servers on one log-in host, against races of X authorisation.
        debug: Log more, here and on the hosts.
        verbose: Say on `debug_out` what is done.
        shared_temp_path: True: `temp_path` of the first host is one directory that every host sees.
        limits: Every time limit and bound, see `Limits`.
        trace: A file for the timeline of all calls, written at the end: .json for Perfetto, .html or .svg; default:
            what `$GRID_TRACE` says.
        keep_failures: A directory for calls that fail, for `grid debug`; default: what `$GRID_KEEP_FAILURES` says.
    """

    window_size = (30, 10)
    """Columns and rows of the windows that `display` opens."""

    def __init__(
        self,
        hosts: Sequence[str | Host],
        src_path: str | os.PathLike[str] | None = None,
        display: bool = False,
        X11_delay: float = 0.0,
        debug: bool = False,
        verbose: bool = False,
        shared_temp_path: bool = False,
        *,
        limits: Limits | None = None,
        debug_out: TextIO | None = None,
        trace: str | os.PathLike[str] | None = None,
        keep_failures: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(name="grid", daemon=True)
        self.hosts = as_hosts(hosts)
        self.src_path = None if src_path is None else os.fspath(src_path)
        self.display = display
        self.X11_delay = X11_delay
        self.debug = debug
        self.verbose = verbose
        self.shared_temp_path = shared_temp_path
        self.limits = limits or Limits()
        self.debug_out: TextIO = debug_out or sys.stderr
        traced = trace if trace is not None else os.environ.get("GRID_TRACE")
        self.trace: Trace | None = None
        self.reporters: list[tuple[str, Callable[[], Any]]] = []
        """(key, call): what stands on the grid, such as a master of tasks, tells in `status` as well."""
        if traced:
            from grid.trace import Trace  # not at the top: most runs have none

            self.trace = Trace(traced, f"{type(self).__name__} of {script_name()}")
        self.loader_filename: str | None = None
        self._loader: tuple[str, str] | None = None
        self.others: dict[str, Any] = {}
        self.failures: dict[str, Exception] = {}
        """Hosts that could not be used, with the reason: label -> error."""
        self.keeper: Keeper | None = keeper_of(keep_failures)
        self._services: dict[str, _Service] = {}
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._published: dict[int, tuple[Any, str]] = {}  # id of a live instance -> (it, its service id)
        self._launched = False
        self._exiting = False
        self._terminating: threading.Event | None = None
        self._waste: SimpleQueue[Callable[[], bool]] = SimpleQueue()
        """What to remove on hosts; to be tried again where the answer is False. Destructors put it here."""
        self.unfinished = Unfinished()
        self._untold: weakref.WeakSet[Any] = weakref.WeakSet()  # errors that nobody has asked for
        self._unfetched: weakref.WeakSet[Result] = weakref.WeakSet()  # whose values wait on their hosts
        self.servers: Mapping[str, list[Server]] = _Table(self, self._show_servers)
        self.queues: Mapping[str, FreeQueue] = _Table(self, lambda service: FreeQueue(service, self._lock))
        _running.add(self)

    # -- what a derived grid supplies ------------------------------------------------------------------------------

    def publish(self, instance: Any) -> str:
        """Put a copy of `instance` on servers and return the service id."""
        raise NotImplementedError("a derived grid publishes")

    def _publish_lasting(self, instance: Any, restarts: int) -> str:
        """Publish it so that lost servers are replaced, so many; here: by an engine that replaces none."""
        return self.publish(instance)

    def ishalted(self) -> bool:
        """Whether the grid has stopped."""
        raise NotImplementedError("a derived grid knows")

    def _wait(self, waiter: Waiter | Result, timeout: float | None) -> bool:
        """Wait until `waiter.done_flag`; False after `timeout` seconds."""
        raise NotImplementedError("a derived grid waits")

    def _rouse(self, waiter: Waiter) -> None:
        """`waiter` was granted or refused: wake who waits for it."""
        raise NotImplementedError("a derived grid wakes")

    def _halt(self, *, force: bool) -> None:
        """End everything that the engine started."""

    def _end_at_once(self, servers: Sequence[Server]) -> None:
        """End servers whatever they do, and have others in their places. Here: their calls are finished."""

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the background loop; starting twice is harmless."""
        self._check_usable()
        with self._lock:
            if self._launched:
                return
            self._launched = True
        super().start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.ishalted():
                self.unfinished.finish()
        except BaseException:
            self._terminate_all(force=True)
            raise
        self._terminate_all(force=kind is not None)

    def _at_exit(self) -> None:
        self._exiting = True  # by then no signal can be caught
        if self._terminating is not None:
            self._terminating.wait(3 * self.limits.stop_s + 20.0)  # Ctrl-C has left it to itself
        try:
            if os.getpid() == self._pid and not self.ishalted():
                self.unfinished.finish()
                self.terminate()
        except NotImplementedError:
            pass  # the abstract grid itself: there is nothing to end

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise fork_error()
        if self.ishalted():
            raise GridStopped("the grid was terminated", hint="Make another one")

    def _forked(self) -> None:
        """In a child process that was forked just now: threads and connections are the parent's; nothing here waits."""
        self._lock = threading.RLock()  # somebody may have had the old one

    def terminate(self, service_id: str | None = None, *, wait: bool = True) -> None:
        """End a service, or (without an id) everything; harmless if that is done already.

        Servers leave the tables first, so that nobody acquires them; waiters get an error. Calls that servers have
        already are finished within `limits.stop_s`, later ones fail.

        Args:
            wait: False: return at once; the end goes on in a thread, for which the interpreter waits before it ends.
        """
        if os.getpid() != self._pid or self.ishalted():
            return
        if service_id is None:
            self._terminate_all(force=False, wait=wait)
            return
        service = self._service(service_id)
        if wait:
            undisturbed("grid-terminate", lambda: self._terminate_service(service))
        else:
            threading.Thread(
                target=self._terminate_service, args=(service,), name="grid-terminate", daemon=True
            ).start()

    def _terminate_service(self, service: _Service) -> None:
        service_id = service.service_id
        with self._lock:
            servers = list(service.servers.values())
            actions = service.roster.close()
        self._carry_out(service, actions)
        self._terminate_servers(servers)
        with self._lock:
            self._services.pop(service_id, None)
            for key in [key for key, (_, sid) in self._published.items() if sid == service_id]:
                del self._published[key]
        self._withdrawn(service_id)

    def _withdrawn(self, service_id: str) -> None:
        """A service is gone: free what the engine holds for it."""

    def _terminate_all(self, *, force: bool, wait: bool = True) -> None:
        """End everything, though Ctrl-C comes in the middle: it is raised afterwards, the third one at once."""
        if os.getpid() != self._pid:
            return  # a forked child leaves the block: it has nothing of this grid
        main = threading.current_thread() is threading.main_thread()
        if (wait and not main) or self._exiting:
            self._terminate_at_once(force)
            return
        failed: list[BaseException] = []
        # not `join`: until Python 3.12 an interrupted one takes the thread for ended (bpo-45274); nor an Event, whose
        # lock an exception can leave held
        over, claim = threading.Lock(), threading.Lock()
        over.acquire()
        self._terminating = told = threading.Event()

        def terminate() -> None:
            if not claim.acquire(blocking=False):
                return  # another one is at it
            try:
                self._terminate_at_once(force)
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

    def _terminate_at_once(self, force: bool) -> None:
        if self.trace is not None:
            self.trace.ending()
        self.unfinished.say_dropped()
        for observer in observers:
            observer(self)
        with self._lock:
            services = list(self._services.values())
        for service in services:
            with self._lock:
                actions = service.roster.close()
            self._carry_out(service, actions)
        self._fetch_results()
        self._halt(force=force)
        self._tell_untold()
        with self._lock:
            for service in services:
                for server in service.servers.values():
                    server.final_state = server.final_state or State.TERMINATED
                service.servers.clear()
            self._published.clear()
        _running.discard(self)
        if self.trace is not None:
            self.trace.save()

    def _fetch_results(self) -> None:
        """Large values that were received and wait on their hosts come here, while those are there."""
        deadline = time.monotonic() + self.limits.stop_s
        for result in list(self._unfetched):
            if time.monotonic() > deadline:
                logger.warning("not all large results could be fetched within %g s at the end", self.limits.stop_s)
                return
            try:
                result.bring_here()
            except Exception as exc:  # who asks for it will hear why
                logger.debug("%r could not be fetched at the end: %s", result, exc)

    def _tell_untold(self) -> None:
        for error in list(self._untold):
            error.tell()
        self._take_out_waste()

    def _take_out_waste(self) -> None:
        """Do what destructors have left word of."""
        later = []
        while not self._waste.empty():
            remove = self._waste.get()
            if not remove():
                later.append(remove)
        for remove in later:
            self._waste.put(remove)

    def _look_after(self) -> None:
        """Now and then, in a thread of the grid's: what was torn off halfway, what was dropped."""
        self._take_out_waste()
        with self._lock:
            services = list(self._services.values())
        for service in services:
            if service.roster.due:
                self._carry_out(service)
            if service.block is not None and service.block() is None:
                self.release_all(service.service_id)
            for server in list(service.servers.values()):
                leaving = server.leaving
                if leaving is not None and leaving._freed:  # torn off behind that; its server may serve another by now
                    server.leaving = None
                elif leaving is not None:
                    leaving.__dict__["_released"] = True
                    self._free_if_idle(server)
                elif server.is_orphan() and service.roster.state(server.name) is State.BUSY:
                    self._reclaim(service, server)

    def _reclaim(self, service: _Service, server: Server) -> None:
        """Its holder is gone without a word: an exception came in the very destructor that should have left it."""
        with self._lock:
            if not server.is_orphan() or service.roster.state(server.name) is not State.BUSY:
                return
            server.claim_ref = server._proxy_ref = None
            server.load.acquired = False
        self._turn(service, lambda roster: roster.release(server.name))

    def _terminate_servers(self, servers: Sequence[Server]) -> None:
        for server in servers:
            self._server_gone(server, Event.TERMINATED, "terminated")
        for server in servers:
            try:
                server.end()
            except GridError as exc:  # its host is in trouble, which is dealt with there; the others must still end
                logger.warning("server %s can't be told to end: %s", server.name, exc)

    def _repr_html_(self) -> str:
        return html.grid(self.status())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.hosts)} hosts, {len(self._services)} services>"

    # -- words -----------------------------------------------------------------------------------------------------

    def dp(self, text: str) -> None:
        """Write a line to `debug_out`."""
        self.debug_out.write(text + "\n")
        self.debug_out.flush()

    def set_debug(self, debug: bool, verbose: bool | None = None) -> None:
        """Log more or less, at once and on servers started later; `verbose` is changed only if given."""
        self.debug = debug
        if verbose is not None:
            self.verbose = verbose
        logging.getLogger("grid").setLevel(logging.DEBUG if debug else logging.NOTSET)

    def set_loader(self, src_path: str | os.PathLike[str], loader_filename: str) -> None:
        """Name the program that becomes the kernel on a host, instead of ours; for hosts that start from now on.

        It is a Python file below `src_path`, run by the host's interpreter with `config` and `report` defined. After
        what it has to prepare it goes on like ours: `from grid.kernel import agent; agent.main(config, report)`.

        Raises:
            StagingError: There is no such file.
        """
        path = os.path.join(src_path, loader_filename)
        try:
            with open(path) as file:
                self._loader = (loader_filename, file.read())
        except OSError as exc:
            raise StagingError(f"can't read the loader {path!r} ({exc.strerror})", hint="Name a Python file") from exc
        self.loader_filename = loader_filename

    # -- services --------------------------------------------------------------------------------------------------

    def create_service_id(self, instance: Any) -> str:
        """A new id: the class's name, a dot, a number that this process uses once; safe in file names."""
        name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in type(instance).__name__)
        return f"{name}.{next(_ids)}"

    def _service(self, service_id: str) -> _Service:
        self._check_fork()
        service = self._services.get(service_id)
        if service is None:
            if self.ishalted():
                raise GridStopped("the grid was terminated", hint="Make another one")
            known = ", ".join(map(repr, self._services)) or "none"
            raise UnknownService("no such service is published", service_id=service_id, hint=f"Published: {known}")
        return service

    def _check_fork(self) -> None:
        if os.getpid() != self._pid:
            self._check_usable()

    def _instance(self, service_id: str) -> Any:
        """The object of which a service's servers hold copies."""
        return next((instance for instance, sid in self._published.values() if sid == service_id), None)

    def _roster(self, service_id: str) -> Roster | None:
        service = self._services.get(service_id)
        return service.roster if service is not None else None

    def _show_servers(self, service: _Service) -> list[Server]:
        with self._lock:
            return [service.servers[name] for name in service.roster.names(State.FREE, State.BUSY)]

    def _add_service(self, service_id: str, methods: frozenset[str]) -> _Service:
        with self._lock:
            service = self._services[service_id] = _Service(service_id, methods)
        return service

    def add_server(self, server: Server) -> None:
        """A server came up: it joins its service's list and queue (both are made for the first server of a service)."""
        with self._lock:
            service = self._services.get(server.service_id)
            if service is None:
                service = self._add_service(server.service_id, frozenset())
            server.grid = self
            server.keeper = self.keeper
            if self.trace is not None:
                server.trace = self.trace
                server.trace.came(server.name, server.host.label)
            if service.roster.state(server.name) is None:
                service.roster.announce([server.name])
            service.servers[server.name] = server
            if server.proxy is not None:
                server.proxy._released = False
            actions = service.roster.ready(server.name)
        self._carry_out(service, actions)

    def _announce(self, service: _Service, servers: Sequence[Server]) -> None:
        """Servers are being started: group calls wait for them, and waiters have hope."""
        with self._lock:
            for server in servers:
                server.grid = self
                service.servers[server.name] = server
            service.roster.announce([server.name for server in servers])

    def _server_gone(self, server: Server, event: Event, reason: str) -> None:
        """A server was lost or terminated: take it off the tables, serve or refuse who waits."""
        with self._lock:
            if server.final_state is None:
                server.final_state = State.LOST if event is Event.LOST else State.TERMINATED
                server.reason = reason
                if server.trace is not None:
                    server.trace.went(server.name, reason)
            service = self._services.get(server.service_id)
            if service is None:
                return
            service.servers.pop(server.name, None)
            actions = service.roster.gone(server.name, event)
        self._carry_out(service, actions)

    def _open(self, service: _Service) -> Roster:
        """The roster, to have an event, under our lock; the caller then puts it into its place by one store.

        In the main thread an exception of the user's may tear an event off halfway (see `wire/session.py`): it gets
        a copy, and only a whole event counts.
        """
        roster = service.roster
        return roster.copy() if threading.current_thread() is threading.main_thread() else roster

    def _turn(self, service: _Service, event: Callable[[Roster], list[Action]]) -> None:
        """Have an event in the roster, whole or not at all, and carry out what follows."""
        with self._lock:
            roster = self._open(service)
            roster.due += tuple(event(roster))
            service.roster = roster
        self._carry_out(service)

    def _carry_out(self, service: _Service, actions: Sequence[Action] = ()) -> None:
        """Tell waiters what became of them. Whoever comes next goes on where somebody was torn off."""
        if actions:
            with self._lock:
                service.roster.due += tuple(actions)
        while service.roster.due:
            with self._lock:
                due = service.roster.due
                if not due:
                    return
                action = due[0]
                waiter: Waiter = action.ticket
                if isinstance(action, Granted) and waiter.granted is None:
                    granted = tuple(service.servers[name] for name in action.servers if name in service.servers)
                    for server in granted:
                        server.claim_ref = weakref.ref(waiter)
                        server.load.jobs += 1
                        server.load.acquired = True
                    waiter.granted = waiter.left = granted
                waiter.done_flag = True
            self._rouse(waiter)
            if waiter.told is not None:
                waiter.told(waiter)
            with self._lock:
                if service.roster.due[:1] == (action,):
                    service.roster.due = service.roster.due[1:]

    # -- one server ------------------------------------------------------------------------------------------------

    def find_server(self, service_id: str, timeout: float | None = None, expect_s: float | None = None) -> Server:
        """Take the first free server, waiting until there is one.

        Args:
            timeout: Seconds to wait; None waits for ever.
            expect_s: Seconds that it must still live, at least: one whose allocation ends before that is passed over.
        Raises:
            UnknownService: No such id here.
            AcquireTimeout: None became free within `timeout` seconds.
            NoServers: The last server is gone, or the service was withdrawn.
            GridStopped: The grid was terminated meanwhile.
        """
        service = self._service(service_id)
        claim = self._obtain(service, checked_timeout(timeout), everyone=False, expect_s=expect_s)
        server: Server = claim.left[0]
        server.claim_ref, claim.left = None, ()
        return server

    def _obtain(
        self, service: _Service, timeout: float | None, *, everyone: bool, expect_s: float | None = None
    ) -> _Claim:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            waiter = _Claim(self, service)
            fits = None if expect_s is None else lambda name: service.servers[name].lasts(expect_s)
            stands = False
            try:
                self._turn(service, partial(Roster.acquire, ticket=waiter, everyone=everyone, fits=fits))
                stands = True
                if not waiter.done_flag:
                    self._stand_in_line(service, waiter, deadline)
            except BaseException:
                if self._give_up(service, waiter, sure=stands):
                    waiter.give_back()
                raise
            if not waiter.done_flag:
                why = self._why_waiting(service)
                if not self._give_up(service, waiter):
                    raise AcquireTimeout(
                        f"no server became free within {timeout:g} s",
                        service_id=service.service_id,
                        hint=why,
                    )
            if waiter.granted:
                return waiter
            if waiter.granted is None:
                if self.ishalted():
                    raise GridStopped("the grid was terminated", hint="Make another one")
                raise NoServers(self._epitaph(service), service_id=service.service_id, hint="Publish it again")
            # all of them were lost in the moment between grant and waking: stand in line again

    def _stand_in_line(self, service: _Service, waiter: Waiter, deadline: float | None) -> None:
        """Wait for a grant. A wait that the caller has made himself says so after a while."""
        began = time.monotonic()
        while not waiter.done_flag:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            own = self._held_by_caller(service)
            if own is None or (remaining is not None and remaining <= _OWN_WAIT_S):
                self._wait(waiter, remaining)
                return
            if not self._wait(waiter, _OWN_WAIT_S):
                waited = time.monotonic() - began
                logger.warning(
                    "%s: waiting for a server for %.0f s, and %s. %s",
                    *(service.service_id, waited, own, self._why_waiting(service)),
                )
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._wait(waiter, remaining)
                return

    def _held_by_caller(self, service: _Service) -> str | None:
        """What of the service this thread holds itself, in words."""
        if service.group is not None:
            return "broadcast or scatter hold all servers until release_all"
        me = threading.get_ident()
        with self._lock:
            proxies = [server.proxy for server in service.servers.values()]
        for proxy in proxies:
            if proxy is not None and proxy._thread == me and not proxy._released:
                return f"this thread holds {proxy._server.name} itself, acquired at {proxy._where}"
        return None

    def _give_up(self, service: _Service, waiter: Waiter, *, sure: bool = True) -> bool:
        """Leave the queue, in which it surely stood or perhaps; True if the grant came first."""
        with self._lock:
            waits = service.roster.waits(waiter)
        self._turn(service, lambda roster: roster.leave(waiter))
        if sure and not waits and not waiter.done_flag:
            self._wait(waiter, self.limits.control_s)  # another thread granted it, and is about to say so
        return not waits

    def _take_free(self, service: _Service, servers: Sequence[Server]) -> Iterator[Proxy]:
        """Those of `servers` that are free at this moment, one after the other; nobody waits."""
        for server in servers:
            waiter = Waiter()
            with self._lock:
                if service.roster.state(server.name) is not State.FREE or service.roster.waiting:
                    continue
                actions = service.roster.acquire(waiter, fits=partial(operator.eq, server.name))
            self._carry_out(service, actions)
            if not waiter.done_flag and not self._give_up(service, waiter):
                continue
            for granted in waiter.granted or ():
                yield self._hand_out(service, granted)

    def _return(self, service: _Service, servers: Sequence[Server]) -> bool:
        """Free servers that were granted to somebody who is not there any more."""
        for server in servers:
            server.load.acquired = False
            self._turn(service, lambda roster, name=server.name: roster.release(name))  # type: ignore[misc]
        return True

    def _epitaph(self, service: _Service) -> str:
        reasons = [str(error) for error in self.failures.values()]
        return "no server is left" + (f" ({'; '.join(reasons[-3:])})" if reasons else "")

    def _why_waiting(self, service: _Service) -> str:
        with self._lock:
            servers = list(service.servers.values())
            waiting = service.roster.waiting
        shown = "; ".join(f"{server.name} on {server.host.label}: {server.doing()}" for server in servers[:8])
        more = f"; and {len(servers) - 8} more" if len(servers) > 8 else ""
        return f"{waiting} waiting. {shown}{more}"

    def acquire_service(
        self, service_id: str, timeout: float | None = None, *, expect_s: float | None = None, strict: bool = False
    ) -> Proxy:
        """Have one free server to ourselves; also `with g.acquire_service(sid) as proxy:`.

        A proxy that is dropped without being released gives its server back, with a warning.

        Args:
            timeout: Seconds to wait for a free one; None waits for ever, first come, first served.
            strict: A call that failed, and whose error nobody has asked for, has the next call raise that error, or
                its Result where that call was sent before the error was known.
            expect_s: Seconds that we shall need it, at least. In batch jobs servers end with their job: one that has
                less time left is not given to us but to others.
        Raises:
            As `find_server`.
        """
        service = self._service(service_id)
        claim = self._obtain(service, checked_timeout(timeout), everyone=False, expect_s=expect_s)
        return self._hand_out(service, claim.left[0], claim, strict=strict)

    def _hand_out(
        self, service: _Service, server: Server, claim: _Claim | None = None, *, strict: bool = False
    ) -> Proxy:
        proxy = service.proxy_type(self, server, service.methods, strict=strict, ours=claim is None)
        reference = weakref.ref(proxy)
        left = () if claim is None else claim.left[1:]
        claim = claim or _Claim(self, service)
        state = proxy.__dict__  # its __setattr__ is a function of ours, in which an exception may come
        # nothing comes in between: the claim has the server, or the proxy
        server._proxy_ref, state["_live"], claim.left = reference, True, left
        return proxy

    def _proxy_dropped(self, proxy: Proxy) -> None:
        """In a destructor, so in any thread and under any lock: leave word."""
        self._waste.put(partial(self._take_back, proxy))

    def _take_back(self, proxy: Proxy) -> bool:
        """In the watch: nobody has this proxy any more."""
        if not proxy._released and not self.ishalted():
            if proxy._where is not None and proxy._server.final_state is None:
                logger.warning(
                    "server %s was acquired at %s and its proxy dropped without release_service; it is given back",
                    *(proxy._server.name, proxy._where),
                )
            self.release_service(proxy)
        return True

    def release_service(self, proxy: Proxy) -> None:
        """Say that no more calls will come: the server is free when the last one made has finished. Returns at once.

        Raises:
            ServiceError: It is no proxy, or one of another grid.
        """
        self._check_fork()
        if not isinstance(proxy, Proxy):
            raise ServiceError(
                f"release_service takes a proxy, and got {reprlib.repr(proxy)}",
                service_id="?",
                hint="Pass what acquire_service returned",
            )
        if proxy._grid is not self:
            raise ServiceError(
                f"{proxy!r} belongs to another grid",
                service_id=proxy._server.service_id,
                hint="Release it with the grid that it was acquired from",
            )
        server = proxy._server
        state = proxy.__dict__  # as in `_hand_out`: nothing comes in between
        if not proxy._freed:
            server.leaving, state["_released"] = proxy, True
        if server.idle:
            self._release_service(proxy)

    def _release_service(self, proxy: Proxy) -> None:
        """Free the proxy's server, once; a server that is gone goes nowhere."""
        server = proxy._server
        with self._lock:
            if proxy._freed:
                return
            service = self._services.get(server.service_id)
            state = proxy.__dict__  # as in `_hand_out`
            if service is not None:
                roster = self._open(service)
                roster.due += tuple(roster.release(server.name))
                # nothing comes in between: it is free, or it is not
                service.roster, server._proxy_ref, state["_freed"] = roster, None, True
            else:
                server._proxy_ref, state["_freed"] = None, True
            server.leaving = server.claim_ref = None
            server.load.acquired = False
        if service is not None and service.roster.due:
            self._carry_out(service)

    def _free_if_idle(self, server: Server) -> None:
        """Something else than a call has ended on it: free it if it is released and has no call either."""
        proxy = server.proxy
        if proxy is not None and proxy._released and server.idle:
            self._release_service(proxy)

    def add_time(self, proxy: Proxy, time: float) -> None:
        """Record in the server's load statistics that a call took `time` seconds."""
        proxy._server.load.add(time)

    # -- many small calls ------------------------------------------------------------------------------------------

    def map(
        self,
        service_id: str,
        method: str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        return_exceptions: bool = False,
        retries: int = 0,
        servers: int | None = None,
        ahead: int = 100_000,
        pack: int | None = None,
    ) -> MapResult:
        """Call `method` for each item, on as many servers as are free, and iterate over the values in order.

        Items travel in packs whose size follows the time that a call takes, so that tiny calls cost little. A server
        is given to others that wait after a quarter of a second. Every item has its own outcome.

        Args:
            iterables: Items, one argument each; several iterables give one argument each and end with the shortest.
                They are read by another thread, not further than needed, and may be endless.
            method: Its name; `"__call__"` where the instance itself is a function.
            timeout: Seconds that each `next` may wait; None: as long as it takes.
            return_exceptions: Give an item's error in place of its value, instead of raising it.
            retries: How often an item is tried again when its server died with it; items of such a pack then go one by
                one. With 0 they fail: some may have run.
            servers: Use this many servers at most.
            ahead: Values that wait to be fetched, at most; the map stands still then.
            pack: Items of each pack, instead of finding it out.
        Raises:
            UnknownService, ServiceError: No such service or method; no iterable.
            ValueError: A bound that is not positive.
        """
        service = self._service(service_id)
        if not iterables:
            raise ServiceError("map got nothing to map over", service_id=service_id, hint="Pass an iterable of items")
        if method != "__call__" and service.methods and method not in service.methods:
            known = ", ".join(sorted(service.methods)[:20])
            raise ServiceError(f"it has no method {method!r}", service_id=service_id, hint=f"Methods: {known}")
        if retries < 0 or ahead < 1 or (servers is not None and servers < 1):
            raise ValueError(f"retries {retries!r}, ahead {ahead!r} and servers {servers!r} must not be that small")
        mapping = MapWork(
            self,
            service,
            method,
            iterables[0] if len(iterables) == 1 else Zipped(iterables),
            star=len(iterables) > 1,
            retries=retries,
            servers=servers,
            ahead=ahead,
            packing=Packing(fixed=pack),
        )
        return MapResult(mapping, timeout=timeout, return_exceptions=return_exceptions)

    # -- as others know it -----------------------------------------------------------------------------------------

    def executor(
        self,
        sid_or_callable: str | Callable[..., Any] | None = None,
        *,
        retries: int = 0,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
    ) -> GridExecutor:
        """A `concurrent.futures.Executor` over this grid: functions by value, shipped once to each server.

        Args:
            sid_or_callable: A service: names of its methods can be submitted, too. A callable: it is published, and
                withdrawn by `shutdown`; calls of it carry arguments only.
            retries: How often a call is made again when its server died with it. That server is replaced in any case.
            initializer: Called with `initargs` on each server, before its first call of this executor.
        Raises:
            UnknownService: No such service. PublishError: No host brought up a server.
        """
        from grid.compat.executor import GridExecutor

        return GridExecutor(self, sid_or_callable, retries=retries, initializer=initializer, initargs=initargs)

    def pool(
        self, *, retries: int = 0, initializer: Callable[..., Any] | None = None, initargs: Iterable[Any] = ()
    ) -> GridPool:
        """A `multiprocessing.Pool` over this grid, for `pool=` and `workers=pool.map` of other libraries.

        Args:
            retries: How often an item is tried again when its server died with it. That server is replaced in any case.
            initializer: Called with `initargs` on each server, before its first call of this pool.
        Raises:
            PublishError: No host brought up a server.
        """
        from grid.compat.pool import GridPool

        return GridPool(self, retries=retries, initializer=initializer, initargs=initargs)

    # -- all servers of a service ----------------------------------------------------------------------------------

    def size(self, service_id: str) -> int:
        """How many live servers a service has."""
        return len(self.servers[service_id])

    @property
    def n_hosts(self) -> int:
        """How many servers a service gets: those of all hosts together."""
        return sum(host.use_n_cpu for host in self.hosts)

    def _hold_group(self, service_id: str, timeout: float | None) -> list[Proxy]:
        service = self._service(service_id)
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        ours = Waiter()  # done, whatever becomes of us: see the end
        try:
            while True:
                with self._lock:
                    if service.group is not None:
                        return service.group
                    other = service.forming
                    if other is None or other.done_flag:
                        service.forming = ours
                        break
                remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not self._wait(other, remaining):
                    raise AcquireTimeout(
                        f"another thread waits for all its servers, and did not have them within {timeout:g} s",
                        service_id=service_id,
                        hint=self._why_waiting(service),
                    )
            own = self._held_by_caller(service)
            if own is not None and timeout is None:
                raise ServiceError(
                    f"a call of all servers waits for each of them, and {own}",
                    service_id=service_id,
                    hint="Release it first; with a timeout the call waits for it all the same",
                )
            claim = self._obtain(service, timeout, everyone=True)
            group = [self._hand_out(service, server, claim) for server in claim.left]
            service.group = group
            return group
        finally:
            ours.done_flag = True
            self._rouse(ours)

    def broadcast(self, service_id: str, method: str, /, *args: Any, **kw: Any) -> list[Result]:
        """Call `method` on every live server of the service, in server order; returns their Results without waiting.

        The servers are reserved as a group at the first group call (waiting for those that others have) and stay ours
        until `release_all`.

        Args:
            timeout: Seconds to wait for the group; None waits for ever. A method that has a parameter of that name
                gets it instead: use `with g.group(service_id, timeout)` for such.
        Raises:
            AcquireTimeout: Not all became free in time; the message says who has them.
            ServiceError: This thread has one of the servers itself, so that it would wait for ever.
        """
        timeout = None
        if "timeout" in kw and not self._takes(service_id, method, "timeout"):
            timeout = kw.pop("timeout")
        return [proxy._call(method, args, kw) for proxy in self._hold_group(service_id, timeout)]

    def _takes(self, service_id: str, method: str, parameter: str) -> bool:
        """Whether a method of the published instance takes this parameter, by name or among any keywords."""
        try:
            taken = inspect.signature(getattr(self._instance(service_id), method)).parameters
            return parameter in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())
        except (AttributeError, TypeError, ValueError):
            return False

    def keep(self, proxy: Proxy, method: str, /, *args: Any, **kw: Any) -> RemoteValue:
        """Call `method` and leave what it returns on its server's host, to be handed to other servers; at once.

        A value of less than 256 kB is not worth it, and comes here like any other; so does every value on grids whose
        kernels are not ours (`DaskGrid`). The `RemoteValue` behaves the same.
        """
        if proxy._released:
            raise proxy._gone(method)
        return RemoteValue(proxy._server.keep(method, args, kw, proxy), self._waste)

    def scatter(
        self,
        service_id: str,
        method: str,
        arglist: Sequence[Any],
        kwlist: Sequence[Mapping[str, Any]] | None = None,
        *,
        cycle: bool = False,
        timeout: float | None = None,
    ) -> list[Result]:
        """Element i of `arglist` goes to server i.

        A list or tuple is spread as positional arguments; anything else, text, bytes, dicts and arrays among them, is
        the single argument. Fewer elements than servers: the first servers are used.

        Args:
            kwlist: Keyword arguments, one mapping for each element.
            cycle: With more elements than servers, begin again at the first instead of refusing.
            timeout: Seconds to wait for the group; None waits for ever.
        Raises:
            ServiceError: More elements than servers, or `kwlist` of another length; this thread has a server itself.
            AcquireTimeout: Not all became free in time; the message says who has them.
        """
        elements = list(arglist)
        keywords = [{}] * len(elements) if kwlist is None else list(kwlist)
        if len(keywords) != len(elements):
            raise ServiceError(
                f"scatter got {len(elements)} elements and {len(keywords)} mappings of keywords",
                service_id=service_id,
                hint="Give one mapping for each element",
            )
        proxies = self._hold_group(service_id, timeout)
        if len(elements) > len(proxies) and not cycle:
            raise ServiceError(
                f"scatter got {len(elements)} elements for {len(proxies)} servers",
                service_id=service_id,
                hint="Pass at most one element for each server, or cycle=True to go round",
            )
        results = []
        for index, (element, words) in enumerate(zip(elements, keywords, strict=True)):
            args = tuple(element) if isinstance(element, (list, tuple)) else (element,)
            results.append(proxies[index % len(proxies)]._call(method, args, dict(words)))
        return results

    def gather(
        self, results: Sequence[Result], timeout: float | None = None, *, return_exceptions: bool = False
    ) -> list[Any]:
        """Wait for all and return their values in the order given.

        Args:
            timeout: Seconds for the whole.
            return_exceptions: Return exceptions in place of values, instead of raising the first after all are done.
        Raises:
            TimeoutError: Not all were done in time; none of them is cancelled by that.
        """
        timeout = checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        values: list[Any] = []
        first: BaseException | None = None
        for result in results:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                values.append(result.get(remaining))
            except Exception as exc:
                if not result.done() or came_by_signal(exc):
                    raise
                first = first or exc
                values.append(exc)
        if first is not None and not return_exceptions:
            raise first
        return values

    def release_all(self, service_id: str | None = None) -> None:
        """Release every server that group calls hold (of one service, or of all). Harmless if there are none."""
        with self._lock:
            services = [self._service(service_id)] if service_id is not None else list(self._services.values())
        for service in services:
            with self._lock:
                held, service.group, service.block = service.group or [], None, None
            for proxy in held:
                self.release_service(proxy)

    @contextmanager
    def group(self, service_id: str, timeout: float | None = None) -> Iterator[list[Proxy]]:
        """Have all live servers of a service as a group; released at the end."""
        service = self._service(service_id)
        token = Waiter()  # dies with this block, though an exception tears its end off
        service.block = weakref.ref(token)
        try:
            yield self._hold_group(service_id, timeout)
        finally:
            if service_id in self._services and os.getpid() == self._pid:
                self.release_all(service_id)

    # -- looking ---------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What the grid consists of and does, in plain values (JSON)."""
        with self._lock:
            services = {
                service.service_id: {
                    "free": len(service.roster.names(State.FREE)),
                    "acquired": len(service.roster.names(State.BUSY)),
                    "starting": len(service.roster.names(State.STARTING)),
                    "waiting": service.roster.waiting,
                    "servers": [
                        {
                            "name": server.name,
                            "host": server.host.label,
                            "state": server.state.value,
                            "doing": server.doing(),
                            "jobs": server.load.jobs,
                            "calls": server.load.calls,
                            "mean_s": server.load.mean,
                        }
                        for server in service.servers.values()
                    ],
                }
                for service in self._services.values()
            }
        reports: dict[str, list[Any]] = {}
        for key, tell in list(self.reporters):
            reports.setdefault(key, []).append(tell())
        return {
            **reports,
            "grid": type(self).__name__,
            "hosts": [host.label for host in self.hosts],
            "failures": {host: str(error) for host, error in self.failures.items()},
            "services": services,
        }


__all__ = ["AbstractGrid", "FreeQueue", "GridError"]
