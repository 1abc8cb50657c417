"""The side of an application: its call-backs, and the systems that it has started.

    class Search(Application):
        def get_task_system(self): return MySystem()
        def work_finished(self, result, system_id): print(result)

    with Master(g) as master, master.client(Search()) as client:
        client.wait()

Call-backs run in the master's thread, one at a time; their exceptions are logged. Each is optional.

Lives here: `Application`, `Client`. Elsewhere: who calls them (`systems`, `master`).
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from grid.errors import CallTimeout, TaskError
from grid.tasks.abstract import Task, TaskSystem
from grid.tasks.system import SystemHandle

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger(__name__)


class Application:
    """Call-backs for a client of a master; subclass it."""

    def get_task_system(self) -> TaskSystem | None:
        """The system to begin with; None: `start_processing` is called instead."""
        return None

    def start_processing(self, client: Client) -> None:
        """Begin: start systems and push tasks by `client`."""

    def work_finished(self, result: Any, system_id: str) -> None:
        """A system of ours is complete; `result` is what it gathered, or the error."""

    def task_finished(self, task_id: str, result: Any, error: BaseException | None) -> None:
        """A single task of ours is finished."""

    def push_system_response(self, system_id: str) -> None:
        """The master took a system."""

    def push_system_failed(self, system_id: str | None, error: BaseException) -> None:
        """The master refused a system."""

    def push_tasks_response(self, task_ids: list[str]) -> None:
        """The master took single tasks."""

    def push_tasks_failed(self, task_ids: list[str], error: BaseException) -> None:
        """The master refused tasks."""

    def master_disconnected(self, gracefully: bool) -> None:
        """The master ended: by itself, or by an error."""


class ClientsMaster(Protocol):
    """The part of its master that a client uses."""

    def start_system(self, system: TaskSystem | bytes) -> SystemHandle:
        """Run a system."""

    def push_tasks(self, tasks: Iterable[Task | None]) -> bool:
        """Queue single tasks."""

    def keep(self, handle: SystemHandle) -> None:
        """Keep the outcome of a system that was detached."""

    def forget(self, client: Client) -> None:
        """The client has left."""


class Client:
    """An application's part of a master. When the client ends its systems are removed, except detached ones."""

    def __init__(self, master: ClientsMaster, application: Application) -> None:
        self.client_id = uuid.uuid4().hex
        self.application = application
        self._master = master
        self._handles: dict[str, SystemHandle] = {}
        self._tasks: set[str] = set()
        self._idle = threading.Condition()

    def begin(self) -> None:
        """Start what the application has to start."""
        system = self.application.get_task_system()
        if system is None:
            self.application.start_processing(self)
        else:
            self.push_system(system)

    def push_system(self, system: TaskSystem | bytes) -> SystemHandle:
        """Start a system for this application.

        Raises:
            As `Master.start_system`; the application gets the first call-backs.
        """
        try:
            handle = self._master.start_system(system)
        except Exception as exc:
            self.tell("push_system_failed", getattr(system, "system_id", None), exc)
            raise
        with self._idle:
            self._handles[handle.system_id] = handle
        self.tell("push_system_response", handle.system_id)
        handle.add_done_callback(self._over)
        return handle

    def push_tasks(self, tasks: Iterable[Task | None]) -> list[str]:
        """Queue single tasks, all or none; returns their ids. `task_finished` is called for each.

        Raises:
            TaskError: One of them is no task.
        """
        group = [task for task in tasks if task is not None]
        try:
            for task in group:
                if not isinstance(task, Task):
                    raise TaskError(f"a {type(task).__name__} was given for a task", hint="Subclass grid.Task")
            ids = [task.task_id for task in group]
            for task in group:
                task.__dict__["client_id"] = self.client_id
            with self._idle:
                self._tasks.update(ids)
            self._master.push_tasks(group)
        except Exception as exc:
            self.tell("push_tasks_failed", [task.task_id for task in group if isinstance(task, Task)], exc)
            raise
        self.tell("push_tasks_response", ids)
        return ids

    def detach(self, system_id: str) -> str:
        """Let a system go on without us; `Master.fetch(system_id)` has its result later."""
        with self._idle:
            if system_id not in self._handles:
                raise TaskError("it is none of ours", system_id=system_id, hint="Detach it where it was started")
            handle = self._handles.pop(system_id)
            self._idle.notify_all()
        self._master.keep(handle)
        return system_id

    def wait(self, timeout: float | None = None) -> None:
        """Wait until nothing of ours is under way. Raises TimeoutError."""
        with self._idle:
            if not self._idle.wait_for(lambda: not self._handles and not self._tasks, timeout):
                waiting = "; ".join(handle.doing() for handle in list(self._handles.values())[:4])
                raise CallTimeout(
                    f"{len(self._handles)} systems and {len(self._tasks)} tasks are under way ({waiting})",
                    hint="They go on",
                )

    def close(self) -> None:
        """Leave: systems and tasks of ours are removed, but for those that were detached. Idempotent."""
        with self._idle:
            handles = list(self._handles.values())
            self._tasks.clear()
        self._master.forget(self)
        for handle in handles:
            handle.cancel()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the master's side -----------------------------------------------------------------------------------------

    def owns_task(self, task_id: str) -> bool:
        """Whether it is a single task of ours that is not finished."""
        return task_id in self._tasks

    def task_over(self, task: Task, result: Any, error: BaseException | None) -> None:
        """A single task of ours is finished."""
        self.tell("task_finished", task.task_id, result, error)
        with self._idle:
            self._tasks.discard(task.task_id)
            self._idle.notify_all()

    def give_up(self, error: BaseException) -> None:
        """No single task of ours will be finished any more."""
        with self._idle:
            tasks, self._tasks = self._tasks, set()
        for task_id in sorted(tasks):
            self.tell("task_finished", task_id, None, error)
        with self._idle:
            self._idle.notify_all()

    def _over(self, handle: SystemHandle) -> None:
        with self._idle:
            ours = self._handles.pop(handle.system_id, None) is not None
        if ours:
            result, error = handle.pair(0)
            self.tell("work_finished", result if error is None else error, handle.system_id)
        with self._idle:
            self._idle.notify_all()

    def tell(self, what: str, *facts: Any) -> None:
        """Call back; an error in it is logged and has no other effect."""
        try:
            getattr(self.application, what)(*facts)
        except Exception:
            logger.exception("%s of %s failed", what, type(self.application).__name__)
