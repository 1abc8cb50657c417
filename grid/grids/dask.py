"""A grid whose servers are actors on an existing Dask cluster.

    with DaskGrid("tcp://scheduler:8786") as g:       # or DaskGrid(client)
        service_id = g.publish(Model())
        ...

One server for each worker and service, in the worker's process. Calls go the way of Dask's messages: through the
scheduler unless the client says `direct_to_workers`. They are numbered, because Dask keeps no order among them.

Threads: the grid's (errands, a look at the workers every second), Dask's own.

Lives here: `DaskGrid`, its servers and results.
Elsewhere:  the worker's side (`kernel/seat.py`), all else (`abstract.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

from grid._version import __version__
from grid.arguments import check, check_number, shown
from grid.errors import Backlog, CallTimeout, ConnectError, HostError, PublishError, PythonError, ServerLost
from grid.extras import need
from grid.grids.abstract import AbstractGrid
from grid.grids.settings import CommonSettings
from grid.hosts import FixedHosts, Host
from grid.kernel import seat
from grid.services.hold import Waiter
from grid.services.load import Load
from grid.services.proxy import methods_of, yielding_of
from grid.services.result import NOBODY, Result
from grid.services.roster import Event, State
from grid.services.server import Holder, Server
from grid.services.table import ServiceId
from grid.text import in_words
from grid.wire import codec
from grid.wire.callbacks import CallBacks
from grid.wire.codec import Dumped
from grid.wire.edited import edited_since, told_of
from grid.wire.frames import HEAD, IMAGE, Kind, pack
from grid.wire.mainimage import MainImage, wrap
from grid.wire.mentions import may_mention

need("DaskGrid", "dask", "distributed")

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
"""Between looks at the workers."""
_WINDOW = 32
"""Calls under way to one server, at most. They are sent in order, so the oldest has arrived, and turns come round."""

T = TypeVar("T")


class DaskDesk:
    """What results ask of a link: waiting, and threads for news and call-backs."""

    def __init__(self) -> None:
        self.news = threading.Condition()
        self.errands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.callbacks = CallBacks()

    def wait(self, waiter: Any, timeout: float | None) -> bool:
        """Until it is done; False after `timeout` seconds."""
        with self.news:
            self.news.wait_for(lambda: waiter.done_flag, timeout)
        return bool(waiter.done_flag)

    def errand(self, work: Callable[[], None]) -> None:
        """Have the grid's thread do it."""
        self.errands.put(work)

    def rouse(self) -> None:
        """Something is done: all that wait look."""
        with self.news:
            self.news.notify_all()


class ActorResult(Result):
    """The outcome of a call on an actor."""

    server: ActorServer

    def __init__(self, server: ActorServer, proxy: Holder | None, method: str, number: int) -> None:
        self._link = server.desk  # type: ignore[assignment]
        self._blobs = None
        self.server = server
        self.proxy = proxy if proxy is not None else NOBODY
        self.method = method
        self.call = number
        self._made = time.monotonic()


