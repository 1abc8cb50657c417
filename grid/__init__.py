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

import importlib
from typing import TYPE_CHECKING, Any

from grid._version import __version__

if TYPE_CHECKING:
    from grid.errors import (
        AcquireTimeout,
        AllocationError,
        Backlog,
        CallTimeout,
        CapsuleError,
        ConnectError,
        DiskError,
        DuplicateSystem,
        FailureFileError,
        ForkError,
        GridError,
        GridStopped,
        HostError,
        HostKeyError,
        InventoryError,
        LoginError,
        MissingExtra,
        MissingModules,
        NoServers,
        PublishError,
        PythonError,
        Released,
        RemoteError,
        SerialisationError,
        ServerLost,
        ServiceError,
        StagingError,
        Stalled,
        StrategyError,
        SubmitError,
        TaskError,
        UnknownService,
        VersionError,
    )
    from grid.grids.abstract import AbstractGrid
    from grid.grids.batch import BatchGrid
    from grid.grids.dask import DaskGrid as DaskGrid  # not in __all__: `import *` must not need Dask
    from grid.grids.grid import Grid
    from grid.grids.local import LocalGrid
    from grid.grids.ssh import SSHGrid
    from grid.hosts import Host, create_host_list, load_hosts
    from grid.limits import Limits
    from grid.services.bar import progress_bar
    from grid.services.front import GridService
    from grid.services.proxy import Proxy
    from grid.services.result import Result
    from grid.services.server import Server
    from grid.tasks import Task, TaskSystem, run_system

_WHERE = {
    "AbstractGrid": "grid.grids.abstract",
    "BatchGrid": "grid.grids.batch",
    "DaskGrid": "grid.grids.dask",
    "Grid": "grid.grids.grid",
    "GridService": "grid.services.front",
    "Host": "grid.hosts",
    "Limits": "grid.limits",
    "LocalGrid": "grid.grids.local",
    "Proxy": "grid.services.proxy",
    "Result": "grid.services.result",
    "SSHGrid": "grid.grids.ssh",
    "Server": "grid.services.server",
    "Task": "grid.tasks",
    "TaskSystem": "grid.tasks",
    "create_host_list": "grid.hosts",
    "load_hosts": "grid.hosts",
    "progress_bar": "grid.services.bar",
    "run_system": "grid.tasks",
}
_ERRORS = [
    "AcquireTimeout",
    "AllocationError",
    "Backlog",
    "CallTimeout",
    "CapsuleError",
    "ConnectError",
    "DiskError",
    "DuplicateSystem",
    "FailureFileError",
    "ForkError",
    "GridError",
    "GridStopped",
    "HostError",
    "HostKeyError",
    "InventoryError",
    "LoginError",
    "MissingExtra",
    "MissingModules",
    "NoServers",
    "PublishError",
    "PythonError",
    "Released",
    "RemoteError",
    "SerialisationError",
    "ServerLost",
    "ServiceError",
    "StagingError",
    "Stalled",
    "StrategyError",
    "SubmitError",
    "TaskError",
    "UnknownService",
    "VersionError",
]
_WHERE.update(dict.fromkeys(_ERRORS, "grid.errors"))

__all__ = [
    "AbstractGrid",
    "AcquireTimeout",
    "AllocationError",
    "Backlog",
    "BatchGrid",
    "CallTimeout",
    "CapsuleError",
    "ConnectError",
    "DiskError",
    "DuplicateSystem",
    "FailureFileError",
    "ForkError",
    "Grid",
    "GridError",
    "GridService",
    "GridStopped",
    "Host",
    "HostError",
    "HostKeyError",
    "InventoryError",
    "Limits",
    "LocalGrid",
    "LoginError",
    "MissingExtra",
    "MissingModules",
    "NoServers",
    "Proxy",
    "PublishError",
    "PythonError",
    "Released",
    "RemoteError",
    "Result",
    "SSHGrid",
    "SerialisationError",
    "Server",
    "ServerLost",
    "ServiceError",
    "StagingError",
    "Stalled",
    "StrategyError",
    "SubmitError",
    "Task",
    "TaskError",
    "TaskSystem",
    "UnknownService",
    "VersionError",
    "__version__",
    "create_host_list",
    "load_hosts",
    "progress_bar",
    "run_system",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'grid' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(where), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not exc.name.startswith("grid."):
            raise
        value = _absent(name)  # on a host there is only the kernel
    globals()[name] = value
    return value


def _absent(name: str) -> Any:
    def complain(*_: Any, **__: Any) -> None:
        raise ImportError(f"grid.{name} is not on this host: servers run calls, grids are made by the client")

    return type(name, (), {"__init__": complain})


def __dir__() -> list[str]:
    return sorted(__all__)
