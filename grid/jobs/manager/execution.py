"""One active job: a thread that talks with its runner until it ends, is lost, or has to be ended by force.

Lives here: `Execution`: messages in and out, the grace time, what is done when a runner dies.
Elsewhere:  the other end (`host/runner.py`), what follows from what it says (`runs.py`), units
            (`desk.py`).
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections import deque
from typing import Any, Protocol

from grid.errors import GridStopped, ServerLost
from grid.jobs.host.messages import Abort, Message
from grid.jobs.host.service import Service
from grid.jobs.manager.desks import Desks
from grid.jobs.manager.engine import Place
from grid.jobs.record import JobRecord
from grid.jobs.settings import Settings
from grid.text import clean
from grid.wire import raised

logger = logging.getLogger(__name__)

BEGIN_S = 120.0
BUSY_S = 0.01
IDLE_S = (0.03, 0.25)
_Timeout = (TimeoutError, concurrent.futures.TimeoutError)


class _Reports(Protocol):
    """The one that gets the events of a job: `runs.Runs`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def desk(self) -> Desks: ...
    def said(self, job: str, message: Message) -> None: ...
    def improved(self, job: str, value: Any, *, loud: bool) -> None: ...
    def paused(self, job: str, is_paused: bool) -> None: ...
    def store_checkpoint(self, job: str, state: bytes) -> None: ...
    def store_file(self, job: str, name: str, data: bytes) -> None: ...
    def ended(self, job: str, outcome: str, value: Any, error: str, trace: str) -> None: ...
    def suspended(self, job: str, reason: str) -> None: ...
    def lost(self, job: str, why: str) -> None: ...
    def execution_over(self, execution: Execution) -> None: ...


