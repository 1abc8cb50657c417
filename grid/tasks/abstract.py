"""The five interfaces of a task framework, with their method names: users write some, and can exchange the others.

    TaskSystem            makes tasks until it is complete, and gathers one result        the user's
    Task                  one piece of work: called on a worker                           the user's
    TaskScheduleStrategy  rates slaves, names the next one                                ready ones in `strategies`
    TaskScheduler         queues tasks and hands them out                                 `scheduler.Scheduler`
    TaskManager           the worker processes of one slave                               `manager.WorkerManager`

A *slave* is a host with its *workers*, the servers there. The *master* is whoever runs the systems.

Lives here: names, and what may be left out. It stands on nothing, because hosts get it with the runner.
Elsewhere:  everything that happens.
"""

from __future__ import annotations

import itertools
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_PREFIX = uuid.uuid4().hex[:12]
_count = itertools.count(1)


class Task(ABC):
    """One piece of work; subclass it, give it data in the constructor, and do the work in `__call__`.

    It travels to a worker, is called there, and comes back with whatever it left on itself.

    `name`: for statistics and messages; the class's name where it is empty. `system_id`: of the system that made it,
    None for a single task. `client_id`: whose system that is. `slave_id`: the slave that had it last. `retries`: how
    often it is run again if it raises. `prefers`: names of slaves near its data, for the strategy `Locality`.
    """

    name: str = ""
    system_id: str | None = None
    client_id: str | None = None
    slave_id: str | None = None
    retries: int = 0
    prefers: Sequence[str] = ()
    _task_id: str | None = None

    def __init__(self, name: str = "", system_id: str | None = None, client_id: str | None = None) -> None:
        for key, value in (("name", name), ("system_id", system_id), ("client_id", client_id)):
            if value:
                setattr(self, key, value)

    @property
    def task_id(self) -> str:
        """Unique; made when it is first asked for, at the latest when the task is queued."""
        if self._task_id is None:
            self.__dict__["_task_id"] = f"{_PREFIX}-{next(_count)}"
        assert self._task_id is not None
        return self._task_id

    @abstractmethod
    def __call__(self) -> Any:
        """On the worker: do the work and return its result. An exception becomes the task's error."""

    def clean_up(self) -> None:  # noqa: B027 - may be left out
        """On the worker, just before result and task are sent back: drop input data that nobody needs any more."""

    def finished(self, result: Any, error: BaseException | None) -> None:  # noqa: B027
        """On the master, before the system hears of it."""

    def __repr__(self) -> str:
        return f"<{self.name or type(self).__name__} {self.task_id}>"


class TaskSystem(ABC):
    """Makes tasks until it is complete. Its constructor runs where you make it; the master works on a copy.

    All methods but the constructor are called by the master, one at a time, in one thread: `init_system` once, then
    `generate_tasks`, then for each finished task `task_finished` and `is_complete`, at the end `gather_result`.

    `expected_tasks`: how many there will be, if that is known; for the progress bar. `needs`: what each worker needs
    that has its tasks (a `grid.Needs`): cores, memory, devices of its own; None for nothing.
    """

    expected_tasks: int | None = None
    needs: Any = None
    _system_id: str | None = None

    def __new__(cls, *_: Any, **__: Any) -> TaskSystem:
        # Not in __init__, which subclasses forget to call. A copy gets the original's id with its state.
        self = super().__new__(cls)
        self.__dict__["_system_id"] = uuid.uuid4().hex  # also where a frozen dataclass is a system
        return self

    @property
    def system_id(self) -> str:
        """Unique; a random one unless set before the system is started."""
        assert self._system_id is not None
        return self._system_id

    def get_system_id(self) -> str:
        """The same as `system_id`."""
        return self.system_id

    @abstractmethod
    def init_system(self, master: Any) -> None:
        """Once, before tasks are generated."""

    @abstractmethod
    def generate_tasks(self, master: Any) -> Iterable[Task | None]:
        """The first tasks; asked again when all are finished and the system is not complete.

        A generator is read only as fast as workers take tasks, so it may yield millions, or never end. None is passed
        over. Nothing at all, while the system is not complete, ends it as stalled.
        """

    @abstractmethod
    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        """A task of this system is finished: `result`, or None and the `error`. May push more by the master."""

    @abstractmethod
    def is_complete(self, master: Any) -> bool:
        """Whether the result can be gathered; tasks that are left over are dropped then."""

    @abstractmethod
    def gather_result(self, master: Any) -> Any:
        """Once, when it is complete: (result, error), or the bare result."""


