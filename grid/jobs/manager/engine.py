"""Where jobs and their units run: servers of a grid, or threads of this process.

The manager publishes two instances: `JobRunner`, whose servers run one job each, and `UnitWorker` for units.
They are apart, because a job that waits for its units must not hold the place that they need. A runner mostly sleeps.

Lives here: `Engine`, `Place`; `GridEngine` for any grid, `ThreadEngine` for tests and for machines that shall run
            nothing else.
Elsewhere:  who is given a place (`job_manager.py`, `desk.py`).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from grid.errors import AcquireTimeout, GridError, PublishError, ServerLost
from grid.grids.leftover import LeftOver, UnderWay
from grid.hooks import Hook, Reporter
from grid.jobs.host.messages import Abort
from grid.jobs.host.runner import JobRunner
from grid.jobs.host.worker import UnitWorker
from grid.slots.needs import Needs

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid
    from grid.services.proxy import Proxy

RESTARTS = 1_000_000
"""A runner that is killed is replaced, always."""

STOP_S = 5.0
"""For the thread that stops units to end."""


class Place(Protocol):
    """One runner or worker, ours until released."""

    name: str
    host: str

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the instance; calls are done in order."""

    def release(self) -> None:
        """No more calls will come."""

    def kill(self) -> None:
        """End the process that it is."""

    def end(self) -> None:
        """End the process that it is by force, though it is busy or released."""


class Workers(Protocol):
    """Where a desk gets its workers."""

    def worker(self, timeout: float) -> Place | None:
        """A free one; None if none was free in time.

        Raises:
            PublishError: Needs that cannot be met.
        """

    def dismiss(self) -> None:
        """No more are asked for: what they hold is free."""


class Engine(Protocol):
    """Makes places."""

    paths: list[str]
    """Where servers shall look for modules, too, if they see the same files."""

    def start(self) -> None:
        """Have places ready."""

    def runner(self, timeout: float) -> Place | None:
        """A free runner; None if none was free in time."""

    def worker(self, timeout: float) -> Place | None:
        """A free worker; None if none was free in time."""

    def workers_with(self, needs: Needs) -> Workers:
        """Workers of their own, each with what it needs; published when the first is asked for."""

    def size(self) -> int:
        """How many workers there are."""

    def runners(self) -> int:
        """How many jobs can run at once."""

    def report(self, key: str, tell: Callable[[], Any]) -> None:
        """Add a value under that key to the status of the grid, until `stop`."""

    def stop_units(self, units: Sequence[UnderWay], force_s: float) -> None:
        """Nobody needs these units: stop them, by force after `force_s` seconds. Returns at once."""

    def stop(self) -> None:
        """No more places."""


class _GridPlace:
    def __init__(self, grid: AbstractGrid, proxy: Proxy) -> None:
        self._grid, self._proxy = grid, proxy
        self.name = proxy._server.name
        self.host = proxy._server.host.label

    def call(self, method: str, *args: Any) -> Future[Any]:
        result: Future[Any] = getattr(self._proxy, method)(*args)
        return result

    def release(self) -> None:
        self._grid.release_service(self._proxy)

    def kill(self) -> None:
        try:
            self._proxy.die().result(2.0)
        except ServerLost:
            return
        except Exception:  # it does not answer either: the grid ends it
            self.end()

    def end(self) -> None:
        self._proxy._server.end(force=True)


def _acquire(grid: AbstractGrid, service: str, timeout: float) -> Place | None:
    try:
        return _GridPlace(grid, grid.acquire_service(service, timeout))
    except AcquireTimeout:
        return None


