"""grid: run your Python objects on hosts that you can reach by SSH or qsub.

    from grid import LocalGrid, SSHGrid

    with SSHGrid(["node1", "node2"]) as g:
        service_id = g.publish(Energy(model))
        with g.acquire_service(service_id) as energy:
            print(energy.of(pose).get())

Names are loaded when they are first used, so that `import grid` is quick, and so that a module which says
`from grid import LocalGrid` can be imported on a host, where only grid's kernel is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from grid import errors as _errors
from grid._version import __version__ as __version__
from grid.errors import *  # noqa: F403 - each error has its name there, and on this page, too
from grid.lazy import lazily

if TYPE_CHECKING:
    from grid.commands.outcome import CommandRun as CommandRun
    from grid.commands.template import In as In
    from grid.commands.template import Out as Out
    from grid.grids.abstract import AbstractGrid as AbstractGrid
    from grid.grids.batch import BatchGrid as BatchGrid
    from grid.grids.dask import DaskGrid as DaskGrid
    from grid.grids.grid import Grid as Grid
    from grid.grids.local import LocalGrid as LocalGrid
    from grid.grids.ssh import SSHGrid as SSHGrid
    from grid.hosts import Host as Host
    from grid.hosts import create_host_list as create_host_list
    from grid.hosts import load_hosts as load_hosts
    from grid.limits import Limits as Limits
    from grid.services.bar import progress_bar as progress_bar
    from grid.services.front import GridService as GridService
    from grid.services.proxy import Proxy as Proxy
    from grid.services.result import Result as Result
    from grid.services.retry import Attempt as Attempt
    from grid.services.retry import Retry as Retry
    from grid.services.server import Server as Server
    from grid.services.stream import Stream as Stream
    from grid.services.table import ServiceId as ServiceId
    from grid.slots.needs import Needs as Needs
    from grid.tasks import Task as Task
    from grid.tasks import TaskSystem as TaskSystem
    from grid.tasks import run_system as run_system
    from grid.wire.remote_path import RemotePath as RemotePath

_names, __getattr__, _dir = lazily(
    __name__,
    {
        "grid.commands.outcome": ["CommandRun"],
        "grid.commands.template": ["In", "Out"],
        "grid.grids.abstract": ["AbstractGrid"],
        "grid.grids.batch": ["BatchGrid"],
        "grid.grids.dask": ["DaskGrid"],
        "grid.grids.grid": ["Grid"],
        "grid.grids.local": ["LocalGrid"],
        "grid.grids.ssh": ["SSHGrid"],
        "grid.hosts": ["Host", "create_host_list", "load_hosts"],
        "grid.limits": ["Limits"],
        "grid.services.bar": ["progress_bar"],
        "grid.services.front": ["GridService"],
        "grid.services.proxy": ["Proxy"],
        "grid.services.result": ["Result"],
        "grid.services.stream": ["Stream"],
        "grid.services.server": ["Server"],
        "grid.services.table": ["ServiceId"],
        "grid.services.retry": ["Attempt", "Retry"],
        "grid.slots.needs": ["Needs"],
        "grid.tasks": ["Task", "TaskSystem", "run_system"],
        "grid.wire.remote_path": ["RemotePath"],
    },
    "servers run calls, grids are made by the client",
)
# `import *` must not need Dask
__all__ = sorted({*_names, *_errors.__all__, "__version__"} - {"DaskGrid"})


def __dir__() -> list[str]:
    return __all__
