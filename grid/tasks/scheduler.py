"""The scheduler: takes in what happened, tells the systems, and hands out tasks.

    grid's thread ──answers──┐
    hiring thread ──workers──┼──> inbox ──> scheduler's thread ──> Schedule ──> Staff of a slave ──> servers
    callers ──systems, tasks─┘                   └──> methods of systems, tasks' `finished`

All state of schedule, registry and systems is owned by that thread; others put what is to be done into its inbox.

Lives here: `TaskScheduler`'s methods, packs that go and come back, what becomes of those that fail.
Elsewhere:  who gets which task (`schedule`, pure), the life of systems (`systems`), the thread (`loop`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from grid.errors import ServerLost, TaskError
from grid.tasks.abstract import Task, TaskScheduler, TaskScheduleStrategy, TaskSystem
from grid.tasks.attendance import Attendance
from grid.tasks.life import checked, hear
from grid.tasks.limits import TaskLimits
from grid.tasks.loop import Loop
from grid.tasks.runner import read_answer
from grid.tasks.schedule import Failed, Idle, Key, Pack, Schedule, TaskEntry
from grid.tasks.slaves import SlaveRegistry
from grid.tasks.statistics import Statistics
from grid.tasks.systems import Systems
from grid.tasks.workers import SendFailed

logger = logging.getLogger(__name__)


class SchedulersMaster(Protocol):
    """The part of its master that a scheduler uses."""

    limits: TaskLimits
    attendance: Attendance
    systems: Systems

    @property
    def service_id(self) -> str:
        """Of the workers."""


class Scheduler(TaskScheduler):
    """See the module."""

    def __init__(
        self, strategy: TaskScheduleStrategy, registry: SlaveRegistry | None = None, limits: TaskLimits | None = None
    ) -> None:
        self.strategy = strategy
        self.statistics = Statistics()
        self.schedule = Schedule(strategy, registry or SlaveRegistry(), limits or TaskLimits())
        self._loop = Loop("grid-tasks", self._failed)

    # -- the thread ------------------------------------------------------------------------------------------------

    def setup(self, master: SchedulersMaster) -> None:
        """Connect with master and strategy, and start the thread."""
        self.master = master
        self.strategy.setup(self, master)
        self._loop.start(self._look, master.limits.heartbeat_s, self._pump)

    def do(self, act: Callable[[], object]) -> None:
        """Have something done by the scheduler's thread, in order."""
        self._loop.do(act)

    def stop(self, timeout: float) -> None:
        """End the thread; after what it is doing."""
        self._loop.stop(timeout)

    def _failed(self, exc: BaseException) -> None:
        """An error here belongs to no single system and ends all of them: waiting in vain would be worse."""
        logger.debug("the scheduler met an error", exc_info=exc)
        self.master.systems.end_all(exc)

    def _look(self) -> None:
        for slave_id, error in self.master.attendance.look(self.master.service_id):
            for pack in self.schedule.slave_lost(slave_id):
                self._give_up(pack, self.schedule.lost(pack), error)

    # -- systems and tasks come ------------------------------------------------------------------------------------

    def start_system(self, task_system: TaskSystem) -> None:
        """Generate its tasks, which are queued as slaves take them. In the scheduler's thread."""
        self.master.systems.generate(task_system)

    def push_task(self, task: Task | None) -> bool:
        """Queue one task, of its system (`system_id`) or a single one. From any thread. False: it was None.

        Raises:
            TaskError: It is no task, or its system is not here.
        """
        if task is None:
            return False
        return self.push_tasks([task])

    def push_tasks(self, tasks: Iterable[Task | None], system_id: Key = None) -> bool:
        """Queue all of them, or none if one of them is no task. None among them is passed over. From any thread.

        Args:
            system_id: Of the system that they belong to; where they name none themselves.
        """
        by_key: dict[Key, list[Task]] = {}
        for task in list(tasks):
            if task is not None:
                key = system_id if system_id is not None else getattr(task, "system_id", None)
                by_key.setdefault(key, []).append(checked(task, key))
        unknown = [key for key in by_key if not self.schedule.knows(key) and not self.master.systems.runs(key)]
        if unknown:
            raise TaskError(
                "tasks were pushed for it, and it is not here (any more)",
                system_id=unknown[0],
                hint="Start the system first; a single task has no system_id",
            )

        def push() -> None:
            for key, group in by_key.items():
                if self.schedule.knows(key):  # it may have ended meanwhile: then they are left over
                    self.schedule.push(key, group)

        push() if self._loop.is_current else self.do(push)
        return bool(by_key)

    def handle_task(self, task: Task) -> bool:
        """Send a task to the next slave now; back to the head of its queue if there is none or sending fails.

        In the scheduler's thread. True if it is on its way.
        """
        entry = TaskEntry(checked(task, task.system_id))
        self.schedule.push_front(task.system_id, [entry])
        self._rate_if_changed()
        step = self.schedule.next()
        if isinstance(step, Pack):
            failed = self._send(step)
            if failed is not None:  # later: a method of a system may be at work, and this may be a task of its own
                self.do(lambda: self._unsent(step, failed))
            return failed is None and entry in step.entries
        if isinstance(step, Idle):  # of another system; or of one whose last pack is being told of
            self.do(lambda: self._look_idle(step.key))
        elif isinstance(step, Failed):
            self.do(lambda: self.master.systems.source_failed(step.key, step.error))
        return False

    def _look_idle(self, key: str) -> None:
        if (idle := self.schedule.idle(key)) is not None:
            self.master.systems.idle(idle)

    # -- tasks go --------------------------------------------------------------------------------------------------

    def rate_slaves(self) -> None:
        """Rate all active slaves again. In the scheduler's thread."""
        self.master.attendance.is_changed = False
        self.schedule.rerate()

    def _rate_if_changed(self) -> None:
        if self.master.attendance.is_changed:
            self.rate_slaves()

    def _tasked_pushed(self, slave_id: str) -> None:
        slave = self.schedule.registry.slaves.get(slave_id)
        if slave is not None:
            self.schedule.pushed(slave)

    def _pump(self) -> None:
        """Hand out tasks until none is left, or no room."""
        while not self._loop.is_stopping:
            self._rate_if_changed()
            step = self.schedule.next()
            if step is None:
                return
            if isinstance(step, Pack):
                failed = self._send(step)
                if failed is not None:
                    self._unsent(step, failed)
            elif isinstance(step, Idle):
                self.master.systems.idle(step)
            elif isinstance(step, Failed):
                self.master.systems.source_failed(step.key, step.error)

    def _send(self, pack: Pack) -> SendFailed | None:
        manager = self.master.attendance.managers[pack.slave.slave_id]
        try:
            manager.staff.send(pack)
        except SendFailed as failed:
            return failed
        if manager.staff.size != pack.slave.workers:  # one turned out to be lost
            self.master.attendance.count(manager)
        return None

    def _unsent(self, pack: Pack, failed: SendFailed) -> None:
        if failed.contents and len(pack.entries) > 1:
            self.schedule.apart(pack)
        elif failed.contents:
            if self.schedule.settled(pack, None):
                self._finish(pack, pack.entries[0], None, failed.error)
        else:
            given_up = self.schedule.unsent(pack, failed.error, host=failed.host)
            if (manager := self.master.attendance.managers.get(pack.slave.slave_id)) is not None:
                self.master.attendance.count(manager)
            self._give_up(pack, given_up, failed.error)

    # -- tasks come back -------------------------------------------------------------------------------------------

    def back(self, pack: Pack) -> None:
        """A pack has its answer. From any thread."""
        self.do(lambda: self._returned(pack))

    def _returned(self, pack: Pack) -> None:
        staff = pack.worker.staff
        staff.settle(pack.worker)
        try:
            answers = pack.result.get(0)
        except ServerLost as exc:
            staff.fire(pack.worker)
            if (manager := self.master.attendance.managers.get(pack.slave.slave_id)) is not None:
                self.master.attendance.count(manager)
            self._give_up(pack, self.schedule.lost(pack), exc)
            return
        except BaseException as exc:
            if len(pack.entries) > 1:  # nothing of it was run: it could not be read there
                self.schedule.apart(pack)
                return
            if self.schedule.settled(pack, None):
                self._finish(pack, pack.entries[0], None, exc)
            return
        seconds = sum(answer[0] for answer in answers)
        self.master.attendance.heard(pack.slave)
        if not self.schedule.settled(pack, seconds):
            return
        key, again = pack.key, []
        for number, (entry, answer) in enumerate(zip(pack.entries, answers, strict=True), 1):
            task = entry.task
            value, error = read_answer(answer, task)
            self.statistics.add(task.name or type(task).__name__, answer[0])
            if error is not None and entry.tries < task.retries:
                entry.tries += 1
                again.append(entry)
                self.schedule.finished(pack.slave)
                continue
            self._finish(pack, entry, value, error)
            if not self.schedule.knows(key):  # complete: the rest is left over
                for _ in pack.entries[number:]:
                    self.schedule.finished(pack.slave)
                return
        if again:
            self.schedule.push_front(key, again)

    def _finish(self, pack: Pack, entry: TaskEntry, value: Any, error: BaseException | None) -> None:
        """One task is finished: it hears of it, then its system, then the ranks; then the system is complete or not."""
        hear(entry.task, value, error)
        has_heard = self.master.systems.tell(pack.key, entry.task, value, error)
        self.schedule.finished(pack.slave)
        if has_heard and pack.key is not None:
            self.master.systems.advance(pack.key)

    def task_finished(self, task: Task, result: Any, error: BaseException | None) -> None:
        """The slave that had the task has one less. In the scheduler's thread."""
        slave = self.schedule.registry.slaves.get(task.slave_id or "")
        if slave is not None:
            self.schedule.finished(slave)

    def _give_up(self, pack: Pack, entries: list[TaskEntry], error: BaseException) -> None:
        """These failed without a slave to blame it on any more: their counts were taken back already."""
        for entry in entries:
            if self.schedule.knows(pack.key):
                hear(entry.task, None, error)
                if self.master.systems.tell(pack.key, entry.task, None, error) and pack.key is not None:
                    self.master.systems.advance(pack.key)
