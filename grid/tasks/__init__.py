"""Task systems: objects that make tasks until they are done, run over the servers of a grid.

    from grid import Task, TaskSystem, run_system

    result = run_system(Search(...))               # on the grid that this place offers, with a progress bar
    with Master(g, strategy=Weighted()) as master: # several systems at once, on a grid of yours
        one, two = master.start_system(a), master.start_system(b)
        print(one.get(), two.get())

Names are loaded when they are first used: on a host only `abstract`, `life`, `runner` and `service` are there, and a
user's module that says `from grid.tasks import Task, run_system` must be importable there, too.

    abstract     what users write, and the interfaces: stands on nothing
    life         what a system does next: pure
    slaves, strategies, schedule, statistics    who gets which task: pure, no clock, thread or socket
    runner       what is published: runs tasks on a server; parcel: how things travel
    service      a system as a job
    workers, manager, attendance    servers, the workers of a slave, slaves that come and go
    system, application, systems    the handle of a system, who asks, all that are under way
    loop, scheduler, master, run    the thread, what goes out and comes back, the shell, one call for all of it
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grid.tasks.abstract import (
        ITask,
        ITaskManager,
        ITaskScheduler,
        ITaskScheduleStrategy,
        ITaskSystem,
        Task,
        TaskManager,
        TaskScheduler,
        TaskScheduleStrategy,
        TaskSystem,
    )
    from grid.tasks.application import Application, Client
    from grid.tasks.limits import TaskLimits
    from grid.tasks.manager import WorkerManager
    from grid.tasks.master import Master
    from grid.tasks.parcel import pack_system, unpack_system
    from grid.tasks.run import run_system
    from grid.tasks.runner import TaskStopped
    from grid.tasks.scheduler import Scheduler
    from grid.tasks.service import SystemService
    from grid.tasks.slaves import Slave
    from grid.tasks.strategies import LeastLoaded, Locality, RatedStrategy, RoundRobin, Weighted
    from grid.tasks.system import SystemHandle

_WHERE = {
    **dict.fromkeys(["Task", "TaskSystem", "TaskManager", "TaskScheduler", "TaskScheduleStrategy"], "abstract"),
    **dict.fromkeys(["ITask", "ITaskSystem", "ITaskManager", "ITaskScheduler", "ITaskScheduleStrategy"], "abstract"),
    **dict.fromkeys(["LeastLoaded", "Locality", "RatedStrategy", "RoundRobin", "Weighted"], "strategies"),
    **dict.fromkeys(["Application", "Client"], "application"),
    **dict.fromkeys(["pack_system", "unpack_system"], "parcel"),
    "Master": "master",
    "Scheduler": "scheduler",
    "Slave": "slaves",
    "SystemHandle": "system",
    "SystemService": "service",
    "TaskLimits": "limits",
    "TaskStopped": "runner",
    "WorkerManager": "manager",
    "run_system": "run",
}

__all__ = [
    "Application",
    "Client",
    "ITask",
    "ITaskManager",
    "ITaskScheduleStrategy",
    "ITaskScheduler",
    "ITaskSystem",
    "LeastLoaded",
    "Locality",
    "Master",
    "RatedStrategy",
    "RoundRobin",
    "Scheduler",
    "Slave",
    "SystemHandle",
    "SystemService",
    "Task",
    "TaskLimits",
    "TaskManager",
    "TaskScheduleStrategy",
    "TaskScheduler",
    "TaskStopped",
    "TaskSystem",
    "Weighted",
    "WorkerManager",
    "pack_system",
    "run_system",
    "unpack_system",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'grid.tasks' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"grid.tasks.{where}"), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not exc.name.startswith("grid."):
            raise
        value = _absent(name)  # on a host there is only what tasks need
    globals()[name] = value
    return value


def _absent(name: str) -> Any:
    def complain(*_: Any, **__: Any) -> None:
        raise ImportError(f"grid.tasks.{name} is not on this host: servers run tasks, systems are run by the client")

    return type(name, (), {"__init__": complain})


def __dir__() -> list[str]:
    return sorted(__all__)