class ActorServer(Server):
    """One seat on one worker."""

    def __init__(self, grid: DaskGrid, service_id: str, name: str, host: Host, address: str, here: bool) -> None:
        super().__init__(service_id, name, host)
        self._grid, self.desk, self.address = grid, grid._desk, address
        self._client: Any = grid.client
        self._limits = grid.limits
        self._here = here  # the worker is this very process: its `__main__` is ours
        self._image: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._numbers = 0
        self._unsent: deque[tuple[ActorResult, bytes]] = deque()
        self._pending: dict[int, ActorResult] = {}  # by number, oldest first; unsent ones, too
        self._under_way = 0
        self._turn = 0
        self._turns: dict[int, int] = {}  # number of a call that was sent -> its turn there
        self._answers: dict[int, tuple[ActorResult, bytes]] = {}  # by turn; Dask may bring them in another order
        self._delivered = 0  # the turn of the last answer that its result has
        self._refuses: BaseException | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self.actor: Any = None
        self._future: Any = None

    # -- calls -----------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return not self._pending

    def submit(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], proxy: Holder) -> ActorResult:
        return self._make(method, codec.dumps_call(method, args, kwargs), proxy)

    def _make(self, method: str, dumped: Dumped, proxy: Holder | None) -> ActorResult:
        if len(self._pending) >= self._limits.in_flight:
            with self.desk.news:
                most = self._limits.in_flight
                if not self.desk.news.wait_for(lambda: len(self._pending) < most, self._limits.send_s):
                    raise Backlog(f"{most} calls wait on server {self.name}", hint="Wait for results first")
        with self._lock:
            if self._refuses is not None:
                raise self._refuses
            self._numbers += 1
            result = ActorResult(self, proxy, method, self._numbers)
            self._pending[result.call] = result
            self._unsent.append((result, self._frame(dumped)))
        self._client.loop.add_callback(self._send)
        return result

    def _frame(self, dumped: Dumped) -> bytes:
        buffers, flags = list(dumped.buffers), 0
        if not self._here:
            source, told = MainImage(), None
            modules = may_mention(dumped.data) | dumped.modules
            lacking = source.lacking(dumped.main_names, self._image) if dumped.main_names else None
            if lacking:
                packed = source.pack(lacking, self._image)
                told = wrap(packed.parts)
                modules |= packed.modules
                self._image.update(packed.entries)
            if fresh := edited_since(modules, self._image):
                told = told_of(fresh, told)
            if told:
                buffers.insert(0, memoryview(told))
                flags = IMAGE
        return pack(Kind.CALL, 0, 0, 0, 0, dumped.data, buffers, flags)

    def _send(self) -> None:
        """In Dask's loop: send calls while there is room."""
        while True:
            with self._lock:
                if not self._unsent or self._under_way >= _WINDOW or self.actor is None:
                    return
                result, frame = self._unsent.popleft()
                self._under_way += 1
                self._turn += 1
                self._turns[result.call] = self._turn
                turn = self._turn
            task = asyncio.ensure_future(self._one(result, turn, frame))
            self._tasks.add(task)  # the loop itself holds them only weakly
            task.add_done_callback(self._tasks.discard)

    async def _one(self, result: ActorResult, turn: int, frame: bytes) -> None:
        try:
            raw = bytes(await self.actor.call(turn, frame))
        except Exception as exc:
            self.lost(f"its worker {self.address} is gone ({type(exc).__name__}: {exc})")
            return
        with self._lock:
            self._under_way -= 1
        self._answers[turn] = result, raw  # in Dask's loop only
        self._deliver()
        self._send()

    def _deliver(self) -> None:
        """In Dask's loop: in the order of the calls, so that the server is free when the last one is done."""
        while (due := self._answers.pop(self._delivered + 1, None)) is not None:
            result, raw = due
            self._delivered += 1
            with self._lock:
                self._turns.pop(result.call, None)
                mine = self._pending.pop(result.call, None) is not None
            if mine:
                _, flags, _, _, _, _, _, seconds, _ = HEAD.unpack_from(raw)
                result.deliver(flags, seconds, raw)
                self.desk.rouse()

    def withdraw(self, number: int) -> bool:
        """Take back a call that has not begun."""
        with self._lock:
            for at, (result, _) in enumerate(self._unsent):
                if result.call == number:
                    del self._unsent[at]
                    self._pending.pop(number, None)
                    return True
            turn = self._turns.get(number)
        if turn is None:
            return False
        try:
            return bool(self.actor.withdraw_call(turn).result(timeout=self._limits.control_s))
        except Exception:
            return False  # nobody knows; then it may run

    def withdraw_later(self, number: int, then: Callable[[bool], None]) -> None:
        """The same without waiting: `then(granted)` is called by a thread of its own."""
        threading.Thread(target=lambda: then(self.withdraw(number)), name="grid-withdraw", daemon=True).start()

    def oldest(self) -> ActorResult | None:
        """The oldest call without an answer."""
        return next(iter(list(self._pending.values())), None)

    def doing(self, about: Result | None = None) -> str:
        oldest = self.oldest()
        if self.final_state is not None:
            return f"{self.final_state.value}: {self.reason}"
        if oldest is None:
            return "acquired, no call under way" if self.state is State.BUSY else self.state.value
        spent = time.monotonic() - oldest._made
        return f"running {oldest.method!r} for {spent:.1f} s, {len(self._pending) - 1} behind it"

    # -- its life --------------------------------------------------------------------------------------------------

    def start(self, dumped: Dumped) -> ActorResult:
        """Make the actor and send it the instance; its result says how that went."""
        result = self._make("(start)", dumped, None)
        name = self.name

        def seat_there() -> None:
            try:
                self._future = self._client.submit(
                    seat.Seat,
                    name,
                    actor=True,
                    pure=False,
                    workers=[self.address],
                    allow_other_workers=False,
                    key=f"grid-{name}-{os.urandom(4).hex()}",
                )
                self.actor = self._future.result(timeout=self._limits.start_s)
            except Exception as exc:
                self.lost(f"worker {self.address} could not make it ({type(exc).__name__}: {exc})")
                return
            self._client.loop.add_callback(self._send)

        threading.Thread(target=seat_there, name=f"grid-start-{name}", daemon=True).start()
        return result

    def lost(self, what: str) -> None:
        """Its worker was lost: its calls fail."""
        grid = self._grid
        was_final = self.final_state is not None
        if not was_final:
            grid._server_gone(self, Event.LOST, what)
        oldest = self.oldest()
        error = self._loss(what, "The call was not repeated", oldest.method if oldest is not None else None)
        if not was_final:
            logger.warning("%s", error)
            grid.failures.setdefault(self.name, error)
        self._fail_all(error)

    def _loss(self, what: str, hint: str, call: str | None) -> ServerLost:
        return ServerLost(
            what,
            service_id=self.service_id,
            server=self.name,
            host=self.host.label,
            hint=hint,
            exit_status=None,
            signal=None,
            last_output="",
            oom_kills=0,
            slot="",
            left_s=None,
            call=call,
            deaths=1 if call is not None else 0,
        )

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            self._refuses = self._refuses or error
            failed, self._pending = list(self._pending.values()), {}
            self._unsent.clear()
        for result in failed:
            result.fail(error)
        self.desk.rouse()

    def end(self, *, force: bool = False) -> None:
        """Take no more calls; those that it has are finished within `limits.stop_s`, unless by force."""
        gone = self._loss("terminated", "Publish it again", None)
        with self._lock:
            self._refuses = self._refuses or gone
        if not force:
            with self.desk.news:
                self.desk.news.wait_for(lambda: not self._pending, self._limits.stop_s)
        self._fail_all(gone)
        if self.actor is not None and self._client.status == "running":
            try:
                self.actor.end().result(timeout=self._limits.stop_s)
                self._client.cancel([self._future], force=True)  # or Dask keeps it until Python collects our references
            except Exception as exc:
                logger.debug("the seat of %s did not answer at its end: %s", self.name, exc)
        self.actor = self._future = None


