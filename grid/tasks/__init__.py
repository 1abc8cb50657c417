"""Task systems: objects that make tasks until they are done, run over the servers of a grid.

    from grid import Task, TaskSystem, run_system

    result = run_system(Search(...))               # on the grid that this place offers, with a progress bar
    with Master(g, strategy=Weighted()) as master: # several systems at once, on a grid of yours
        one, two = master.start_system(a), master.start_system(b)
        print(one.get(), two.get())

Names are loaded when they are first used: on a host only `abstract`, `command`, `life`, `runner` and `service` are
there, and a user's module that says `from grid.tasks import Task, run_system` must be importable there, too.

    abstract     what users write, and the interfaces: stands on nothing
    life         what a system does next: pure
    slaves, strategies, schedule, statistics    who gets which task: pure, no clock, thread or socket
    command      a task that is an executable with files in and out
    runner       what is published: runs tasks on a server; parcel: how things travel
    service      a system as a job
    workers, manager, attendance    servers, the workers of a slave, slaves that come and go
    system, application, systems    the handle of a system, who asks, all that are under way
    loop, scheduler, master, run    the thread, what goes out and comes back, the shell, one call for all of it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grid.lazy import lazily

if TYPE_CHECKING:
    from grid.tasks.abstract import ITask as ITask
    from grid.tasks.abstract import ITaskManager as ITaskManager
    from grid.tasks.abstract import ITaskScheduler as ITaskScheduler
    from grid.tasks.abstract import ITaskScheduleStrategy as ITaskScheduleStrategy
    from grid.tasks.abstract import ITaskSystem as ITaskSystem
    from grid.tasks.abstract import Task as Task
    from grid.tasks.abstract import TaskManager as TaskManager
    from grid.tasks.abstract import TaskScheduler as TaskScheduler
    from grid.tasks.abstract import TaskScheduleStrategy as TaskScheduleStrategy
    from grid.tasks.abstract import TaskSystem as TaskSystem
    from grid.tasks.application import Application as Application
    from grid.tasks.application import Client as Client
    from grid.tasks.command import CommandTask as CommandTask
    from grid.tasks.limits import TaskLimits as TaskLimits
    from grid.tasks.manager import WorkerManager as WorkerManager
    from grid.tasks.master import Master as Master
    from grid.tasks.parcel import pack_system as pack_system
    from grid.tasks.parcel import unpack_system as unpack_system
    from grid.tasks.run import run_system as run_system
    from grid.tasks.runner import TaskStopped as TaskStopped
    from grid.tasks.scheduler import Scheduler as Scheduler
    from grid.tasks.service import SystemService as SystemService
    from grid.tasks.slaves import Slave as Slave
    from grid.tasks.strategies import LeastLoaded as LeastLoaded
    from grid.tasks.strategies import Locality as Locality
    from grid.tasks.strategies import RatedStrategy as RatedStrategy
    from grid.tasks.strategies import RoundRobin as RoundRobin
    from grid.tasks.strategies import Weighted as Weighted
    from grid.tasks.system import SystemHandle as SystemHandle

__all__, __getattr__, __dir__ = lazily(
    __name__,
    {
        "grid.tasks.abstract": [
            *("Task", "TaskManager", "TaskScheduleStrategy", "TaskScheduler", "TaskSystem"),
            *("ITask", "ITaskManager", "ITaskScheduleStrategy", "ITaskScheduler", "ITaskSystem"),
        ],
        "grid.tasks.application": ["Application", "Client"],
        "grid.tasks.command": ["CommandTask"],
        "grid.tasks.limits": ["TaskLimits"],
        "grid.tasks.manager": ["WorkerManager"],
        "grid.tasks.master": ["Master"],
        "grid.tasks.parcel": ["pack_system", "unpack_system"],
        "grid.tasks.run": ["run_system"],
        "grid.tasks.runner": ["TaskStopped"],
        "grid.tasks.scheduler": ["Scheduler"],
        "grid.tasks.service": ["SystemService"],
        "grid.tasks.slaves": ["Slave"],
        "grid.tasks.strategies": ["LeastLoaded", "Locality", "RatedStrategy", "RoundRobin", "Weighted"],
        "grid.tasks.system": ["SystemHandle"],
    },
    "servers run tasks, systems are run by the client",
)
