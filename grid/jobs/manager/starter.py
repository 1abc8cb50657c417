"""Gives pending jobs a place, one after the other, or the remembered result of an equal one.

    Dispatch --next--> remembered? --yes--> complete
                       computed by another right now? --yes--> parked until that one ends
                       else --> active, and an `Execution` begins in a free place

Thread: `jobs-start`. It alone begins jobs, so between two looks at a job nobody else has begun it; somebody may have
cancelled it, which is looked at again under the lock.

Lives here: `Starter`.
Elsewhere:  which job is next (`dispatch.py`), what results are remembered by (`memory.py`), places (`engine.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from grid.errors import GridError
from grid.jobs.conditions.tree import atoms_in
from grid.jobs.host.errors import RequestError, StoreError, UnknownJob, UnknownJobService
from grid.jobs.host.plain import from_plain, to_plain
from grid.jobs.host.references import jobs_in, part_of
from grid.jobs.manager.conditions import Conditions
from grid.jobs.manager.dispatch import Dispatch
from grid.jobs.manager.engine import Engine, HerePlace, Place
from grid.jobs.manager.execution import Execution
from grid.jobs.manager.fitting import Fitting
from grid.jobs.manager.memory import Memory, memo_key, versions
from grid.jobs.manager.registry import ServiceRegistry
from grid.jobs.manager.runs import Runs
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from grid.text import clean

logger = logging.getLogger(__name__)

PLACE_S = 0.5
"""For a free place, before the next look at what waits."""


class Starter:
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        registry: ServiceRegistry,
        conditions: Conditions,
        dispatch: Dispatch,
        fitting: Fitting,
        memory: Memory,
        runs: Runs,
    ) -> None:
        self._book, self._engine, self._registry, self._conditions = runs.book, engine, registry, conditions
        self._dispatch, self._fitting, self._memory, self._runs = dispatch, fitting, memory, runs
        self._thread = threading.Thread(target=self._start_jobs, name="jobs-start", daemon=True)
        self._book.on_move.append(self._moved)

    def start(self) -> None:
        """Begin to give places."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Once the manager has halted: until the thread has ended. Harmless if it never began."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def add(self, record: JobRecord) -> None:
        """A job is pending. The caller has the lock."""
        self._dispatch.add(record)
        self._book.news.notify_all()

    def service_came(self, service: str) -> None:
        """A service is here, or as it was: jobs that waited for it can start. The caller has the lock."""
        for record in self._dispatch.service_came(service):
            self._book.mark(record, reason="")
        self._book.news.notify_all()

    def _moved(self, record: JobRecord) -> None:
        """It may be pending now."""
        if record.state is JobState.PENDING:
            self.add(record)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _next(self) -> JobRecord | None:
        choice = self._dispatch.choose(self._runs.owners(), self._fitting.why_not)
        for record, why in choice.waits:
            self._book.mark(record, reason=why)
        return choice.record

    def _start_jobs(self) -> None:
        book = self._book
        while True:
            with book.news:
                while not book.stopping and self._next() is None:
                    book.news.wait(5.0)
                if book.stopping:
                    return
            try:
                place = self._engine.runner(PLACE_S)
            except GridError as exc:
                if book.halted.wait(PLACE_S):
                    return
                logger.warning("no runner: %s", exc)
                continue
            if place is not None and not self._fill(place):
                place.release()

    def _fill(self, place: Place) -> bool:
        """Begin the next job in that place; False: no job needs it."""
        while True:
            with self._book.lock:
                record = None if self._book.stopping else self._next()
            if record is None:
                return False
            try:
                if self._begin(record, place):
                    return True
            except StoreError as exc:
                logger.warning("%s; trying again", exc)
                if self._book.halted.wait(1.0):
                    return False

    def _begin(self, record: JobRecord, place: Place) -> bool:
        """Give a pending job that place, or what is remembered of an equal one; False if the place is free still.

        Reading files for the key, and copying files of a remembered job, may take time: the lock is free meanwhile.
        """
        key, known = "", None
        if record.use_memo:
            try:
                with self._book.lock:
                    facts = self._memo_facts(record)
                key = memo_key(*facts)
                with self._book.lock:
                    other = self._memory.claim(key, record.id)
                    if other is not None:
                        self._book.mark(record, reason=f"{other} computes the same")
                        self._dispatch.park(record.id)
                        return False
                known = self._memory.recall(key, record.id)
            except StoreError:
                with self._book.lock:
                    self._runs.release_memory(record.id)
                raise
            except Exception as exc:
                return self._activate(record, place, "", None, clean(f"{type(exc).__name__}: {exc}", 2_000))
        return self._activate(record, place, key, known, "")

    def _memo_facts(self, record: JobRecord) -> tuple[Any, ...]:
        """What `memo_key` takes."""
        service = self._registry.find(record.service, record.version)
        request = {**record.request, "data": self._resolved(record.request["data"])}
        given = jobs_in(record.request["data"]) | jobs_in(record.inputs)
        stood_on: list[dict[str, Any]] = []
        for atom in atoms_in(record.condition):
            kind = atom["atom"]
            if kind == "fetched":
                stood_on.append({"url": atom["url"], "file": str(self._conditions.fetched(atom["url"]))})
            elif kind == "elsewhere":
                stood_on.append({"elsewhere": record.id})  # nothing is known of that job: never the same
            elif kind != "servers":
                stood_on.append(self._known_of(str(atom["job"]), values=atom["job"] not in given))
        own = self._memory.own(record.id)
        return service, request, self._resolved(record.inputs), stood_on, own

    def _known_of(self, job: str, *, values: bool) -> dict[str, Any]:
        other = self._book.records.get(job)
        if other is None:
            return {"job": job}
        try:
            software = versions(self._registry.find(other.service, other.version).requires)
        except (UnknownJobService, RequestError):
            software = {}
        known = {"service": other.service, "version": other.version, "software": software, "state": str(other.state)}
        if values:
            known |= {"result": other.result, "memo": other.memo}
        return known

    def _activate(self, record: JobRecord, place: Place, key: str, known: tuple[str, Any] | None, trouble: str) -> bool:
        """Begin a job in that place; False if it needs none: its result is `known`, or there is `trouble`."""
        with self._book.lock:
            if self._book.stopping or record.state is not JobState.PENDING:  # cancelled meanwhile
                self._runs.release_memory(record.id)
                return False
            self._book.move(record, JobState.ACTIVE, attempt=record.attempt + 1, started=time.time(), reason="")
            if known is not None:
                self._book.mark(record, reason=f"remembered from {known[0]}")
                self._runs.end(record, "complete", known[1], "", "")
                return False
            self._book.mark(record, memo=key)
            try:
                if trouble:
                    raise RequestError(trouble)
                self._execute(record, place)
            except StoreError:
                raise
            except Exception as exc:
                said = trouble or clean(f"{type(exc).__name__}: {exc}", 2_000)
                self._runs.end(record, "error", None, said, "")
                return False
        return True

    def _execute(self, record: JobRecord, place: Place) -> None:
        """Start the thread of a job that is active now."""
        service = self._registry.find(record.service, record.version)
        settings = self._book.settings
        spec = {
            "job": record.id,
            "request": {**record.request, "data": self._resolved(record.request["data"])},
            "inputs": self._resolved(record.inputs),
            "attempt": record.attempt,
            "checkpoint": self._book.store.checkpoint(record.id),
            "checkpoint_s": service.checkpoint_s if service.checkpoint_s is not None else settings.checkpoint_s,
            "best": record.best,
            "workers": self._engine.size(),
        }
        self._runs.desk.open(record.id, record.owner, record.priority, service.needs)
        self._book.open_stream(record)
        place = HerePlace(place) if service.at_manager else place
        self._runs.begin(Execution(self._runs, record, service, spec, place))

    def _resolved(self, plain: Any) -> Any:
        """Plain data with results of other jobs in place of references."""

        def resolve(key: str, content: Any) -> Any:
            if key == "$field":
                return content["value"]
            record = self._book.records.get(content["job"])
            if record is None:
                raise UnknownJob(f"job {content['job']}, whose result this job needs, was deleted", job=content["job"])
            path = content["path"]
            result = from_plain(record.result)
            try:
                return part_of(result, path)
            except (KeyError, IndexError, TypeError):
                if len(path) == 1 and path[0] in record.request["data"]:  # a value of the request itself
                    return from_plain(record.request["data"][path[0]])
                raise RequestError(
                    f"the result of {record.id} has no part {path}", hint=f"It is {str(record.result)[:200]}"
                ) from None

        return to_plain(from_plain(plain, resolve))
