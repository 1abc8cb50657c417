"""A task system as a job: watched, aborted, waited for, fetched next week; its tasks are units of the job.

    class Search(SystemService):
        version = "1"

        def make_system(self, request):
            return Md5Search(request.digest)

    job = Search.submit(digest="5d41402abc4b2a76b9719d911017c592")

Lives here: `SystemService`. It runs where jobs run, so it stands on what hosts have.
Elsewhere:  the life of a system (`life.py`); systems over the servers of a grid, without a job server (`master.py`);
            who gets which unit (`grid.jobs`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from grid.errors import TaskError
from grid.jobs.host.service import AbortService, Service, ServiceHandler
from grid.tasks.abstract import Task, TaskSystem
from grid.tasks.life import SystemEvent, SystemLife, checked, live
from grid.tasks.runner import perform, read_answer

if TYPE_CHECKING:
    from grid.jobs.host.request import Request
    from grid.jobs.host.units import Units


class SystemService(Service):
    """See the module. Give it a `version` and `make_system`; the job's result is what `gather_result` gives.

    To the system's methods it is the `master`: they may call `push_task` and `push_tasks`, and
    `master.handler.improved(value)` to publish what has been found so far.

    `checkpoint` keeps the system with its tasks that are not finished, so that a restarted job goes on from there. It
    does so only while no generator of tasks is half read, since generators can't be kept.
    """

    ahead: ClassVar[int] = 200
    """So many tasks are handed out at once, at most: the rest stay in the system's generator."""

    system: TaskSystem

    def make_system(self, request: Request) -> TaskSystem:
        """The system that a request asks for; called where the job runs."""
        raise NotImplementedError(f"{type(self).__name__} has no make_system(request)")

    def prepare(self, request: Request) -> None:
        """Make the system."""
        self.system = self.make_system(request)
        if not isinstance(self.system, TaskSystem):
            raise TaskError(
                f"make_system of {type(self).__name__} returned a {type(self.system).__name__}",
                hint="Return an instance of a subclass of grid.TaskSystem",
            )
        self._begin(SystemLife())
        self.system.init_system(self)
        self._life.move(SystemEvent.INITIALISED)

    def _begin(self, life: SystemLife, tasks: Iterable[Task] = ()) -> None:
        self._life = life
        self._pushed = deque(tasks)
        self._source: Iterator[Task | None] | None = None
        self._running: dict[int, Task] = {}
        self._tries: dict[str, int] = {}
        self._generated = 0  # tasks, since generate_tasks was last called

    def checkpoint(self) -> Any:
        """The system and what it waits for; None in the middle of a generator."""
        if self._source is not None:
            return None
        return self.system, [*self._running.values(), *self._pushed], self._life.finished

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.system, tasks, finished = state
        has_begun = bool(finished or tasks)
        self._begin(SystemLife(finished, has_begun=has_begun), tasks)
        self._generated = int(has_begun)

    def progress(self) -> tuple[float, float, str] | None:
        """Tasks that are finished, of those that the system expects."""
        expected = self.system.expected_tasks
        return None if expected is None else (self._life.finished, expected, "tasks")

    def push_task(self, task: Task | None) -> bool:
        """Queue one more task. False: it was None."""
        return self.push_tasks([task])

    def push_tasks(self, tasks: Iterable[Task | None], system: TaskSystem | str | None = None) -> bool:
        """Queue all of them, or none if one of them is no task. None among them is passed over. False: there was none.

        Raises:
            TaskError: One is no task.
        """
        fit = [checked(task, self.system.system_id) for task in tasks if task is not None]
        self._pushed.extend(fit)
        self._generated += len(fit)
        return bool(fit)

    def run(self, handler: ServiceHandler) -> Any:
        """The life of a system: see `TaskSystem`."""
        try:
            return self._live(handler)
        except AbortService:
            handler.ready()  # it may want a checkpoint first; raises the same
            raise

    def _live(self, handler: ServiceHandler) -> Any:
        with handler.units(perform) as units:
            handler.ready()
            while (outcome := live(self._life, self.system, self, self._generate)) is None:
                handler.ready()
                self._hand_out(units)
                if units.under_way:
                    self._take(units)
                else:
                    self._life.move(SystemEvent.USED_UP if self._generated else SystemEvent.DRY)
        result, error = outcome
        if error is not None:
            raise error
        return result

    def _generate(self, system: TaskSystem) -> None:
        self._generated = 0
        made = system.generate_tasks(self)
        if isinstance(made, (list, tuple)):
            self.push_tasks(made)
        else:
            self._source = iter(made or ())

    def _hand_out(self, units: Units) -> None:
        if units.under_way > self.ahead // 2:
            return
        tasks: list[Task] = []
        while len(tasks) < self.ahead - units.under_way:
            if self._pushed:
                tasks.append(self._pushed.popleft())
            elif self._source is None:
                break
            else:
                try:
                    task = next(self._source)
                except StopIteration:
                    self._source = None
                    continue
                if task is not None:
                    tasks.append(checked(task, self.system.system_id))
                    self._generated += 1
        self._running.update(zip(units.put(tasks), tasks, strict=True))

    def _take(self, units: Units) -> None:
        number, answer, error = units.take()
        task = self._running.pop(number)
        result = None
        if error is None:
            result, error = read_answer(answer, task)
        tries = self._tries.pop(task.task_id, 0)
        if error is not None and tries < task.retries:
            self._tries[task.task_id] = tries + 1
            self._pushed.append(task)
            return
        task.finished(result, error)
        self.system.task_finished(self, task, result, error)
        self._life.move(SystemEvent.FINISHED)
