"""The systems of a master that are under way: the life of each, its messages, its end; and clients of single tasks.

For each system, in the scheduler's thread and never two at a time: the methods that its life says (`life`), and for
each finished task `task_finished`. Only `add`, `runs` and `doing` may be called from any thread.

Lives here: `Systems`.
Elsewhere:  the order of the methods (`life`), tasks that wait (`schedule`), the thread (`scheduler`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from grid.errors import TaskError
from grid.tasks.abstract import Task, TaskSystem
from grid.tasks.application import Client
from grid.tasks.life import FINISHED, SystemEvent, SystemLife, SystemStep, live
from grid.tasks.schedule import Idle, Key, Pack, Schedule
from grid.tasks.system import SystemHandle

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class SystemUnderWay:
    """The master's copy of a system, and what its originator holds."""

    system: TaskSystem
    handle: SystemHandle
    life: SystemLife = field(default_factory=SystemLife)


class Systems:
    """See the module.

    Args:
        master: The argument of the systems' methods.
        stop: Called with packs whose results nobody needs any more.
    """

    def __init__(self, master: Any, schedule: Schedule, stop: Callable[[list[Pack]], None]) -> None:
        self._master, self._schedule, self._stop = master, schedule, stop
        self._under_way: dict[str, SystemUnderWay] = {}
        self.clients: list[Client] = []
        schedule.open(None)  # single tasks

    def add(self, system: TaskSystem, handle: SystemHandle) -> None:
        """Register it; `begin` starts its life."""
        self._under_way[system.system_id] = SystemUnderWay(system, handle)

    def runs(self, key: Key) -> bool:
        """Whether a system was started and is not at its end."""
        return key in self._under_way

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._under_way))

    def doing(self, key: str) -> str:
        """In words: how far a system is."""
        one = self._under_way.get(key)
        if one is None:
            return ""
        waiting, under_way = self._schedule.waiting(key)
        more = "" if waiting == 0 else f", {waiting} waiting" if waiting is not None else ", more to come"
        return f"{one.handle.finished_tasks} tasks finished, {under_way} under way{more}"

    # -- their lives -----------------------------------------------------------------------------------------------

    def begin(self, key: str) -> None:
        """From its first method up to its first tasks."""
        if key in self._under_way:
            self._schedule.open(key)
            self.advance(key)

    def generate(self, system: TaskSystem) -> None:
        """Have it generate tasks, which are queued as slaves take them."""
        key = system.system_id
        self._schedule.begin_generation(key)
        self._schedule.feed(key, system.generate_tasks(self._master))

    def idle(self, idle: Idle) -> None:
        """None of its tasks waits, none is under way: it is complete, generates more, or is stalled."""
        one = self._under_way.get(idle.key)
        if one is not None:
            one.life.move(SystemEvent.DRY if idle.dry else SystemEvent.USED_UP)
            self.advance(idle.key)

    def tell(self, key: Key, task: Task, result: Any, error: BaseException | None) -> bool:
        """A task is finished: tell its system, or its client. True: `advance` the system, now that its task counts."""
        if key is None:
            for client in list(self.clients):
                if client.owns_task(task.task_id):
                    client.task_over(task, result, error)
            return False
        one = self._under_way.get(key)
        if one is None:
            return False
        one.handle.finished_tasks += 1
        if error is not None:
            one.handle.failed_tasks += 1
        try:
            one.system.task_finished(self._master, task, result, error)
        except BaseException as exc:
            self.end(key, None, failure(key, "task_finished", exc))
            return False
        one.life.move(FINISHED)
        return True

    def advance(self, key: str) -> None:
        """Call its methods until it waits for tasks, or is at its end."""
        one = self._under_way[key]
        try:
            outcome = live(one.life, one.system, self._master, self.generate)
        except BaseException as exc:
            step = one.life.step
            assert step is not None
            is_told = step is SystemStep.GENERATE and isinstance(
                exc, TaskError
            )  # it names the system and the method already
            outcome = None, exc if is_told else failure(key, step.value, exc)
        if outcome is not None:
            self.end(key, *outcome)

    def source_failed(self, key: str, error: BaseException) -> None:
        """What generate_tasks returned raised, or gave what is no task."""
        self.end(key, None, error if isinstance(error, TaskError) else failure(key, SystemStep.GENERATE.value, error))

    # -- their ends ------------------------------------------------------------------------------------------------

    def end(self, key: str, result: Any, error: BaseException | None) -> None:
        """End one: waiting tasks are dropped, running ones are stopped later, and its originator gets the outcome."""
        one = self._under_way.pop(key, None)
        if one is None:
            return
        self._stop(self._schedule.close(key))
        for callback in one.handle._settle(result, error):
            try:
                callback(one.handle)
            except Exception:
                logger.exception("a call-back of %r failed", one.handle)

    def end_all(self, error: BaseException) -> None:
        """Nothing can go on, single tasks included."""
        for key in self:
            self.end(key, None, error)
        left_over = self._schedule.close(None)
        self._schedule.open(None)
        for client in list(self.clients):
            client.give_up(error)
        self._stop(left_over)


def failure(system_id: str, method: str, exc: BaseException) -> TaskError:
    """An error in a method of the system, for its originator; with the cause attached."""
    error = TaskError(
        f"its {method} failed ({type(exc).__name__}: {exc})", system_id=system_id, hint="Its traceback is above"
    )
    error.__cause__ = exc
    return error
