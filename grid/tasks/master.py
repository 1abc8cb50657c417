"""The master: runs task systems over the servers of a grid, several at once.

Lives here: the public shell: start and end, systems that are started, detached results, what there is to be told.
Elsewhere:  the life of systems (`systems`, `life`), slaves that come and go (`attendance`), the thread and the queue
            (`scheduler`), servers (`workers`), one call for all this (`run`).

The seam for another place to keep systems, such as a job service: a system comes as bytes (`parcel`), its outcome
leaves by `SystemHandle.add_done_callback`; `keep` and `fetch` hold results in this process only.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.arguments import check
from grid.errors import DuplicateSystem, GridStopped, TaskError
from grid.grids.leftover import LeftOver, UnderWay
from grid.hooks import Reporter
from grid.slots.needs import Needs
from grid.tasks.abstract import Task, TaskScheduleStrategy, TaskSystem
from grid.tasks.application import Application, Client
from grid.tasks.attendance import Attendance
from grid.tasks.limits import TaskLimits
from grid.tasks.manager import WorkerManager
from grid.tasks.parcel import pack_system, unpack_system
from grid.tasks.schedule import Key, Pack
from grid.tasks.scheduler import Scheduler
from grid.tasks.slaves import SlaveRegistry, SlaveState
from grid.tasks.strategies import LeastLoaded
from grid.tasks.system import SystemHandle
from grid.tasks.systems import Systems
from grid.tasks.workers import Hiring

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid

logger = logging.getLogger(__name__)


class Master:
    """Runs task systems on a grid; a context manager that ends its workers, not the grid.

    Args:
        g: A grid of any kind. The master publishes a service of its own there, one worker for each server.
        strategy: It chooses the slave for the next task; default `LeastLoaded()`. One object serves one master.
        limits: See `TaskLimits`.
        needs, where: Of its workers, as of `Grid.publish`. Systems that say what they need run on no others.
    """

    def __init__(
        self,
        g: AbstractGrid,
        strategy: TaskScheduleStrategy | None = None,
        *,
        limits: TaskLimits | None = None,
        needs: Needs | None = None,
        where: str | None = None,
    ) -> None:
        check("needs", needs, Needs | None)
        self.grid, self.needs = g, needs or getattr(g, "needs", None)
        self.limits = limits or TaskLimits()
        self.registry = SlaveRegistry(self.limits.heartbeat_s, self.limits.inactive_after, self.limits.removed_after)
        self.scheduler = Scheduler(strategy or LeastLoaded(), self.registry, self.limits)
        self.attendance = Attendance(g, self.registry, self.limits, self.scheduler.back)
        self.systems = Systems(self, self.scheduler.schedule, self._stop)
        self._hiring = Hiring(
            g,
            on_worker=lambda proxy: self.scheduler.do(lambda: self.attendance.hired(proxy)),
            on_empty=lambda reason: self.scheduler.do(lambda: self._nobody(reason)),
            retry_s=self.limits.hire_s,
            place={key: value for key, value in (("needs", needs), ("where", where)) if value is not None},
        )
        self._left_over = LeftOver(g)
        self._kept: OrderedDict[str, SystemHandle] = OrderedDict()
        self._lock = threading.Lock()
        self._started = self._closed = False
        self._reporter = Reporter("masters", self.status)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Publish the workers' service and begin; starting twice is harmless.

        Raises:
            PublishError: No host brought up a server.
        """
        with self._lock:
            if self._closed:
                raise TaskError("this master has ended", hint="Make another one")
            if self._started:
                return
            self._started = True
        self.scheduler.setup(self)
        self.grid.hooks = [*self.grid.hooks, self._reporter]
        try:
            self._hiring.start()
        except BaseException:
            self.close(gracefully=False)
            raise

    def close(self, *, gracefully: bool = True) -> None:
        """End: systems that are under way fail, workers stop, applications get a call-back. Idempotent."""
        with self._lock:
            if self._closed or not self._started:
                self._closed = True
                return
            self._closed = True
        error = GridStopped("the master ended before it was complete", hint="Wait for the result before closing it")
        self.scheduler.do(lambda: self.systems.end_all(error))
        self.scheduler.stop(self.limits.stop_s)
        self._left_over.close(self.limits.stop_s)
        self._hiring.stop(self.limits.stop_s)
        self.grid.hooks = [each for each in self.grid.hooks if each is not self._reporter]
        for client in list(self.systems.clients):
            client.tell("master_disconnected", gracefully)

    def __enter__(self) -> Master:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(gracefully=kind is None)

    # -- what users and systems ask for ----------------------------------------------------------------------------

    def start_system(self, system: TaskSystem | bytes) -> SystemHandle:
        """Run a system, or a parcel that holds one, beside those that run already. Returns at once.

        The master works on a copy: methods see it, your object stays as it is.

        Raises:
            SerialisationError: It can't be copied; the message names the attribute.
            DuplicateSystem: A system of this id exists already.
            TaskError: It is no system, or the master's workers have not what it needs.
        """
        self.start()
        copy = unpack_system(system if isinstance(system, bytes) else pack_system(system))
        key = copy.get_system_id()
        if not isinstance(key, str) or key != copy.system_id:
            raise TaskError(f"get_system_id() answered {key!r}", system_id=copy.system_id, hint="Return self.system_id")
        if copy.needs is not None and not (self.needs or Needs()).cover(copy.needs):
            has = f"have {self.needs}" if self.needs else "have no slots of their own"
            hint = f"Give the master needs=Needs(...), or use run_system(system, grid). It needs {copy.needs}"
            raise TaskError(f"the workers of this master {has}", system_id=key, hint=hint)
        handle = SystemHandle(key, type(copy).__name__, self._withdraw, self.doing)
        with self._lock:
            if self._closed:
                raise TaskError("this master has ended", system_id=key, hint="Make another one")
            if self.systems.runs(key) or key in self._kept:
                what = "runs already" if self.systems.runs(key) else "has a result here that was not fetched"
                raise DuplicateSystem(f"a system of this id {what}", system_id=key, hint="Make another instance")
            self.systems.add(copy, handle)
        self.scheduler.do(partial(self.systems.begin, key))
        return handle

    def push_task(self, task: Task | None) -> bool:
        """Queue a task, of the system that it names by `system_id`, or a single one. False: it was None."""
        return self.scheduler.push_task(task)

    def push_tasks(self, tasks: Iterable[Task | None], system: TaskSystem | str | None = None) -> bool:
        """Queue all of them, or none if one of them is no task.

        Args:
            system: Whose tasks they are; None: single ones, or of the system that each names.
        """
        return self.scheduler.push_tasks(tasks, system.system_id if isinstance(system, TaskSystem) else system)

    def client(self, application: Application) -> Client:
        """Begin to work for an application: its system is started, or its `start_processing` called."""
        self.start()
        client = Client(self, application)
        self.systems.clients.append(client)
        try:
            client.begin()
        except BaseException:
            client.close()
            raise
        return client

    def keep(self, handle: SystemHandle) -> None:
        """Keep the outcome of a system until somebody fetches it, or `limits.kept_results` others were kept since."""
        with self._lock:
            self._kept[handle.system_id] = handle
            while len(self._kept) > self.limits.kept_results:
                self._kept.popitem(last=False)

    def fetch(self, system_id: str, timeout: float | None = None) -> Any:
        """The result of a detached system, once; waits for it.

        Raises:
            TaskError: No such system was detached here, or it was fetched.
            TimeoutError: It is not complete after `timeout` seconds; it can be asked for again.
            As `SystemHandle.get`.
        """
        handle = self._kept.get(system_id)
        if handle is None:
            raise TaskError("it was not detached here, or was fetched", system_id=system_id, hint="Fetch it once")
        handle.pair(timeout)
        self._kept.pop(system_id, None)
        return handle.get(0)

    def forget(self, client: Client) -> None:
        """A client has ended."""
        if client in self.systems.clients:
            self.systems.clients.remove(client)

    def status(self) -> dict[str, Any]:
        """Slaves, systems and statistics, in plain values."""
        return {
            "slaves": {
                slave.slave_id: {
                    "state": slave.state.value,
                    "workers": slave.workers,
                    "running": slave.running,
                    "done": slave.done,
                    "speed": slave.speed,
                    "mean_s": slave.mean_s,
                }
                for slave in list(self.registry.slaves.values())
            },
            "systems": {key: self.doing(key) for key in self.systems},
            "tasks": self.scheduler.statistics.table(),
        }

    def runs(self, system_id: Key) -> bool:
        """Whether a system was started and is not at its end."""
        return self.systems.runs(system_id)

    def doing(self, system_id: str) -> str:
        """In words: how far a system is, and what it waits for."""
        text = self.systems.doing(system_id)
        if not text:
            return "not under way"
        if not any(slave.state is SlaveState.ACTIVE for slave in list(self.registry.slaves.values())):
            text += f"; no active host ({self.attendance.why_none})"
        return text

    @property
    def managers(self) -> dict[str, WorkerManager]:
        """The workers of each slave, by its name."""
        return self.attendance.managers

    @property
    def service_id(self) -> str:
        """Of the service that our workers are; empty before `start`."""
        return self._hiring.service_id

    def update_pool(self, slave_id: str, n: int) -> None:
        """Have `n` workers of a slave work, of those that its host has; no task is lost. From any thread."""
        if slave_id not in self.managers:
            raise TaskError(f"there is no slave {slave_id!r}", hint=f"There are {', '.join(self.managers) or 'none'}")
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ValueError(f"update_pool({slave_id!r}, {n!r}): a slave has 0 workers or more, a whole number")
        self.scheduler.do(lambda: self.attendance.resize(slave_id, n))

    # -- what others need of us ------------------------------------------------------------------------------------

    def _withdraw(self, key: str, error: BaseException) -> None:
        self.scheduler.do(lambda: self.systems.end(key, None, error))

    def _stop(self, packs: list[Pack]) -> None:
        """Nobody needs their results any more."""
        if not self._closed:  # else the workers themselves are about to be stopped
            self._left_over.stop(
                [
                    UnderWay(pack.worker.name, pack.worker.place, pack.ticket, pack.result)
                    for pack in packs
                    if pack.result is not None
                ]
            )

    def _nobody(self, reason: str) -> None:
        """In the scheduler's thread."""
        self.attendance.nobody(reason)
        if self.grid.ishalted():
            self.systems.end_all(GridStopped("the grid was terminated", hint="Make another one"))
        elif any(self.systems):
            logger.warning("task systems wait: no active host (%s)", reason)