class _GridWorkers:
    """Workers with needs; one thread asks for them and dismisses them."""

    def __init__(self, grid: AbstractGrid, paths: list[str], needs: Needs) -> None:
        self._grid, self._paths, self._needs, self._service = grid, paths, needs, ""

    def worker(self, timeout: float) -> Place | None:
        if not self._service:
            publish: Callable[..., str] = self._grid.publish
            try:
                self._service = publish(UnitWorker(self._paths), restarts=RESTARTS, wait="first", needs=self._needs)
            except PublishError as exc:
                if any(getattr(each, "later", False) for each in exc.failures.values()):
                    time.sleep(timeout)  # somebody has what is needed, and may give it back
                    return None
                raise
        return _acquire(self._grid, self._service, timeout)

    def dismiss(self) -> None:
        if self._service and not self._grid.ishalted():
            with contextlib.suppress(GridError):
                self._grid.terminate(self._service)


class _NoWorkers:
    """Threads of one process share all that it has."""

    def __init__(self, needs: Needs) -> None:
        self._needs = needs

    def worker(self, timeout: float) -> Place | None:
        why = f"units of this service need {self._needs}, and this job server runs them in threads"
        raise PublishError(why, service_id="units", failures={}, hint="Give it a grid")

    def dismiss(self) -> None:
        """There are none."""


class GridEngine:
    """Runners and workers on the servers of a grid; `at_once` jobs run at the same time, at least."""

    def __init__(self, grid: AbstractGrid, at_once: int = 1) -> None:
        self.grid = grid
        self._at_once = at_once
        self._runners: list[str] = []
        self._workers = ""
        self._turn = 0
        self._left_over = LeftOver(grid)
        self._reports: list[Hook] = []
        self.paths: list[str] = []

    def start(self) -> None:
        """Publish both."""
        publish: Callable[..., str] = self.grid.publish
        self._workers = publish(UnitWorker(self.paths), restarts=RESTARTS)
        self._runners = [publish(JobRunner(self.paths), restarts=RESTARTS)]
        while self.runners() < self._at_once:
            self._runners.append(publish(JobRunner(self.paths), restarts=RESTARTS))

    def runner(self, timeout: float) -> Place | None:
        """A free runner, of the service that has one."""
        self._turn += 1
        service = self._runners[self._turn % len(self._runners)]
        for other in self._runners:
            if not self.grid.queues[other].empty():
                service = other
        return self._acquire(service, timeout)

    def worker(self, timeout: float) -> Place | None:
        """A free worker."""
        return self._acquire(self._workers, timeout)

    def workers_with(self, needs: Needs) -> Workers:
        """See `Engine.workers_with`."""
        return _GridWorkers(self.grid, self.paths, needs)

    def _acquire(self, service: str, timeout: float) -> Place | None:
        return _acquire(self.grid, service, timeout)

    def size(self) -> int:
        """Live servers that do units."""
        return self.grid.size(self._workers) if self._workers else 0

    def runners(self) -> int:
        """Jobs that can run at once; a service whose servers have not started counts as one."""
        return sum(max(self.grid.size(service), 1) for service in self._runners)

    def report(self, key: str, tell: Callable[[], Any]) -> None:
        """See `Engine.report`."""
        reporter = Reporter(key, tell)
        self._reports.append(reporter)
        self.grid.hooks = [*self.grid.hooks, reporter]

    def stop_units(self, units: Sequence[UnderWay], force_s: float) -> None:
        """See `Engine.stop_units`."""
        self._left_over.stop(units, force_s)

    def stop(self) -> None:
        """Withdraw both; the grid itself is its owner's."""
        self._left_over.close(STOP_S)
        self.grid.hooks = [each for each in self.grid.hooks if each not in self._reports]
        if not self.grid.ishalted():
            for service in [self._workers, *self._runners]:
                if service:
                    self.grid.terminate(service)


