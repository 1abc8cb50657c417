"""The master: runs task systems over the servers of a grid, several at once.

For each system, in the scheduler's thread and never two at a time:

    init_system -> generate_tasks -> for each finished task: task.finished, system.task_finished, ranks, is_complete
                        ^                                                                             │
                        └── not complete, nothing waits, nothing is under way ────────────────────────┤
                                                                                                      v
                                                                                               gather_result

Lives here: the life of systems, slaves that come and go, detached results, the end.
Elsewhere:  the thread and the queue (`scheduler`), servers (`workers`), one call for all this (`run`).

The seam for another place to keep systems, such as a job service: a system comes as bytes (`parcel`), its outcome
leaves by `SystemHandle.add_done_callback`; `keep` and `fetch` hold results in this process only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grid.errors import DuplicateSystem, GridStopped, ServerLost, Stalled, TaskError
from grid.grids.leftover import LeftOver, UnderWay
from grid.tasks.abstract import Task, TaskScheduleStrategy, TaskSystem, as_pair
from grid.tasks.application import Application, Client
from grid.tasks.limits import TaskLimits
from grid.tasks.manager import WorkerManager
from grid.tasks.parcel import pack_system, unpack_system
from grid.tasks.schedule import Idle, Key, Pack
from grid.tasks.scheduler import Scheduler
from grid.tasks.slaves import Registry, Slave, SlaveState
from grid.tasks.strategies import LeastLoaded
from grid.tasks.system import Running, SystemHandle, failure
from grid.tasks.workers import Crew, Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy

logger = logging.getLogger(__name__)


class Master:
    """Runs task systems on a grid; a context manager that ends its workers, not the grid.

    Args:
        g: A grid of any kind. The master publishes a service of its own there, one worker for each server.
        strategy: Who gets the next task; default `LeastLoaded()`. One object serves one master.
        limits: See `TaskLimits`.
    """

    def __init__(
        self,
        g: AbstractGrid,
        strategy: TaskScheduleStrategy | None = None,
        *,
        limits: TaskLimits | None = None,
    ) -> None:
        self.grid = g
        self.limits = limits or TaskLimits()
        self.registry = Registry(self.limits.heartbeat_s, self.limits.inactive_after, self.limits.removed_after)
        self.managers: dict[str, WorkerManager] = {}
        self._absent: dict[str, WorkerManager] = {}  # removed, and not back yet
        self.scheduler = Scheduler(strategy or LeastLoaded())
        self._pool = Pool(
            g,
            on_worker=lambda proxy: self.scheduler.do(lambda: self._hired(proxy)),
            on_empty=lambda reason: self.scheduler.do(lambda: self._nobody(reason)),
            retry_s=self.limits.hire_s,
        )
        self._left_over = LeftOver(g)
        self._running: dict[str, Running] = {}
        self._kept: OrderedDict[str, SystemHandle] = OrderedDict()
        self._clients: list[Client] = []
        self._lock = threading.Lock()
        self._started = self._closed = False
        self._why_none = "no worker is up yet"
        self._reporter = ("masters", self.status)

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
        self.grid.reporters = [*self.grid.reporters, self._reporter]
        try:
            self._pool.start()
        except BaseException:
            self.close(gracefully=False)
            raise

    def close(self, *, gracefully: bool = True) -> None:
        """End: systems that are under way fail, workers are told to stop, applications are told. Idempotent."""
        with self._lock:
            if self._closed or not self._started:
                self._closed = True
                return
            self._closed = True
        error = GridStopped("the master ended before it was complete", hint="Wait for the result before closing it")
        self.scheduler.do(lambda: self.end_all(error))
        self.scheduler.stop(self.limits.stop_s)
        self._left_over.close(self.limits.stop_s)
        self._pool.stop(self.limits.stop_s)
        self.grid.reporters = [each for each in self.grid.reporters if each != self._reporter]
        for client in list(self._clients):
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
            DuplicateSystem: A system of this id is there already.
            TaskError: It is no system.
        """
        self.start()
        copy = unpack_system(system if isinstance(system, bytes) else pack_system(system))
        key = copy.get_system_id()
        if not isinstance(key, str) or key != copy.system_id:
            raise TaskError(f"get_system_id() answered {key!r}", system_id=copy.system_id, hint="Return self.system_id")
        handle = SystemHandle(self, key, type(copy).__name__)
        with self._lock:
            if self._closed:
                raise TaskError("this master has ended", system_id=key, hint="Make another one")
            if key in self._running or key in self._kept:
                what = "runs already" if key in self._running else "has a result here that was not fetched"
                raise DuplicateSystem(f"a system of this id {what}", system_id=key, hint="Make another instance")
            self._running[key] = Running(copy, handle)
        self.scheduler.do(partial(self._begin, key))
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
        self._clients.append(client)
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
        """A client is gone."""
        if client in self._clients:
            self._clients.remove(client)

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
            "systems": {key: self.doing(key) for key in list(self._running)},
            "tasks": self.scheduler.statistics.table(),
        }

    def runs(self, system_id: Key) -> bool:
        """Whether a system was started and is not over."""
        return system_id in self._running

    def doing(self, system_id: str) -> str:
        """In words: how far a system is, and what it waits for."""
        running = self._running.get(system_id)
        if running is None:
            return "not under way"
        waiting, under_way = self.scheduler.schedule.waiting(system_id)
        more = "" if waiting == 0 else f", {waiting} waiting" if waiting is not None else ", more to come"
        text = f"{running.handle.finished_tasks} tasks finished, {under_way} under way{more}"
        if not any(slave.state is SlaveState.ACTIVE for slave in list(self.registry.slaves.values())):
            text += f"; no active host ({self._why_none})"
        return text

    # -- the life of a system, in the scheduler's thread -----------------------------------------------------------

    def _begin(self, key: str) -> None:
        running = self._running.get(key)
        if running is None:
            return
        schedule = self.scheduler.schedule
        schedule.open(key)
        if self._call(key, "init_system", running.system.init_system, self) is not _FAILED:
            self._generate(running)

    def _generate(self, running: Running) -> None:
        key = running.system.system_id
        try:
            self.scheduler.start_system(running.system)
        except TaskError as exc:
            self.end(key, None, exc)
        except BaseException as exc:
            self.end(key, None, failure(key, "generate_tasks", exc))

    def idle(self, step: Idle) -> None:
        """Nothing waits, nothing is under way: it is complete, generates more, or is stalled."""
        running = self._running.get(step.key)
        if running is None:
            return
        if step.dry:
            self.ask_complete(step.key)
            if step.key in self._running:
                done = running.handle.finished_tasks
                error = Stalled(
                    f"it is not complete after {done} tasks, none is under way, and generate_tasks gave none",
                    system_id=step.key,
                    hint="Let is_complete become true, or generate tasks while it is false",
                )
                self.end(step.key, None, error)
        else:
            self._generate(running)

    def source_failed(self, key: str, error: BaseException) -> None:
        """What generate_tasks returned raised, or gave what is no task."""
        self.end(key, None, error if isinstance(error, TaskError) else failure(key, "generate_tasks", error))

    def tell(self, key: Key, task: Task, result: Any, error: BaseException | None) -> bool:
        """A task is finished: tell its system, or its client. False if that ended the system."""
        if key is None:
            for client in list(self._clients):
                if client.owns_task(task.task_id):
                    client.task_over(task, result, error)
            return False
        running = self._running.get(key)
        if running is None:
            return False
        running.handle.finished_tasks += 1
        if error is not None:
            running.handle.failed_tasks += 1
        try:
            running.system.task_finished(self, task, result, error)
        except BaseException as exc:
            self.end(key, None, failure(key, "task_finished", exc))
        return key in self._running

    def ask_complete(self, key: Key) -> None:
        """Is it complete? Then it is brought to its end."""
        running = self._running.get(key) if key is not None else None
        if running is None or key is None:
            return
        try:
            complete = running.system.is_complete(self)
        except BaseException as exc:
            self.end(key, None, failure(key, "is_complete", exc))
            return
        if complete:
            gathered = self._call(key, "gather_result", running.system.gather_result, self)
            if gathered is not _FAILED:
                self.end(key, *as_pair(gathered))

    def _call(self, key: str, name: str, method: Any, *args: Any) -> Any:
        try:
            return method(*args)
        except BaseException as exc:
            self.end(key, None, failure(key, name, exc))
            return _FAILED

    def end(self, key: str, result: Any, error: BaseException | None) -> None:
        """A system is over: what waits is dropped, what runs is left over, and its originator has the outcome."""
        with self._lock:
            running = self._running.pop(key, None)
        if running is None:
            return
        left_over = self.scheduler.schedule.close(key)
        if not self._closed:  # else the workers themselves are about to be stopped
            self._left_over.stop(_under_way(left_over))
        for callback in running.handle._settle(result, error):
            try:
                callback(running.handle)
            except Exception:
                logger.exception("a call-back of %r failed", running.handle)

    def end_all(self, error: BaseException) -> None:
        """Nothing can go on."""
        for key in list(self._running):
            self.end(key, None, error)
        self._left_over_single(error)

    def _left_over_single(self, error: BaseException) -> None:
        schedule = self.scheduler.schedule
        left_over = schedule.close(None)
        schedule.open(None)
        for client in list(self._clients):
            client.give_up(error)
        if not self._closed:
            self._left_over.stop(_under_way(left_over))

    # -- slaves, in the scheduler's thread -------------------------------------------------------------------------

    def _hired(self, proxy: Proxy) -> None:
        host = proxy._server.host.label
        manager = self.managers.get(host) or self._absent.get(host)
        if manager is None:
            manager = self.managers[host] = WorkerManager(1, self.grid, limits=self.limits)
            manager.init(host, None)
            manager.crew = Crew(self.scheduler.back)
        manager.crew.hire(proxy)
        if host in self.managers:
            self.crew_changed(manager)

    def crew_changed(self, manager: WorkerManager) -> None:
        """Workers of a slave came or went."""
        name, workers = manager.identity, manager.crew.size
        manager._num_workers = workers
        known = self.registry.slaves.get(name)
        if known is not None and known.workers == workers:
            return
        self.registry.register(name, workers, time.monotonic())
        self.scheduler.registry_changed()

    def update_pool(self, slave_id: str, n: int) -> None:
        """Have `n` workers of a slave work, of those that its host has; no task is lost. From any thread."""
        if slave_id not in self.managers:
            raise TaskError(f"there is no slave {slave_id!r}", hint=f"There are {', '.join(self.managers) or 'none'}")
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ValueError(f"update_pool({slave_id!r}, {n!r}): a slave has 0 workers or more, a whole number")

        def change() -> None:
            manager = self.managers[slave_id]
            manager.crew.want = n
            manager.crew.adjust()
            self.crew_changed(manager)

        self.scheduler.do(change)

    def _nobody(self, reason: str) -> None:
        self._why_none = reason
        for manager in self.managers.values():
            for worker in manager.crew.everybody:
                if worker.packs == 0:  # the others' packs come back with the loss
                    manager.crew.fire(worker)
            self.crew_changed(manager)
        if self.grid.ishalted():
            self.end_all(GridStopped("the grid was terminated", hint="Make another one"))
        elif self._running:
            logger.warning("task systems wait: no active host (%s)", reason)

    def heard(self, slave: Slave) -> None:
        """An answer came from it."""
        if self.registry.heartbeat(slave.slave_id, time.monotonic()):
            self.scheduler.registry_changed()

    def look(self) -> None:
        """Every heartbeat: which hosts answer? Those that are silent get no tasks; long silent ones are lost."""
        now = time.monotonic()
        silent = silent_hosts(self.grid)
        changed = False
        for name in [name for name in self._absent if name not in silent]:
            logger.info("slave %s is back", name)
            self.managers[name] = self._absent.pop(name)
            self.crew_changed(self.managers[name])
        for name in self.managers:
            if name not in silent:
                changed |= self.registry.heartbeat(name, now)
        silenced, removed = self.registry.check(now)
        for slave in silenced:
            self._why_none = f"{slave.slave_id} does not answer"
            logger.warning("slave %s does not answer and gets no tasks", slave.slave_id)
        for slave in removed:
            logger.warning("slave %s is removed: it has not answered", slave.slave_id)
            self._absent[slave.slave_id] = self.managers.pop(slave.slave_id)
            error = ServerLost(
                "its host has not answered",
                service_id=self._pool.service_id,
                server="",
                host=slave.slave_id,
                exit_status=None,
                signal=None,
                last_output="",
            )
            self.scheduler.slave_lost(slave.slave_id, error)
        if changed or silenced or removed:
            self.scheduler.registry_changed()


def silent_hosts(g: AbstractGrid) -> set[str]:
    """Hosts of a grid that do not answer now, as far as it knows."""
    return {home["host"] for home in g.status().get("homes", ()) if home["state"] == "unreachable"}


_FAILED = object()


def _under_way(packs: Iterable[Pack]) -> list[UnderWay]:
    return [
        UnderWay(pack.worker.name, pack.worker.place, pack.ticket, pack.result)
        for pack in packs
        if pack.result is not None
    ]
