"""The grid without its engine: services, queues of free servers, exclusive use, late release, groups.

A derived grid supplies how a server comes to be: `publish`, `ishalted`, and a `Server` subclass that can `submit` a
call. Everything else is here, and the same for all: our own kernels (`grid.py`), or another system's actors.

Lives here: what every grid can do, what a derived grid supplies, the life of a grid and its settings.
Elsewhere:  one service (`services/service.py`), all of them (`services/table.py`), many calls at once (`calls.py`), the
            end (`ending.py`), states and queues (`services/roster.py`), waiting (`_wait`, of a derived grid).
"""

from __future__ import annotations

import logging
import os
import reprlib
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, overload

from grid.errors import GridError, GridStopped, ServiceError, StagingError, fork_error
from grid.failures.keeper import Keeper, keeper_of
from grid.grids.calls import ServiceCalls
from grid.grids.ending import Ending
from grid.grids.parts import verb
from grid.grids.settings import CommonSettings, takes
from grid.hooks import Hook, of_all_grids
from grid.hosts import Host, as_hosts
from grid.kernel.title import script_name
from grid.limits import Limits, checked_timeout
from grid.services import html
from grid.services.hold import Waiter
from grid.services.proxy import Proxy
from grid.services.remote_value import RemoteValue
from grid.services.result import Result
from grid.services.roster import Event
from grid.services.server import Server
from grid.services.service import Service
from grid.services.table import FreeQueue, ServiceId, Services, View, new_id, servers_of
from grid.services.unfinished import Unfinished
from grid.services.waste import Waste

if TYPE_CHECKING:
    from typing_extensions import Self

    from grid.trace import Trace

