"""Workers: servers of a grid that run a `TaskRunner`, as they come and go, and the packs that each has.

    Hiring   publishes a runner, and tells of each server that comes up. One thread, which waits in the queue of free
             servers like any other user of the grid; it ends with the service.
    Staff    the workers of one slave: which one gets the next pack, sending it, its answer.

Lives here: those two. Elsewhere: which slave (`schedule`), what an answer says (`runner`), lost servers (`grids/`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from grid.errors import (
    AcquireTimeout,
    GridError,
    GridStopped,
    HostError,
    MissingModules,
    NoServers,
    SerialisationError,
    TaskError,
    UnknownService,
    VersionError,
)
from grid.grids.grid import Grid
from grid.tasks.runner import TaskRunner
from grid.tasks.schedule import Pack
from grid.wire import codec

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy
    from grid.services.result import Result

logger = logging.getLogger(__name__)

_LONG_S = 60.0
RESTARTS = 100
"""Lost servers that are replaced: a task that kills its server must not leave the grid without any."""


class Hiring:
    """A published runner. `on_worker(proxy)` and `on_empty(reason)` are called by its thread.

    `place`: what `publish` is told of needs and hosts.
    """

    def __init__(
        self,
        g: AbstractGrid,
        on_worker: Callable[[Proxy], None],
        on_empty: Callable[[str], None],
        *,
        retry_s: float = 1.0,
        place: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.grid, self._place = g, place
        self.service_id = ""
        self._on_worker, self._on_empty, self._retry_s = on_worker, on_empty, retry_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._hire, name="grid-tasks-hire", daemon=True)

    def start(self) -> None:
        """Publish the runner; workers come as their servers do.

        Raises:
            PublishError: No host brought up a server.
        """
        self.grid.start()
        if isinstance(self.grid, Grid):
            self.service_id = self.grid.publish(TaskRunner(), restarts=RESTARTS, **self._place)
        elif self._place:
            raise TaskError(f"{type(self.grid).__name__} gives servers no slots", hint="Leave out needs and where")
        else:
            self.service_id = self.grid.publish(TaskRunner())
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the workers' processes, after what they run now if that is short."""
        self._closed.set()
        if self.service_id:
            try:
                self.grid.terminate(self.service_id)
            except (UnknownService, GridStopped):
                pass
            self._thread.join(timeout)

    def _hire(self) -> None:
        while not self._closed.is_set():
            try:
                proxy = self.grid.acquire_service(self.service_id, _LONG_S)
            except AcquireTimeout:
                continue
            except NoServers as exc:
                if self._closed.is_set():
                    return
                self._on_empty(exc.what)
                self._closed.wait(self._retry_s)
            except (UnknownService, GridStopped) as exc:
                if not self._closed.is_set():
                    self._on_empty(exc.what)
                return
            else:
                proxy._hold.pass_on()  # to the scheduler's thread: this one has none while it waits for the next
                self._on_worker(proxy)


class TaskWorker:
    """One server of ours."""

    __slots__ = ("gone", "name", "packs", "place", "proxy", "staff")

    def __init__(self, proxy: Proxy, staff: Staff) -> None:
        self.proxy = proxy
        self.staff = staff
        self.name = proxy._server.name
        self.packs = 0
        self.gone = False
        self.place: Result | None = None
        """(machine, process id), some time soon."""


