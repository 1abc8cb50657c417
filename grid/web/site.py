"""The parts that the routes of one web server share.

Lives here: `Site`: the manager, its tokens, its streams; running what may wait beside the event loop.
Elsewhere:  the routes (`routes.py`), the life of the server (`server.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from grid.jobs.api import QUEUE
from grid.jobs.host.errors import RequestError
from grid.jobs.manager.job_manager import JobManager
from grid.web.caller import Caller
from grid.web.events import Busy, Hubs, ListHub
from grid.web.limits import WebLimits
from grid.web.tokens import Tokens
from grid.web.who import Who

T = TypeVar("T")
THREADS = 8


class Site:
    """See the module. `tokens` None: everybody on this machine may do all."""

    def __init__(self, manager: JobManager, tokens: Tokens | None, limits: WebLimits | None = None) -> None:
        self.manager, self.tokens = manager, tokens
        self.limits = limits or WebLimits()
        self.hubs = Hubs(manager, self.limits)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="web-call")

    async def open(self) -> None:
        """In the event loop, before the first request."""
        nobody = Caller(self.manager, Who(user="", scopes=frozenset(), open=True))
        self._list = await self.hubs.get(QUEUE, nobody)

    async def close(self) -> None:
        """Streams and waits end."""
        self.hubs.close()
        assert isinstance(self._list, ListHub)
        self._list.end_waits()
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    def holds(self, who: Who) -> bool:
        """Whether a caller's token still does."""
        return self.tokens is None or self.tokens.holds(who)

    async def run(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """A call that may wait for a disk, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*arguments, **options))

    async def quick(self, function: Callable[..., T], *arguments: Any) -> T:
        """A call that needs the manager's lock for a moment: here, if nobody has it."""
        lock = self.manager.lock
        if lock.acquire(blocking=False):
            try:
                return function(*arguments)
            finally:
                lock.release()
        return await self.run(function, *arguments)

    async def wait(self, caller: Caller, job: str, timeout: float | None = None) -> dict[str, Any] | None:
        """The details of a job once it has ended; None if that takes longer. Waiting costs no thread."""
        if not isinstance(timeout, (int, float, type(None))) or isinstance(timeout, bool) or timeout != timeout:
            raise RequestError(f"{timeout!r} is no time to wait", hint="Give seconds")
        most = self.limits.wait_s if timeout is None else min(max(float(timeout), 0.0), self.limits.wait_s)
        caller.rights.need("read")
        assert isinstance(self._list, ListHub)
        with self._list.waiting(job) as ended:
            record = caller.rights.record(job)
            if not record.state.ended and not self.hubs.closed:
                try:
                    await asyncio.wait_for(ended, most)
                except asyncio.TimeoutError:
                    return None
            if self.hubs.closed:
                raise Busy("the job server stops", hint="The job goes on when it is back", job=job)
        return caller.rights.record(job).detail()