class _ThreadPlace:
    host = "here"

    def __init__(self, name: str, instance: Any, back: queue.SimpleQueue[Any], every: list[_ThreadPlace]) -> None:
        self.name, self._instance, self._back, self._every = name, instance, back, every
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"jobs-{name.replace('/', '-')}")
        every.append(self)
        self._last: Future[Any] | None = None
        self._calls = 0
        self._released = False
        self._killed = False
        self._lock = threading.Lock()

    def call(self, method: str, *args: Any) -> Future[Any]:
        with self._lock:
            self._calls += 1
        future = self._pool.submit(getattr(self._instance, method), *args)  # one thread each: in order
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: Future[Any]) -> None:
        with self._lock:
            self._calls -= 1
            free = self._released and not self._calls and not self._killed
        if free:
            self._back.put(self)

    def release(self) -> None:
        with self._lock:
            self._released = True
            free = not self._calls and not self._killed
        if free:
            self._back.put(self)

    def again(self) -> _ThreadPlace:
        """The same place for its next user."""
        self._released = False
        return self

    def kill(self) -> None:
        """A thread can't be killed: we ask it once more to end and leave it alone, and another takes its place."""
        with self._lock:
            if self._killed:
                return
            self._killed = True
        self.call("exchange", [("message", Abort().to_plain())], 0.0)
        self._pool.shutdown(wait=False)
        self._every.remove(self)  # whatever stops now does not keep it from hearing: it may be busy with a call
        self._back.put(_ThreadPlace(f"{self.name}+", type(self._instance)(), self._back, self._every))

    def end(self) -> None:
        """A thread can't be ended."""

    def stop(self) -> None:
        """No more calls, and none that has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class HerePlace:
    """A runner in a thread of this process, for a job that runs at the manager; it holds a place as others do."""

    host = "here"

    def __init__(self, held: Place) -> None:
        self._held = held
        self.name = f"{held.name} (held)"
        self._runner = JobRunner()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jobs-here")

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the runner here."""
        return self._pool.submit(getattr(self._runner, method), *args)

    def release(self) -> None:
        """The held place is free again."""
        self._pool.shutdown(wait=False)
        self._held.release()

    def kill(self) -> None:
        """See `_ThreadPlace.kill`."""
        self.call("exchange", [("message", Abort().to_plain())], 0.0)

    def end(self) -> None:
        """A thread can't be ended."""


class ThreadEngine:
    """Runs everything in threads of this process. A job that never comes to a safe point can't be ended by force."""

    def __init__(self, workers: int = 2, at_once: int = 2) -> None:
        self._n = {"runner": at_once, "worker": workers}
        self.paths: list[str] = []
        self._free: dict[str, queue.SimpleQueue[_ThreadPlace]] = {}
        self._every: list[_ThreadPlace] = []

    def start(self) -> None:
        """Make the threads."""
        for kind, instance in (("worker", UnitWorker), ("runner", JobRunner)):
            free: queue.SimpleQueue[_ThreadPlace] = queue.SimpleQueue()
            for number in range(self._n[kind]):
                free.put(_ThreadPlace(f"{kind}/{number}", instance(), free, self._every))
            self._free[kind] = free

    def _take(self, kind: str, timeout: float) -> Place | None:
        try:
            return self._free[kind].get(timeout=timeout).again()
        except queue.Empty:
            return None

    def runner(self, timeout: float) -> Place | None:
        """A free runner."""
        return self._take("runner", timeout)

    def worker(self, timeout: float) -> Place | None:
        """A free worker."""
        return self._take("worker", timeout)

    def workers_with(self, needs: Needs) -> Workers:
        """See `Engine.workers_with`."""
        return _NoWorkers(needs)

    def size(self) -> int:
        """Threads that do units."""
        return self._n["worker"]

    def runners(self) -> int:
        """Threads that run jobs."""
        return self._n["runner"]

    def report(self, key: str, tell: Callable[[], Any]) -> None:
        """Nobody asks these threads for their status."""

    def stop_units(self, units: Sequence[UnderWay], force_s: float) -> None:
        """Take back units that have not begun; a thread can't be stopped."""
        for unit in units:
            unit.result.cancel()

    def stop(self) -> None:
        """No more work; threads that work end by themselves."""
        for place in list(self._every):
            place.stop()