class SendFailed(Exception):
    """A pack was not sent. `host`: none of its kind can be sent there. `contents`: it is the pack's own fault."""

    def __init__(self, error: BaseException, *, host: bool = False, contents: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.host, self.contents = error, host, contents


class Staff:
    """The workers of one slave. Not thread-safe, but for `back`, which is called by the grid's thread.

    Args:
        back: Called with a pack that has its `result`.
    """

    def __init__(self, back: Callable[[Pack], None]) -> None:
        self._back = back
        self._by_packs: list[dict[TaskWorker, None]] = [{}]  # index: number of packs; the workers that have as many
        self._isolated: dict[TaskWorker, None] = {}  # have one pack, and get nothing else until it is back
        self._parked: list[TaskWorker] = []  # finish what they have, and get no more
        self.want: int | None = None
        """How many shall work; None: all."""

    @property
    def working(self) -> list[TaskWorker]:
        """Those that get packs, the least busy first."""
        return [*(worker for level in self._by_packs for worker in level), *self._isolated]

    @property
    def size(self) -> int:
        """How many work."""
        return sum(map(len, self._by_packs)) + len(self._isolated)

    @property
    def everybody(self) -> list[TaskWorker]:
        """With those that are parked."""
        return self.working + self._parked

    def hire(self, proxy: Proxy) -> TaskWorker:
        """One more worker; parked, if there are as many as are wanted."""
        worker = TaskWorker(proxy, self)
        try:
            worker.place = proxy.register()
        except GridError:
            pass  # it was lost already, which shows at the next sending
        if self.want is not None and self.size >= self.want:
            self._parked.append(worker)
        else:
            self._by_packs[0][worker] = None
        return worker

    def adjust(self) -> None:
        """Have as many work as are wanted: the least busy are parked, and finish what they have."""
        while self._parked and (self.want is None or self.size < self.want):
            worker = self._parked.pop()
            self._level(worker.packs)[worker] = None
        while self.want is not None and self.size > self.want:
            worker, _ = next(level for level in [*self._by_packs, self._isolated] if level).popitem()
            self._parked.append(worker)

    def fire(self, worker: TaskWorker) -> None:
        """Its server was lost."""
        worker.gone = True
        if worker in self._parked:
            self._parked.remove(worker)
        else:
            self._level(worker.packs).pop(worker, None)
            self._isolated.pop(worker, None)

    def send(self, pack: Pack) -> None:
        """Have the least busy worker run it.

        Raises:
            SendFailed: It was not sent. A worker whose server turned out to be lost is fired, and the next is tried.
        """
        last: BaseException = GridError("no worker is left")
        while (worker := next((worker for level in self._by_packs for worker in level), None)) is not None:
            try:
                result: Result = worker.proxy.perform([entry.task for entry in pack.entries], pack.ticket)
            except (VersionError, MissingModules, HostError) as exc:
                raise SendFailed(exc, host=True) from exc
            except SerialisationError as exc:
                raise SendFailed(_blame(pack) or exc, contents=True) from exc
            except GridError as exc:  # lost, or the grid was stopped
                logger.info("worker %s is gone: %s", worker.name, exc)
                self.fire(worker)
                last = exc
                continue
            self._move(worker, worker.packs + 1)
            if pack.isolated and self._level(worker.packs).pop(worker, _GONE) is not _GONE:
                self._isolated[worker] = None
            pack.worker, pack.result = worker, result
            result.add_done_callback(lambda _: self._back(pack))
            return
        raise SendFailed(last)

    def settle(self, worker: TaskWorker) -> None:
        """One of its packs is back."""
        if not worker.gone:
            self._move(worker, worker.packs - 1)

    def _move(self, worker: TaskWorker, packs: int) -> None:
        works = self._level(worker.packs).pop(worker, _GONE) is not _GONE  # else it is parked
        works |= self._isolated.pop(worker, _GONE) is not _GONE
        worker.packs = packs
        if works:
            self._level(packs)[worker] = None

    def _level(self, packs: int) -> dict[TaskWorker, None]:
        while len(self._by_packs) <= packs:
            self._by_packs.append({})
        return self._by_packs[packs]


def _blame(pack: Pack) -> Exception | None:
    """An error that names the part of a task which can't travel, without the way by which the task is sent."""
    for entry in pack.entries:
        try:
            codec.dumps(entry.task, f"task {entry.task.name or type(entry.task).__name__}")
        except SerialisationError as exc:
            return exc
    return None


_GONE = object()