T = TypeVar("T")

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

    @takes(CommonSettings)
    def __init__(self, hosts: Sequence[str | Host], *args: Any, **kw: Any) -> None:
        settings = args[0] if args and isinstance(args[0], CommonSettings) else None
        if settings is None:
            settings = CommonSettings.of(type(self), *args, **kw)
        super().__init__(name="grid", daemon=True)
        self.hosts = as_hosts(hosts)
        self.src_path = None if settings.src_path is None else os.fspath(settings.src_path)
        self.display = settings.display
        self.X11_delay = settings.X11_delay
        self.debug = settings.debug
        self.verbose = settings.verbose
        self.shared_temp_path = settings.shared_temp_path
        self.limits = settings.limits or Limits()
        self.debug_out: TextIO = settings.debug_out or sys.stderr
        traced = settings.trace if settings.trace is not None else os.environ.get("GRID_TRACE")
        self.trace: Trace | None = None
        self.hooks: list[Hook] = [*of_all_grids]
        """Its listeners, see `grid.hooks`; add yours before servers come up to hear of their calls."""
        if traced:
            from grid.trace import Trace  # not at the top: most runs have none

            self.trace = Trace(traced, f"{type(self).__name__} of {script_name()}")
            self.hooks.append(self.trace)
        self._loader: tuple[str, str] | None = None
        self.others: dict[str, Any] = {}
        self.failures: dict[str, Exception] = {}
        """Hosts that could not be used, with the reason: label -> error."""
        self.keeper: Keeper | None = keeper_of(settings.keep_failures)
        if self.keeper is not None:
            self.hooks.append(self.keeper)
        self._pid = os.getpid()
        self._launched = self._leaves_at_exit = False
        self._waste = Waste()
        self.unfinished = Unfinished()
        self._services = Services(self)
        self._lock = self._services.lock
        self.servers: Mapping[str, list[Server]] = View(self._service, self._services, servers_of)
        self.queues: Mapping[str, FreeQueue] = View(self._service, self._services, FreeQueue)
        self._calls = ServiceCalls(self)
        self._ending = Ending(self)

    # -- what a derived grid supplies ------------------------------------------------------------------------------

    def publish(self, instance: T) -> ServiceId[T]:
        """Put a copy of `instance` on servers and return the service id."""
        raise NotImplementedError("a derived grid publishes")

    def _publish_lasting(self, instance: Any, restarts: int) -> str:
        """Publish it so that up to `restarts` lost servers are replaced; here: by an engine that replaces none."""
        return self.publish(instance)

    def detach(self) -> None:
        """Go, and leave all as it is for another client; here: an engine that keeps nothing."""
        raise NotImplementedError("only a grid with keep= can be left")

    def ishalted(self) -> bool:
        """Whether the grid has stopped."""
        raise NotImplementedError("a derived grid knows")

    def _wait(self, waiter: Waiter | Result, timeout: float | None) -> bool:
        """Wait until `waiter.done_flag`; False after `timeout` seconds."""
        raise NotImplementedError("a derived grid waits")

    def _rouse(self, waiter: Waiter) -> None:
        """`waiter` was granted or refused: wake its thread."""
        raise NotImplementedError("a derived grid wakes")

    def _halt(self, *, force: bool) -> None:
        """End everything that the engine started."""

    def _end_at_once(self, servers: Sequence[Server]) -> None:
        """End servers whatever they do, and have others in their places. Here: their calls are finished."""

    def _on_their_way(self) -> list[str]:
        """In words, where servers may yet come from: for a caller that waits for one."""
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
        """A service was withdrawn: free what the engine holds for it."""

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

    @property
    def loader_filename(self) -> str | None:
        """The program that becomes the kernel on a host, where `set_loader` named one."""
        return None if self._loader is None else self._loader[0]

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

    # -- services --------------------------------------------------------------------------------------------------

    def create_service_id(self, instance: Any) -> str:
        """A new id: the class's name, a dot, a number that this process uses once; safe in file names."""
        return new_id(instance)

    def _service(self, service_id: str) -> Service:
        if os.getpid() != self._pid:
            raise fork_error()
        return self._services.find(service_id)

    def add_server(self, server: Server) -> None:
        """A server came up: it joins its service's list and queue (both are made for the first server of a service)."""
        service = self._services.get(server.service_id)
        if service is None:
            service = self._services.add(server.service_id, frozenset())
        service.add(server)

    def _server_gone(self, server: Server, event: Event, reason: str) -> None:
        """A server was lost or terminated: take it off the tables, serve or refuse the callers that wait."""
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
            NoServers: The last server was lost, or the service was withdrawn.
            GridStopped: The grid was terminated meanwhile.
        """
        claim = self._service(service_id).obtain(checked_timeout(timeout), expect_s=expect_s)
        server: Server
        server, *_ = claim.granted or ()
        server.hold = None  # it is the caller's, for as long as he likes
        return server

    @overload
    def acquire_service(
        self,
        service_id: ServiceId[T],
        timeout: float | None = None,
        *,
        expect_s: float | None = None,
        strict: bool = False,
    ) -> Proxy[T]: ...

    @overload
    def acquire_service(
        self, service_id: str, timeout: float | None = None, *, expect_s: float | None = None, strict: bool = False
    ) -> Proxy: ...

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

    # -- many calls, by `calls.py` ---------------------------------------------------------------------------------

    map = verb("_calls", ServiceCalls.map)
    executor = verb("_calls", ServiceCalls.executor)
    pool = verb("_calls", ServiceCalls.pool)
    size = verb("_calls", ServiceCalls.size)
    broadcast = verb("_calls", ServiceCalls.broadcast)
    scatter = verb("_calls", ServiceCalls.scatter)
    gather = verb("_calls", ServiceCalls.gather)
    group = verb("_calls", ServiceCalls.group)
    release_all = verb("_calls", ServiceCalls.release_all)

    @property
    def n_hosts(self) -> int:
        """How many servers a service gets: those of all hosts together."""
        return sum(host.use_n_cpu for host in self.hosts)

    def keep(self, proxy: Proxy, method: str, /, *args: Any, **kw: Any) -> RemoteValue:
        """Call `method` and leave what it returns on its server's host, to be handed to other servers; at once.

        A value of less than 256 kB is not worth it, and comes here like any other; so does every value on grids whose
        kernels are not ours (`DaskGrid`). The `RemoteValue` behaves the same.
        """
        if proxy._hold.released:
            raise proxy._gone(method)
        return RemoteValue(proxy._server.keep(method, args, kw, proxy), self._waste)

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
