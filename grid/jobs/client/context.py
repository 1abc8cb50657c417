"""Which job server a script talks to: that of the `with` block, else the default.

    with service:                # for this thread, or asyncio task, and what they start with a copied context
        job = Fit.submit(...)    # goes to `service`

Lives here: the stack, `default_service`, `local_service`, `remote_service`, `open_service`.
Elsewhere:  what a service can do (`proxy.py`).
"""

from __future__ import annotations

import atexit
import contextvars
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from grid.jobs.client.proxy import ServerProxy
from grid.jobs.host.errors import JobError, RequestError

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.jobs.manager.job_manager import JobManager
    from grid.jobs.settings import Settings

DEFAULT = "default"
"""Name of a `grid serve` that was given none."""

_stack: contextvars.ContextVar[tuple[ServerProxy, ...]] = contextvars.ContextVar("grid_jobs", default=())
_lock = threading.RLock()
_local: ServerProxy | None = None
_bottom: dict[str, ServerProxy] = {}


def push(service: ServerProxy) -> None:
    """Make it the default here; what `with service:` does."""
    _stack.set((*_stack.get(), service))


def pop(service: ServerProxy) -> None:
    """End the innermost block, which must be that service's."""
    stack = _stack.get()
    if not stack or stack[-1] is not service:
        raise JobError("this service is not the innermost one", hint="Leave the blocks in the order of entering them")
    _stack.set(stack[:-1])


def default_service() -> ServerProxy:
    """The service that a script talks to: the first of these that there is.

    1. That of the innermost `with` block.
    2. The one that $GRID_JOBS names; `local` is the one of this process.
    3. The one of this process, if it is used already.
    4. A running `grid serve` of this user on this machine, by its usual name `default`: as the commands do.
    5. The one of this process.
    """
    stack = _stack.get()
    if stack:
        return stack[-1]
    named = os.environ.get("GRID_JOBS")
    if not named and (_local is None or _local.closed) and _serves(DEFAULT):
        named = DEFAULT
    if not named or named == "local":
        return local_service()
    with _lock:
        service = _bottom.get(named)
        if service is None or service.closed:
            service = _bottom[named] = remote_service(named)
        return service


def _serves(name: str) -> bool:
    from grid.jobs.line.client import answers

    return answers(name)


def choose_service(service: Any = None) -> ServerProxy:
    """An explicit service (one, or its address), else the default."""
    if service is None:
        return default_service()
    if isinstance(service, str):
        return remote_service(service)
    if not isinstance(service, ServerProxy):
        raise RequestError(f"{service!r} is no job service", hint="Use local_service(), or a name for remote_service")
    return service


def local_service() -> ServerProxy:
    """The job server in this process, made when it is first used: jobs in `data_directory()`, servers of this machine.

    It ends with the process, and jobs that are not done go on when the next one uses it.
    """
    global _local
    with _lock:
        if _local is None or _local.closed:
            _local = make_service()
            atexit.register(_local.close)
        return _local


def make_service(
    store: str | os.PathLike[str] | None = None,
    grid: AbstractGrid | None = None,
    *,
    engine: Any = None,
    settings: Settings | None = None,
    at_once: int = 1,
    directory: str | os.PathLike[str] | None = None,
    user: str | None = None,
    services: Any = (),
) -> ServerProxy:
    """A job server of one's own in this process; `close()` ends it.

    Args:
        store: A directory (SQLite), or the URL of a database; default: `data_directory()`.
        grid: Where jobs run; default: `Grid.auto()`, which then ends with the service.
        engine: Instead of a grid, see `manager/engine.py`.
        at_once: How many jobs run at the same time, at least; a grid of n servers runs n.
        directory: Where output files lie, if `store` is a URL.
        services: Classes to begin with; others are registered as they are used.
    """
    # here, so that a client of a server elsewhere needs no database
    from grid.jobs.server import Server
    from grid.jobs.serving import open_server

    server = open_server(
        store, grid, engine=engine, settings=settings, at_once=at_once, directory=directory, services=services
    )
    proxy = ServerProxy(Server(server.manager), user)
    proxy._on_close.append(server.close)
    proxy._on_close.append(lambda: _tell_unfinished(server.manager))
    return proxy


def _tell_unfinished(manager: JobManager) -> None:
    """Say which jobs wait now that their server ends: nothing runs them until the next one."""
    left = [record.id for record in list(manager.records.values()) if not record.state.ended]
    if left:
        named = ", ".join(left[:5]) + (f" and {len(left) - 5:,} more" if len(left) > 5 else "")
        jobs, them = ("job is", "it") if len(left) == 1 else ("jobs are", "them")
        print(
            f"grid: {len(left):,} {jobs} not done ({named}), and this script's job server ends. The next script or "
            f"`grid serve` with the store {manager.store.directory} runs {them}. To wait here call job.wait().",
            file=sys.stderr,
        )


@contextmanager
def open_service(*arguments: Any, **options: Any) -> Iterator[ServerProxy]:
    """`make_service` as a context: the default of what is submitted inside, ended at the end."""
    service = make_service(*arguments, **options)
    try:
        with service:
            yield service
    finally:
        service.close()


def remote_service(address: str, user: str | None = None, token: str | None = None) -> ServerProxy:
    """A job server elsewhere.

    Args:
        address: `unix:/path/of/socket`, `https://host:port`, or a short name: of a running `grid serve --name`, of
            `grid login --name`, or in the servers file.
        token: Where the server wants one; default: $GRID_JOBS_TOKEN, then that of `grid login`.
    Raises:
        JobError: It can't be found or reached.
        AccessError: It does not know you.
    """
    from grid.jobs.line.client import connect

    server = connect(address)
    try:
        return ServerProxy(server, user, token or os.environ.get("GRID_JOBS_TOKEN"))
    except BaseException:
        server.close()
        raise
