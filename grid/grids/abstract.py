"""The grid without its engine: services, queues of free servers, exclusive use, late release, groups.

A derived grid supplies how a server comes to be: `publish`, `ishalted`, and a `Server` subclass that can `submit` a
call. Everything else is here, and the same for all: our own kernels (`grid.py`), or another system's actors.

Lives here: what every grid can do, what a derived grid supplies, the life of a grid and its settings.
Elsewhere:  one service (`services/service.py`), all of them (`services/table.py`), the end (`ending.py`), states and
            queues (`services/roster.py`), waiting (`_wait`, which a derived grid may improve).
"""

from __future__ import annotations

import inspect
import logging
import os
import reprlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from grid.errors import GridError, GridStopped, ServiceError, StagingError, fork_error
from grid.failures.keeper import Keeper, keeper_of
from grid.grids.ending import Ending
from grid.hooks import Hook, of_all_grids
from grid.hosts import Host, as_hosts
from grid.kernel.title import script_name
from grid.limits import Limits, checked_timeout
from grid.services import html
from grid.services.hold import Waiter
from grid.services.mapping import MapResult, map_over
from grid.services.proxy import Proxy
from grid.services.remote_value import RemoteValue
from grid.services.result import Result
from grid.services.roster import Event
from grid.services.server import Server
from grid.services.service import Service
from grid.services.table import FreeQueue, Services, View, new_id, servers_of
from grid.services.unfinished import Unfinished
from grid.services.waste import Waste
from grid.wire.signals import came_by_signal

if TYPE_CHECKING:
    from typing_extensions import Self

    from grid.compat.executor import GridExecutor
    from grid.compat.pool import GridPool
    from grid.trace import Trace

logger = logging.getLogger(__name__)


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
        self.hooks: list[Hook] = [*of_all_grids]
        """Who listens to it, see `grid.hooks`; add yours before servers come up to hear of their calls."""
        if traced:
            from grid.trace import Trace  # not at the top: most runs have none

            self.trace = Trace(traced, f"{type(self).__name__} of {script_name()}")
            self.hooks.append(self.trace)
        self.loader_filename: str | None = None
        self._loader: tuple[str, str] | None = None
        self.others: dict[str, Any] = {}
        self.failures: dict[str, Exception] = {}
        """Hosts that could not be used, with the reason: label -> error."""
        self.keeper: Keeper | None = keeper_of(keep_failures)
        if self.keeper is not None:
            self.hooks.append(self.keeper)
        self._pid = os.getpid()
        self._launched = False
        self._waste = Waste()
        self.unfinished = Unfinished()
        self._services = Services(self)
        self._lock = self._services.lock
        self.servers: Mapping[str, list[Server]] = View(self._service, self._services, servers_of)
        self.queues: Mapping[str, FreeQueue] = View(self._service, self._services, FreeQueue)
        self._ending = Ending(self)

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

    def _on_their_way(self) -> list[str]:
        """In words, where servers may yet come from: for who waits for one."""
        return []

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
            self._ending.everything(force=True)
            raise
        self._ending.everything(force=kind is not None)

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise fork_error()
        if self.ishalted():
            raise GridStopped("the grid was terminated", hint="Make another one")

    def _forked(self) -> None:
        """In a child process that was forked just now: threads and connections are the parent's; nothing here waits."""
        self._services.forked()
        self._lock = self._services.lock

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
            self._ending.everything(force=False, wait=wait)
        else:
            self._ending.withdraw(self._service(service_id), wait=wait)

    def _withdrawn(self, service_id: str) -> None:
        """A service is gone: free what the engine holds for it."""

    def _look_after(self) -> None:
        """Now and then, in a thread of the grid's: what was torn off halfway, what was dropped."""
        self._waste.take_out()
        for service in self._services.all():
            service.look_after()

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
        return new_id(instance)

    def _service(self, service_id: str) -> Service:
        if os.getpid() != self._pid:
            raise fork_error()
        return self._services.find(service_id)

    def _add_service(self, service_id: str, methods: frozenset[str]) -> Service:
        return self._services.add(service_id, methods)

    def add_server(self, server: Server) -> None:
        """A server came up: it joins its service's list and queue (both are made for the first server of a service)."""
        service = self._services.get(server.service_id)
        if service is None:
            service = self._add_service(server.service_id, frozenset())
        service.add(server)

    def _server_gone(self, server: Server, event: Event, reason: str) -> None:
        """A server was lost or terminated: take it off the tables, serve or refuse who waits."""
        if isinstance(server.service, Service):
            server.service.gone(server, event, reason)

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
        claim = self._service(service_id).obtain(checked_timeout(timeout), expect_s=expect_s)
        server: Server
        server, *_ = claim.granted or ()
        server.hold = None  # it is the caller's, for as long as he likes
        return server

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
        return self._service(service_id).acquire(timeout, expect_s=expect_s, strict=strict)

    def release_service(self, proxy: Proxy) -> None:
        """Say that no more calls will come: the server is free when the last one made has finished. Returns at once.

        Raises:
            ServiceError: It is no proxy, or one of another grid.
        """
        if os.getpid() != self._pid:
            raise fork_error()
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
        proxy._hold.released = True
        proxy._server.free_if_idle()

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
        work = map_over(
            self._service(service_id),
            method,
            iterables,
            retries=retries,
            servers=servers,
            ahead=ahead,
            pack=pack,
        )
        return MapResult(work, timeout=timeout, return_exceptions=return_exceptions)

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
        return [proxy._call(method, args, kw) for proxy in self._service(service_id).hold_group(timeout)]

    def _takes(self, service_id: str, method: str, parameter: str) -> bool:
        """Whether a method of the published instance takes this parameter, by name or among any keywords."""
        try:
            taken = inspect.signature(getattr(self._service(service_id).instance, method)).parameters
            return parameter in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())
        except (AttributeError, TypeError, ValueError):
            return False

    def keep(self, proxy: Proxy, method: str, /, *args: Any, **kw: Any) -> RemoteValue:
        """Call `method` and leave what it returns on its server's host, to be handed to other servers; at once.

        A value of less than 256 kB is not worth it, and comes here like any other; so does every value on grids whose
        kernels are not ours (`DaskGrid`). The `RemoteValue` behaves the same.
        """
        if proxy._hold.released:
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
        return self._service(service_id).scatter(method, list(arglist), kwlist, cycle=cycle, timeout=timeout)

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
        for service in [self._service(service_id)] if service_id is not None else self._services.all():
            service.release_group()

    @contextmanager
    def group(self, service_id: str, timeout: float | None = None) -> Iterator[list[Proxy]]:
        """Have all live servers of a service as a group; released at the end."""
        with self._service(service_id).in_group(timeout) as proxies:
            yield proxies

    # -- looking ---------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What the grid consists of and does, in plain values (JSON)."""
        reports: dict[str, list[Any]] = {}
        for hook in list(self.hooks):
            for key, told in hook.report().items():
                reports.setdefault(key, []).append(told)
        return {
            **reports,
            "grid": type(self).__name__,
            "hosts": [host.label for host in self.hosts],
            "failures": {host: str(error) for host, error in self.failures.items()},
            "services": {service.service_id: service.status() for service in self._services.all()},
        }


__all__ = ["AbstractGrid", "FreeQueue", "GridError"]