class Execution(threading.Thread):
    """See the module."""

    def __init__(
        self, reports: _Reports, record: JobRecord, service: type[Service], spec: dict[str, Any], place: Place
    ) -> None:
        super().__init__(name=f"job-{record.id}", daemon=True)
        self.record = record
        self._reports, self._service, self._spec, self._place = reports, service, spec, place
        self._lock = threading.Lock()
        self._incoming: deque[tuple[Any, ...]] = deque()
        self._maps: dict[int, int] = {}  # units that are not back, by map
        self._deadline: float | None = None
        self._why = ""
        self._forced_error = False
        self._suspending = False
        self.ready_age = 0.0

    # -- from other threads ----------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """A message for the job."""
        with self._lock:
            self._incoming.append(("message", message.to_plain()))

    @property
    def n_waiting(self) -> int:
        """Messages that the job has not taken in."""
        return len(self._incoming)

    def abort(self, reason: str, grace_s: float) -> None:
        """Ask it to end; after `grace_s` it is ended by force. Asking again may only make that sooner."""
        deadline = time.monotonic() + grace_s
        with self._lock:
            if self._deadline is None:
                self._why = reason
                self._incoming.append(("message", Abort(reason=reason).to_plain()))
                self._deadline = deadline
            self._deadline = min(self._deadline, deadline)

    def fail(self, reason: str) -> None:
        """End it with an error, by force if it does not listen."""
        self.abort(reason, self._reports.settings.abort_grace_s)
        with self._lock:
            self._forced_error = True

    def suspend(self, reason: str, grace_s: float) -> None:
        """The server stops: have a checkpoint, then give the job back."""
        with self._lock:
            self._suspending = True
            self._incoming.append(("suspend", reason))
            self._deadline, self._why = self._deadline or time.monotonic() + grace_s, reason

    def deliver(self, number: int, results: list[tuple[int, bool, Any]]) -> None:
        """Outcomes of units."""
        outcomes = [(index, ok, value if ok else raised.passed_on(value)) for index, ok, value in results]
        with self._lock:
            self._incoming.append(("results", number, outcomes))
            left = self._maps.get(number, 0) - len(results)
            if left > 0:
                self._maps[number] = left
            else:
                self._maps.pop(number, None)

    # -- the thread ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        job = self.record.id
        over = False
        try:
            self._wait_for(self._place.call("begin", self._service, self._spec), BEGIN_S)
            over = self._converse()
            if over:
                self._place.call("finish")
        except ServerLost as exc:
            self._lost(exc)
        except GridStopped:
            self._reports.suspended(job, "the grid was stopped")
        except Exception as exc:
            if not isinstance(exc, _Killed):
                logger.warning("job %s failed outside of its service", job, exc_info=exc)
                self._reports.ended(job, "error", None, clean(f"{type(exc).__name__}: {exc}", 2_000), "")
                self._place.kill()  # its service may still run there
        finally:
            self._reports.execution_over(self)
            try:
                self._place.release()
            except Exception as exc:  # the grid has ended
                logger.debug("could not release %s: %s", self._place.name, exc)

    def _converse(self) -> bool:
        pause = IDLE_S[0]
        while True:
            with self._lock:
                incoming = list(self._incoming)
                self._incoming.clear()
                wait_s = BUSY_S if self._maps or self._deadline is not None else pause
            reply = self._wait_for(self._place.call("exchange", incoming, wait_s), None)
            self.ready_age = reply["ready_age"]
            if reply["paused"] != self.record.is_paused:
                self._reports.paused(self.record.id, reply["paused"])
            if reply["over_limit"] and self._deadline is None:
                self._why, self._forced_error = reply["over_limit"], True
                self._deadline = time.monotonic() + self._reports.settings.abort_grace_s
            for event in reply["events"]:
                if self._take_in(event):
                    return True
            pause = IDLE_S[0] if reply["events"] or incoming else min(IDLE_S[1], pause * 1.5)
            self._enforce()

    def _wait_for(self, future: Any, limit_s: float | None) -> Any:
        end = None if limit_s is None else time.monotonic() + limit_s
        while True:
            try:
                return future.result(0.5)
            except _Timeout:
                if future.done():
                    raise  # the job's own
                self._enforce()
                if end is not None and time.monotonic() > end:
                    raise

    def _enforce(self) -> None:
        """End by force what was asked to end and did not listen."""
        with self._lock:
            late = self._deadline is not None and time.monotonic() > self._deadline
        if not late:
            return
        job, how = self.record.id, "it did not call handler.ready() within the grace time and was killed"
        if self._suspending:
            self._reports.suspended(job, self._why)
        else:
            outcome = "error" if self._forced_error else "aborted"
            self._reports.ended(job, outcome, None, f"{self._why}; {how}", "")
        self._place.kill()
        raise _Killed

    def _take_in(self, event: tuple[Any, ...]) -> bool:
        reports, job = self._reports, self.record.id
        kind = event[0]
        if kind == "message":
            reports.said(job, Message.from_plain(event[1]))
        elif kind == "improved":
            reports.improved(job, event[1], loud=event[2])
        elif kind == "checkpoint":
            reports.store_checkpoint(job, event[1])
        elif kind == "units":
            _, number, key, task, work, attempts = event
            with self._lock:
                self._maps[number] = self._maps.get(number, 0) + len(work)
            reports.desk.add(job, number, key, task, work, attempts, self.deliver)
        elif kind == "unmap":
            with self._lock:
                self._maps.pop(event[1], None)
            reports.desk.drop(job, event[1])
        elif kind == "kept":
            reports.store_file(job, event[1], event[2])
        elif kind == "end":
            _, outcome, value, error, trace = event
            if outcome == "suspended":
                reports.suspended(job, error)
            else:
                reports.ended(job, outcome, value, error, trace)
            return True
        return False

    def _lost(self, exc: ServerLost) -> None:
        with self._lock:
            asked = self._deadline is not None
        if asked and not self._suspending:
            self._reports.ended(self.record.id, "aborted", None, f"{self._why} (its process died: {exc.what})", "")
        else:
            self._reports.lost(self.record.id, str(exc))


class _Killed(Exception):
    """It was ended by force, and that is stored."""