class TaskScheduleStrategy(ABC):
    """Decides which slave gets the next task. All methods are called by the scheduler's thread alone."""

    def setup(self, scheduler: TaskScheduler, master: Any) -> None:
        """Before anything else; the default stores both."""
        self.scheduler = scheduler
        self.master = master

    @abstractmethod
    def rate(self, slave: Any) -> float:
        """How unsuited a slave is: 0 is best, less is better, infinity is worst. See `slaves.Slave`."""

    @abstractmethod
    def get_next_slave(self) -> str | None:
        """Id of the best slave that is active and has room; None if there is none now."""

    def get_next_slave_for(self, task: Task) -> str | None:
        """The same, for a reader that wants to see the task."""
        return self.get_next_slave()

    def changed(self, slave: Any) -> None:  # noqa: B027
        """Load, speed, room or state of a slave changed."""

    def rerate(self, slaves: Iterable[Any]) -> None:  # noqa: B027
        """Slaves came or went: these are all."""


class TaskScheduler(ABC):
    """Queues tasks and hands them to slaves."""

    @abstractmethod
    def setup(self, master: Any) -> None:
        """Connect scheduler, queue and strategy, and start."""

    @abstractmethod
    def rate_slaves(self) -> None:
        """Rate all active slaves again: the registry changed."""

    @abstractmethod
    def start_system(self, task_system: TaskSystem) -> Any:
        """Generate and queue its tasks."""

    @abstractmethod
    def push_task(self, task: Task | None) -> bool:
        """Queue one task; None is ignored. True if it was accepted."""

    @abstractmethod
    def push_tasks(self, tasks: Iterable[Task | None]) -> bool:
        """Queue all of them, or none."""

    @abstractmethod
    def handle_task(self, task: Task) -> bool:
        """Send a task to the next slave; back to the head of its queue if there is none or sending fails."""

    @abstractmethod
    def _tasked_pushed(self, slave_id: str) -> None:
        """A slave got a task."""

    @abstractmethod
    def task_finished(self, task: Task, result: Any, error: BaseException | None) -> None:
        """A slave is done with a task."""


class TaskManager(ABC):
    """The worker processes of one slave."""

    @abstractmethod
    def init(self, identity: str, address: tuple[str, int] | None) -> None:
        """Tell it who it is and where its master is. Before `start`; again only after `stop`."""

    @abstractmethod
    def get_num_workers(self) -> int:
        """How many worker processes it has, or will have."""

    @abstractmethod
    def start(self) -> None:
        """Start the workers."""

    @abstractmethod
    def stop(self) -> None:
        """Stop them, after the tasks that they have."""

    @abstractmethod
    def update_pool(self, n: int) -> None:
        """Have `n` workers from now on; no task is lost."""

    @abstractmethod
    def push_task(self, task: Task) -> bool:
        """Queue a task for the workers; False if it is not accepted."""

    @abstractmethod
    def wait_for_all(self, timeout: float | None = None) -> bool:
        """Wait until all tasks that were pushed are finished."""

    @abstractmethod
    def get_results_queue(self) -> Any:
        """The queue on which (task, result, error) arrive."""

    @abstractmethod
    def create_task(self, task_class: Callable[..., Task], /, *args: Any, **kw: Any) -> Task:
        """Make a task, with an id; arguments go to its class."""

    @abstractmethod
    def task_finished(self, task: Task, result: Any, error: BaseException | None) -> None:
        """A task was performed: tell the task."""


ITask = Task
ITaskSystem = TaskSystem
ITaskScheduleStrategy = TaskScheduleStrategy
ITaskScheduler = TaskScheduler
ITaskManager = TaskManager


def as_pair(gathered: Any) -> tuple[Any, BaseException | None]:
    """(result, error) from what `gather_result` returned.

    A pair counts as such if its second part is None or an exception; anything else is a bare result.
    """
    if isinstance(gathered, tuple) and len(gathered) == 2 and isinstance(gathered[1], (BaseException, type(None))):
        return gathered[0], gathered[1]
    return gathered, None
