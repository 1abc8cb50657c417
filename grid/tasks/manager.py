"""The task manager of one slave: its worker processes, the tasks that they have, and the results.

A master has one for each host and sends packs to its `staff`. Used alone it is a small pool of its own: `start` makes a
grid of this machine (its zygote forks the workers, no thread of ours does), `push_task` queues, results are queued.

Lives here: `WorkerManager`. Elsewhere: who gets the next pack (`workers.Staff`), running a task (`runner`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from grid.errors import ServerLost, TaskError
from grid.grids.choose import local_host
from grid.grids.grid import Grid
from grid.limits import Limits
from grid.slots.cores import usable_cores
from grid.tasks.abstract import Task, TaskManager
from grid.tasks.life import checked, hear
from grid.tasks.limits import TaskLimits
from grid.tasks.runner import read_answer
from grid.tasks.schedule import Pack, TaskEntry
from grid.tasks.slaves import Slave
from grid.tasks.workers import Hiring, SendFailed, Staff

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy

logger = logging.getLogger(__name__)

_OWN = Limits(stop_s=1.0)
"""Of a grid of our own: what is told to end has finished its tasks, or was given up."""

Record = tuple[Task, Any, BaseException | None]


class WorkerManager(TaskManager):
    """See the module.

    Args:
        num_workers: -1: as many as there are cores that this process may use.
        g: The grid whose servers work, started already; None: `start` makes one of this machine.
        limits: See `TaskLimits`.
    """

    def __init__(
        self, num_workers: int = -1, g: AbstractGrid | None = None, *, limits: TaskLimits | None = None
    ) -> None:
        if num_workers < 1 and num_workers != -1:
            raise ValueError(f"num_workers is -1 (all cores) or at least 1, not {num_workers!r}")
        self._num_workers = usable_cores() if num_workers == -1 else num_workers
        self.identity = ""
        self.address: tuple[str, int] | None = None
        self.limits = limits or TaskLimits()
        self.staff = Staff(self._back)
        self._given, self._grid = g, g
        self._hiring: Hiring | None = None
        self._results: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[TaskEntry] = deque()
        self._outstanding = 0
        self._accepting = False

    # -- life ------------------------------------------------------------------------------------------------------

    def init(self, identity: str, address: tuple[str, int] | None = None) -> None:
        """Tell it who it is and where its master is (host, port; None where the master is this process).

        Raises:
            TaskError: It was started already, and has not been stopped since.
        """
        if self.identity:
            raise TaskError(f"the task manager is {self.identity!r} already", hint="Stop it before another init")
        if not identity:
            raise TaskError("a task manager needs an identity", hint="Give the name of its node")
        self.identity, self.address = identity, address

    def serve_master(self, identity: str, back: Callable[[Pack], None]) -> None:
        """Be the workers of one slave of a master in this process, which hires them; `back` gets packs with answers."""
        self.init(identity)
        self.staff = Staff(back)

    def get_num_workers(self) -> int:
        """How many workers it has, or will have once it is started."""
        return self._num_workers

    def count(self) -> int:
        """How many of a master's workers work here now."""
        self._num_workers = self.staff.size
        return self._num_workers

    def start(self) -> None:
        """Start the workers, and wait for the first.

        Raises:
            TaskError: It was not told who it is, or runs already.
        """
        if not self.identity:
            raise TaskError("the task manager does not know who it is", hint="Call init(identity, address) first")
        if self._hiring is not None:
            raise TaskError(f"the task manager {self.identity!r} runs already", hint="Call stop() before starting anew")
        if self._grid is None:
            self._grid = Grid([local_host(self._num_workers)], output=None, wait="all", limits=_OWN)
        self.staff.want = self._num_workers
        self._hiring = Hiring(self._grid, self._hired, self._nobody_left, retry_s=self.limits.hire_s)
        self._accepting = True
        try:
            self._hiring.start()
        except BaseException:
            self.abandon()
            raise

    def stop(self, timeout: float | None = None) -> None:
        """Stop the workers after the tasks that they have and those that wait; idempotent.

        Args:
            timeout: Seconds for the tasks; then those that are left are abandoned. Default: `limits.stop_s`.
        """
        with self._changed:
            self._accepting = False
        self.wait_for_all(self.limits.stop_s if timeout is None else timeout)
        self.abandon()

    def abandon(self) -> None:
        """Stop the workers at once: tasks that are not finished are given up, and no result comes of them."""
        with self._changed:
            self._accepting = False
            self._waiting.clear()
            pool, self._hiring = self._hiring, None
        if pool is not None:
            pool.stop(self.limits.stop_s)
        if self._given is None and self._grid is not None:
            self._grid.terminate()
            self._grid = None
        with self._changed:
            self._outstanding = 0
            self.staff = Staff(self._back)
            self.identity = ""
            self._changed.notify_all()

    def __enter__(self) -> WorkerManager:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self.abandon()

    def update_pool(self, n: int) -> None:
        """Have `n` workers: surplus ones rest once their tasks are done, more are started where they lack.

        Raises:
            TaskError: The grid is not ours to enlarge, and has fewer servers.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"update_pool({n!r}): a pool has 1 worker or more, a whole number")
        with self._changed:
            lacking = n - max(self._num_workers, len(self.staff.everybody)) if self._hiring is not None else 0
            if lacking > 0 and (self._given is not None or not isinstance(self._grid, Grid)):
                raise TaskError(
                    f"{self.identity!r} has {len(self.staff.everybody)} servers, and {n} workers are asked for",
                    hint="Add hosts to its grid, or slots to its host",
                )
            self._num_workers = self.staff.want = n
            self.staff.adjust()
            grid = self._grid
        if lacking > 0:
            assert isinstance(grid, Grid)
            grid.add_hosts([local_host(lacking)])
        self._feed()

    # -- tasks -----------------------------------------------------------------------------------------------------

    def create_task(self, task_class: Callable[..., Task], /, *args: Any, **kw: Any) -> Task:
        """Make a task, with an id; arguments go to its class."""
        return checked(task_class(*args, **kw), None)

    def push_task(self, task: Task) -> bool:
        """Queue a task for the workers; False if the manager does not run."""
        entry = TaskEntry(checked(task, getattr(task, "system_id", None)))
        with self._changed:
            if not self._accepting:
                return False
            self._waiting.append(entry)
            self._outstanding += 1
        self._feed()
        return True

    def wait_for_all(self, timeout: float | None = None) -> bool:
        """Wait until all tasks that were pushed are finished; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._outstanding == 0, timeout)

    def get_results_queue(self) -> queue.SimpleQueue[Record]:
        """The queue on which (task, result, error) arrive, in the order in which tasks finish."""
        return self._results

    def task_finished(self, task: Task, result: Any, error: BaseException | None) -> None:
        """A task was performed: tell the task. An exception of its `finished` is logged."""
        hear(task, result, error)

    # -- alone: from the queue to the workers and back ---------------------------------------------------------------

    def _hired(self, proxy: Proxy) -> None:
        with self._changed:
            self.staff.hire(proxy)
            self._changed.notify_all()
        self._feed()

    def _nobody_left(self, reason: str) -> None:
        logger.warning("task manager %s has no worker: %s", self.identity, reason)

    def _feed(self) -> None:
        with self._changed:
            while self._waiting and any(worker.packs == 0 for worker in self.staff.working):
                entry = self._waiting.popleft()
                try:
                    self.staff.send(Pack(None, Slave(self.identity), [entry]))
                except SendFailed as exc:
                    entry.sends += 1
                    if exc.contents or entry.sends >= self.limits.sends:
                        self._ended(entry, None, exc.error)
                    else:
                        self._waiting.appendleft(entry)

    def _back(self, pack: Pack) -> None:
        """In the grid's thread: an answer has arrived."""
        (entry,) = pack.entries
        with self._changed:
            if self._hiring is None or pack.worker not in self.staff.everybody:
                return
            self.staff.settle(pack.worker)
            try:
                value, error = read_answer(pack.result.get(0)[0], entry.task)
            except ServerLost as exc:
                self.staff.fire(pack.worker)
                entry.losses += 1
                if entry.losses < self.limits.losses:
                    self._waiting.appendleft(entry)
                else:
                    self._ended(entry, None, exc)
            except Exception as exc:  # the task could not be read there
                self._ended(entry, None, exc)
            else:
                if error is not None and entry.tries < entry.task.retries:
                    entry.tries += 1
                    self._waiting.appendleft(entry)
                else:
                    self._ended(entry, value, error)
        self._feed()

    def _ended(self, entry: TaskEntry, value: Any, error: BaseException | None) -> None:
        self.task_finished(entry.task, value, error)
        self._results.put((entry.task, value, error))
        self._outstanding -= 1
        self._changed.notify_all()
