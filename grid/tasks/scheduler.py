"""The scheduler: one thread that takes in what happened, calls the systems, and hands out tasks.

    grid's thread ──answers──┐
    hiring thread ──workers──┼──> inbox ──> scheduler's thread ──> Schedule ──> Crew of a slave ──> servers
    callers ──systems, tasks─┘                   └──> methods of systems, tasks' `finished`

All state of schedule, registry and systems is owned by that thread; others put what is to be done into the inbox.

Lives here: the loop, `TaskScheduler`'s methods, what becomes of packs that fail.
Elsewhere:  who gets which task (`schedule`, pure), the life of systems (`master`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from grid.errors import ServerLost, TaskError
from grid.tasks.abstract import Task, TaskScheduler, TaskScheduleStrategy, TaskSystem
from grid.tasks.runner import read_answer
from grid.tasks.schedule import Entry, Failed, Idle, Key, Pack, Schedule, checked
from grid.tasks.statistics import Statistics
from grid.tasks.workers import Crew, SendFailed

if TYPE_CHECKING:
    from grid.tasks.master import Master

logger = logging.getLogger(__name__)

_AT_ONCE = 256
"""News taken in before tasks are handed out again."""


class Scheduler(TaskScheduler):
    """See the module."""

    schedule: Schedule
    master: Master

    def __init__(self, strategy: TaskScheduleStrategy) -> None:
        self.strategy = strategy
        self.statistics = Statistics()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopping = self._unrated = False
        self._thread = threading.Thread(target=self._run, name="grid-tasks", daemon=True)

    # -- the thread ------------------------------------------------------------------------------------------------

    def setup(self, master: Master) -> None:
        """Connect with master and strategy, and start the thread."""
        self.master = master
        self.schedule = Schedule(self.strategy, master.registry, master.limits)
        self.schedule.open(None)
        self.strategy.setup(self, master)
        self._thread.start()

    def do(self, act: Callable[[], None]) -> None:
        """Have something done by the scheduler's thread, in order."""
        self._inbox.put(act)

    def stop(self, timeout: float) -> None:
        """End the thread; after what it is doing."""

        def leave() -> None:
            self._stopping = True

        self.do(leave)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    @property
    def is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        look = time.monotonic()
        while not self._stopping:
            try:
                act = self._inbox.get(timeout=max(0.0, look - time.monotonic()))
                for _ in range(_AT_ONCE):
                    self._guard(act)
                    act = self._inbox.get_nowait()
                self._guard(act)
            except queue.Empty:
                pass
            if time.monotonic() >= look:
                look = time.monotonic() + self.master.limits.heartbeat_s
                self._guard(self.master.look)
            self._guard(self._pump)

    def _guard(self, act: Callable[[], None]) -> None:
        """Do it; what goes wrong here is nobody's in particular and ends all systems: waiting in vain is worse."""
        try:
            act()
        except BaseException as exc:  # a system may say sys.exit()
            logger.debug("the scheduler met an error", exc_info=True)
            self.master.end_all(exc)

    # -- systems and tasks come ------------------------------------------------------------------------------------

    def start_system(self, task_system: TaskSystem) -> None:
        """Generate its tasks, which are queued as slaves take them. In the scheduler's thread."""
        key = task_system.system_id
        self.schedule.begin_generation(key)
        self.schedule.feed(key, task_system.generate_tasks(self.master))

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
        unknown = [key for key in by_key if not self.schedule.knows(key) and not self.master.runs(key)]
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

        push() if self.is_own_thread else self.do(push)
        return bool(by_key)

    def handle_task(self, task: Task) -> bool:
        """Send a task to the next slave now; back to the head of its queue if there is none or sending fails.

        In the scheduler's thread. True if it is on its way.
        """
        entry = Entry(checked(task, task.system_id))
        self.schedule.push_front(task.system_id, [entry])
        if self._unrated:
            self.rate_slaves()
        step = self.schedule.next()
        if isinstance(step, Idle):  # of another system; or of one whose last pack is being told of: looked at later
            self.do(lambda: self._look_idle(step.key))
        elif isinstance(step, Failed):
            self.do(lambda: self.master.source_failed(step.key, step.error))
        return isinstance(step, Pack) and self._send(step) and entry in step.entries

    def _look_idle(self, key: str) -> None:
        if (idle := self.schedule.idle(key)) is not None:
            self.master.idle(idle)

    # -- tasks go --------------------------------------------------------------------------------------------------

    def rate_slaves(self) -> None:
        self._unrated = False
        self.schedule.rerate()

    def registry_changed(self) -> None:
        """All slaves are rated again before the next task goes out: once, however many workers came and went."""
        self._unrated = True

    def _tasked_pushed(self, slave_id: str) -> None:
        slave = self.master.registry.slaves.get(slave_id)
        if slave is not None:
            self.schedule.pushed(slave)

    def _pump(self) -> None:
        """Hand out tasks until none is left, or no room."""
        schedule = self.schedule
        while not self._stopping:
            if self._unrated:
                self.rate_slaves()
            step = schedule.next()
            if step is None:
                return
            if isinstance(step, Pack):
                self._send(step)
            elif isinstance(step, Idle):
                self.master.idle(step)
            elif isinstance(step, Failed):
                self.master.source_failed(step.key, step.error)

    def _send(self, pack: Pack) -> bool:
        manager = self.master.managers[pack.slave.slave_id]
        try:
            manager.crew.send(pack)
            if manager.crew.size != pack.slave.workers:  # one turned out to be gone
                self.master.crew_changed(manager)
            return True
        except SendFailed as failed:
            if failed.contents and len(pack.entries) > 1:
                self.schedule.apart(pack)
            elif failed.contents:
                self.schedule.settled(pack, None)
                self._finish(pack, pack.entries[0], None, failed.error)
            else:
                given_up = self.schedule.unsent(pack, failed.error, host=failed.host)
                self.master.crew_changed(manager)
                self._give_up(pack, given_up, failed.error)
        return False

    # -- tasks come back -------------------------------------------------------------------------------------------

    def back(self, pack: Pack) -> None:
        """A pack has its answer. From any thread."""
        self.do(lambda: self._returned(pack))

    def _returned(self, pack: Pack) -> None:
        crew: Crew = pack.worker.crew
        crew.settle(pack.worker)
        try:
            answers = pack.result.get(0)
        except ServerLost as exc:
            crew.fire(pack.worker)
            if (manager := self.master.managers.get(pack.slave.slave_id)) is not None:
                self.master.crew_changed(manager)
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
        self.master.heard(pack.slave)
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

    def _finish(self, pack: Pack, entry: Entry, value: Any, error: BaseException | None) -> None:
        """One task is finished: it hears of it, then its system, then the ranks, then it is asked for completeness."""
        task = entry.task
        manager = self.master.managers.get(pack.slave.slave_id)
        if manager is not None:
            manager.task_finished(task, value, error)
        alive = self.master.tell(pack.key, task, value, error)
        self.schedule.finished(pack.slave)
        if alive:
            self.master.ask_complete(pack.key)

    def task_finished(self, task: Task, result: Any, error: BaseException | None) -> None:
        slave = self.master.registry.slaves.get(task.slave_id or "")
        if slave is not None:
            self.schedule.finished(slave)

    def _give_up(self, pack: Pack, entries: list[Entry], error: BaseException) -> None:
        for entry in entries:
            if self.schedule.knows(pack.key):
                self._report(pack.key, entry.task, error)

    def _report(self, key: Key, task: Task, error: BaseException) -> None:
        """A task failed without a slave to blame it on any more: its count was taken back already."""
        try:
            task.finished(None, error)
        except Exception:
            logger.exception("finished() of %r failed", task)
        if self.master.tell(key, task, None, error):
            self.master.ask_complete(key)

    def slave_lost(self, slave_id: str, error: BaseException) -> None:
        """Its tasks go to others."""
        for pack in self.schedule.slave_lost(slave_id):
            self._give_up(pack, self.schedule.lost(pack), error)