class DaskGrid(AbstractGrid):
    """A grid over the workers of a Dask cluster; see the module. Workers that join later take no part.

    What a Dask cluster can't promise: a server has its process not to itself; a call that runs can't be ended by
    force; a worker that hangs without dying is not noticed; files are not staged (`client.upload_file` does that).

    Args:
        cluster: A `distributed.Client`, or what one is made of: an address, a `Cluster`. A client that was given stays
            open.
        workers: Addresses or names of workers to use; default: all that there are.
        timeout_s: For the scheduler's answer.
    Raises:
        MissingExtra: Dask is not installed. ConnectError: No scheduler answers. HostError: No worker can be used.
    """

    def __init__(self, cluster: Any, *, workers: list[str] | None = None, timeout_s: float = 10.0, **kw: Any) -> None:
        from distributed import Client

        check("workers", workers, Sequence[str] | None)
        check_number("timeout_s", timeout_s, 0, float)
        if not isinstance(cluster, (str, Client)) and not isinstance(getattr(cluster, "scheduler_address", None), str):
            raise TypeError(f"cluster must be a client, an address or a cluster of Dask, not {shown(cluster)}")
        settings = CommonSettings.of(type(self), **kw)
        self._halted = True  # until all is well
        self._ours = not isinstance(cluster, Client)
        try:
            _knock(cluster, timeout_s)
            self.client: Any = Client(cluster, timeout=timeout_s) if self._ours else cluster
            reports = self.client.run(seat.report, workers=workers, on_error="return")
        except (OSError, TimeoutError) as exc:
            raise ConnectError(
                f"no scheduler answers ({in_words(exc)})", host=str(cluster), hint="Is `dask scheduler` running there?"
            ) from exc
        hosts, failures, self._places = [], {}, []
        for address, told in reports.items():
            error = _objection(address, told)
            if error is not None:
                failures[address] = error
                continue
            host = Host(told["host"], n_cpu=1)
            here = (told["pid"], told["host"]) == (os.getpid(), platform.node())
            hosts.append(host)
            self._places.append((host, address, here))
        if not hosts:
            if self._ours:
                self.client.close()
            if not reports:
                raise HostError("it has no workers", host=str(cluster), hint="Start some: dask worker ADDRESS")
            raise next(iter(failures.values()))
        super().__init__(hosts, settings)
        self.hosts = FixedHosts(hosts, self)
        self.failures.update(failures)
        self._desk = DaskDesk()
        self._halted = False

    def ishalted(self) -> bool:
        return self._halted

    # -- services --------------------------------------------------------------------------------------------------

    def publish(self, instance: T, *, republish: bool = False, **_: Any) -> ServiceId[T]:
        """Put a copy of `instance` on every worker and return the service id; waits for all of them.

        Raises:
            SerialisationError: The instance can't travel; the message names the part.
            PublishError: No worker took it; `.failures` says why, worker by worker.
        """
        self.start()
        known = self._services.published.get(id(instance))
        if known is not None and known[0] is instance and not republish:
            return ServiceId(known[1])
        dumped = codec.dumps_instance(instance)
        service_id = self.create_service_id(instance)
        service = self._services.add(service_id, methods_of(instance), yielding_of(instance))
        servers = [
            ActorServer(self, service_id, f"{service_id}/{number}", host, address, here)
            for number, (host, address, here) in enumerate(self._places)
        ]
        service.announce(servers)
        failures: dict[str, Exception] = {}
        for server, loaded in [(server, server.start(dumped)) for server in servers]:
            try:
                loaded.get(self.limits.publish_s)
                server.load = Load()  # that was no call of the user's
            except Exception as exc:
                failures[server.address] = exc
                self._server_gone(server, Event.LOST, str(exc))
                if isinstance(exc, CallTimeout):
                    server.lost("it did not start in time")
            else:
                self.add_server(server)
        if len(failures) == len(servers):
            self.terminate(service_id)
            raise PublishError(
                "no server came up", service_id=service_id, hint="Why, worker by worker:", failures=failures
            )
        self.failures.update(failures)
        self._services.note(instance, service_id)
        return ServiceId(service_id)

    # -- the engine ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The grid's thread: call-backs, and a look at which workers still live."""
        looked = time.monotonic()
        while True:
            try:
                work = self._desk.errands.get(timeout=_LOOK_S)
            except Empty:
                work = self._look
            if work is None:
                return
            try:
                work()
                if time.monotonic() - looked > _LOOK_S:
                    looked = time.monotonic()
                    self._look()
            except Exception:
                logger.exception("the grid's thread stumbled, and goes on")

    def _look(self) -> None:
        self._ending.look_after()
        servers = self._services.servers()
        if not servers or self._halted:
            return
        try:
            there = set(self.client.nthreads())
        except Exception as exc:
            logger.debug("the scheduler did not answer: %s", exc)
            if self.client.status in ("closed", "closing"):
                there = set()
            else:
                return
        for server in servers:
            if isinstance(server, ActorServer) and server.address not in there and server.actor is not None:
                server.lost(f"its worker {server.address} has left the cluster")

    def _wait(self, waiter: Waiter | Result, timeout: float | None) -> bool:
        return self._desk.wait(waiter, timeout)

    def _rouse(self, waiter: Waiter) -> None:
        self._desk.rouse()

    def _halt(self, *, force: bool) -> None:
        if self._halted:
            return
        self._halted = True
        servers = self._services.servers()
        self._desk.rouse()
        threads = [
            threading.Thread(target=server.end, kwargs={"force": force}, name="grid-shutdown", daemon=True)
            for server in servers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * self.limits.stop_s)
        self._desk.errands.put(None)
        if self.is_alive() and threading.current_thread() is not self:
            self.join(5.0)
        self._desk.callbacks.close(self.limits.stop_s)
        if self._ours:
            self.client.close()


def _knock(cluster: Any, timeout_s: float) -> None:
    """Raise OSError where nobody listens: a Dask client that finds out by itself leaves a thread behind."""
    place = urlsplit(cluster if "://" in cluster else f"tcp://{cluster}") if isinstance(cluster, str) else None
    if place is not None and place.scheme in ("tcp", "tls") and place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout_s).close()


def _objection(address: str, told: Any) -> HostError | None:
    """Why a worker can't be used; None if it can."""
    if isinstance(told, Exception):
        return PythonError(
            f"it can't import grid ({type(told).__name__}: {told})",
            host=address,
            hint="Install it in the environment of the workers: pip install sshgrid",
        )
    theirs, ours = tuple(told["python"]), sys.version_info[:2]
    if theirs != ours:
        return PythonError(
            f"it runs Python {theirs[0]}.{theirs[1]} and this is {ours[0]}.{ours[1]}",
            host=address,
            hint="Use workers with the Python of the client",
        )
    if told["grid"] != __version__:
        return PythonError(
            f"it has grid {told['grid']} and this is {__version__}", host=address, hint="Install the same version there"
        )
    return None
