"""Jobs at work: giving pending ones a place, and what they tell until they end.

Lives here: `Running`, a layer of the manager.
Elsewhere:  the conversation with one job (`execution.py`), places (`engine.py`), units (`desk.py`).
"""

from __future__ import annotations

import heapq
import logging
import os
import time
from dataclasses import replace
from typing import Any

from grid.errors import GridError
from grid.jobs.conditions.tree import atoms_in
from grid.jobs.host import messages
from grid.jobs.host.errors import RequestError, StoreError, UnknownJob, UnknownJobService
from grid.jobs.host.messages import Message
from grid.jobs.host.names import safe_key
from grid.jobs.host.plain import dumps, from_plain, to_plain
from grid.jobs.host.references import jobs_in, part_of
from grid.jobs.manager.admission import fit_late
from grid.jobs.manager.engine import HerePlace
from grid.jobs.manager.execution import Execution
from grid.jobs.manager.memory import memo_key, versions
from grid.jobs.manager.waiting import Waiting
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import Record
from grid.jobs.rules.states import JobState, check_move
from grid.text import clean

logger = logging.getLogger(__name__)

LAST_TRY_S = 2.0
"""For the end of a job to be stored, while the manager stops and the store refuses."""


class Running(Waiting):
    """See the module."""

    def _next_pending(self) -> Record | None:
        """Of the owner with the fewest active jobs, the one of highest priority, then the oldest."""
        busy: dict[str, int] = {}
        for execution in self._active.values():
            busy[execution.record.owner] = busy.get(execution.record.owner, 0) + 1
        for owner in sorted(self._pending, key=lambda owner: busy.get(owner, 0)):
            heap = self._pending[owner]
            while heap:
                record = self.records.get(heap[0][2])
                if (
                    record is None
                    or record.state is not JobState.PENDING
                    or record.id in self._active
                    or record.id in self._parked
                ):
                    heapq.heappop(heap)
                    continue
                why = self._why_not(record)
                if why:
                    heapq.heappop(heap)
                    if record.state is not JobState.PENDING:  # cancelled: its service will never be here
                        continue
                    self._homeless.setdefault(record.service, set()).add(record.id)
                    record.reason = why
                    continue
                return record
            del self._pending[owner]
        return None

    def _why_not(self, record: Record) -> str:
        """Why a pending job can't start, though there is room: its service is not here, or not as it was."""
        try:
            service = self.registry.find(record.service, record.version)
        except UnknownJobService:
            why = self._fit(record)
            if why:
                return why
            service = self.registry.find(record.service, record.version)
        path = self.registry.edited(service)
        if not path:
            return ""
        why = f"waits: {path} was edited after {record.service} {service.version} was loaded from it"
        if self._edited.get(path) is None:
            self._edited[path] = record.service
            logger.warning(
                "jobs of %s wait: %s was edited after version %s was loaded from it. Start the job server again, with "
                "another version if results differ; or undo the change",
                record.service,
                path,
                service.version,
            )
        return f"{why}; start the job server again, or undo the change"

    def _fit(self, record: Record) -> str:
        """Its service was being installed when it was submitted, perhaps: then it is there now, or never."""
        try:
            values = fit_late(record, self.store.directory, self.registry, self._late.get(record.id))
        except UnknownJobService:
            installed = [
                self.records[job]
                for job in (str(atom.get("job")) for atom in atoms_in(record.condition))
                if job in self.records and self.records[job].service == INSTALL
            ]
            if not installed:
                return f"waits until the service {record.service} {record.version} is registered"
            last = installed[-1]
            have = from_plain(last.result) or {}
            names = ", ".join(f"{name} {version}" for name, version in have.get("services", {}).items()) or "none"
            self._late.pop(record.id, None)
            wanted = f"{record.service} {record.version}"
            self._decline(record, f"{last.id} installed {have.get('name')}, which has no service {wanted}, but {names}")
            return "cancelled"
        except RequestError as exc:
            self._late.pop(record.id, None)
            self._decline(record, str(exc))
            return "cancelled"
        self._late.pop(record.id, None)
        self.store.update({record.id: values})
        self._set(record, values)
        self._tell_queue("changed", record)
        return ""

    def _decline(self, record: Record, reason: str) -> None:
        """A pending job that can't run is cancelled."""
        check_move(record.id, record.state, JobState.CANCELLED)
        values = {"state": JobState.CANCELLED, "reason": clean(reason, 2_000), "ended": time.time()}
        self.store.update({record.id: values})
        self._set(record, values)
        self._announce(record)
        self._settle()

    def _look_at_sources(self) -> None:
        """Services whose files are again as they were: their jobs can start."""
        for path, service in list(self._edited.items()):
            if any(self.registry.edited(cls) == path for cls in self.registry.classes(service)):
                continue
            del self._edited[path]
            for job in self._homeless.pop(service, set()):
                record = self.records.get(job)
                if record is not None and record.state is JobState.PENDING:
                    record.reason = ""
                    self._enqueue(record)

    def _start_jobs(self) -> None:
        """Thread: gives pending jobs free runners."""
        while True:
            with self._news:
                while not self._stopping and self._next_pending() is None:
                    self._news.wait(5.0)
                if self._stopping:
                    return
            try:
                place = self.engine.runner(0.5)
            except GridError as exc:
                if self._halted.wait(0.5):
                    return
                logger.warning("no runner: %s", exc)
                continue
            if place is None:
                continue
            started = False
            while not started:
                with self._news:
                    record = None if self._stopping else self._next_pending()
                if record is None:
                    break
                try:
                    started = self._begin(record, place)
                except StoreError as exc:
                    logger.warning("%s; trying again", exc)
                    if self._halted.wait(1.0):
                        break
            if not started:
                place.release()

    def _begin(self, record: Record, place: Any) -> bool:
        """Give a pending job that place, or what is remembered of an equal one; False if the place is free still.

        Reading files for the key, and copying files of a remembered job, may take time: the lock is free meanwhile.
        Only one thread starts jobs, so the job is still ours afterwards, or somebody has cancelled it.
        """
        key, known = "", None
        if record.use_memo:
            try:
                with self._news:
                    facts = self._memo_facts(record)
                key = memo_key(*facts)
                with self._news:
                    other = self._memory.claim(key, record.id)
                    if other is not None:
                        record.reason = f"{other} computes the same"
                        self._parked.add(record.id)
                        return False
                known = self._memory.recall(key, record.id)
            except StoreError:
                with self._news:
                    self._release_memory(record.id)
                raise
            except Exception as exc:
                return self._activate(record, place, "", None, clean(f"{type(exc).__name__}: {exc}", 2_000))
        return self._activate(record, place, key, known, "")

    def _memo_facts(self, record: Record) -> tuple[Any, ...]:
        """What `memo_key` takes."""
        service = self.registry.find(record.service, record.version)
        request = {**record.request, "data": self._resolved(record.request["data"])}
        given = jobs_in(record.request["data"]) | jobs_in(record.inputs)
        stood_on: list[dict[str, Any]] = []
        for atom in atoms_in(record.condition):
            kind = atom["atom"]
            if kind == "fetched":
                stood_on.append({"url": atom["url"], "file": str(self._fetcher.path(atom["url"]))})
            elif kind == "elsewhere":
                stood_on.append({"elsewhere": record.id})  # nothing is known of that job: never the same
            elif kind != "servers":
                stood_on.append(self._known_of(str(atom["job"]), values=atom["job"] not in given))
        own = self._memory.own(record.id)
        return service, request, self._resolved(record.inputs), stood_on, own

    def _known_of(self, job: str, *, values: bool) -> dict[str, Any]:
        other = self.records.get(job)
        if other is None:
            return {"job": job}
        try:
            software = versions(self.registry.find(other.service, other.version).requires)
        except (UnknownJobService, RequestError):
            software = {}
        known = {"service": other.service, "version": other.version, "software": software, "state": str(other.state)}
        if values:
            known |= {"result": other.result, "memo": other.memo}
        return known

    def _release_memory(self, job: str) -> None:
        """The job computes nothing any more: those that waited for its result are pending again."""
        for waiting in self._memory.release(job):
            self._parked.discard(waiting)
            record = self.records.get(waiting)
            if record is not None and record.state is JobState.PENDING:
                self._enqueue(record)

    def _activate(self, record: Record, place: Any, key: str, known: tuple[str, Any] | None, trouble: str) -> bool:
        """Begin a job in that place; False if it needs none: its result is `known`, or there is `trouble`."""
        with self._news:
            if self._stopping or record.state is not JobState.PENDING:  # cancelled meanwhile
                self._release_memory(record.id)
                return False
            values = {"state": JobState.ACTIVE, "attempt": record.attempt + 1, "started": time.time(), "reason": ""}
            check_move(record.id, record.state, JobState.ACTIVE)
            self.store.update({record.id: values})
            self._set(record, values)
            self._announce(record)
            if known is not None:
                record.reason = f"remembered from {known[0]}"
                self._end(record, "complete", known[1], "", "")
                return False
            record.memo = key
            try:
                if trouble:
                    raise RequestError(trouble)
                return self._execute(record, place)
            except StoreError:
                raise
            except Exception as exc:
                said = trouble or clean(f"{type(exc).__name__}: {exc}", 2_000)
                self._end(record, "error", None, said, "")
                return False

    def _execute(self, record: Record, place: Any) -> bool:
        """Start the thread of a job that is active now."""
        service = self.registry.find(record.service, record.version)
        request = {**record.request, "data": self._resolved(record.request["data"])}
        inputs = self._resolved(record.inputs)
        checkpoint = self.store.checkpoint(record.id)
        interval = service.checkpoint_s if service.checkpoint_s is not None else self.settings.checkpoint_s
        spec = {
            "job": record.id,
            "request": request,
            "inputs": inputs,
            "attempt": record.attempt,
            "checkpoint": checkpoint,
            "checkpoint_s": interval,
            "best": record.best,
            "workers": self.engine.size(),
        }
        self.desk.open(record.id, record.owner, record.priority)
        self.streams.set_header(record.id, lambda: self._join(record))
        execution = Execution(self, record, service, spec, HerePlace(place) if service.at_manager else place)
        self._active[record.id] = execution
        for message in self._early.pop(record.id, []):
            execution.send(message)
        execution.start()
        return True

    def _resolved(self, plain: Any) -> Any:
        """Plain data with results of other jobs in place of references."""

        def resolve(key: str, content: Any) -> Any:
            if key == "$field":
                return content["value"]
            record = self.records.get(content["job"])
            if record is None:
                raise UnknownJob(f"job {content['job']} is gone, and its result was wanted", job=content["job"])
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

    # -- what jobs tell (called by their executions) ---------------------------------------------------------------

    def said(self, job: str, message: Message) -> None:
        """A message of a job."""
        with self._news:
            record = self.records.get(job)
            if record is None or record.state is not JobState.ACTIVE:
                return
            if message.kind == "Progress":
                record.progress = [message.k, message.n, message.units]
                self._dirty.setdefault(job, {})["progress"] = record.progress
                self._tell_queue("changed", record)
            self._emit(job, message)

    def improved(self, job: str, value: Any, *, loud: bool) -> None:
        """A job has a better result."""
        message = messages.Improved(partial=from_plain(value))
        size = message.__dict__["_size"] = len(dumps(value))  # for who keeps the last ones
        with self._news:
            record = self.records.get(job)
            if record is None or record.state is not JobState.ACTIVE:
                return
            record.best, record.has_best, record.improved = value, True, time.time()
            record.best_size = size
            self._dirty.setdefault(job, {}).update(best=value, has_best=True, improved=record.improved)
            if loud:
                self._emit(job, message)
                self._tell_queue("changed", record)
            else:
                self._to_followers(job, message)

    def keep_checkpoint(self, job: str, state: bytes) -> None:
        """A job can start again from here."""
        try:
            self.store.keep_checkpoint(job, state)
        except StoreError as exc:
            logger.warning("the checkpoint of %s was not stored, the last one stays: %s", job, exc)

    def keep_file(self, job: str, name: str, data: bytes) -> None:
        """An output file of a job."""
        try:
            directory = self.store.directory / "jobs" / safe_key(job)
            directory.mkdir(parents=True, exist_ok=True)
            part = directory / f".{safe_key(name, 'name of a file')}.part"
            part.write_bytes(data)
            os.replace(part, directory / name)
        except (OSError, RequestError) as exc:
            self.said(job, messages.Log(level="error", text=f"the file {name!r} was not kept: {exc}"))
        else:
            self.said(job, messages.Kept(name=name, size=len(data)))

    def ended(self, job: str, outcome: str, value: Any, error: str, trace: str) -> None:
        """A job has ended: complete, error or aborted. Tried until it is stored.

        Whatever else goes wrong with that ends the job with an error, which names it: without the values that the job
        gave, because one of them is the likely cause.
        """
        bare = False
        files: dict[str, str] | None = None
        if outcome == "complete" and (known := self.records.get(job)) is not None and known.memo:
            files = self._memory.made(job)  # reading them takes time: not under the lock
            if files is None:
                known.memo = ""
        end: float | None = None
        while not self._halted.is_set():
            try:
                with self._news:
                    record = self.records.get(job)
                    if record is not None:
                        if bare:
                            record.best, record.has_best, record.progress, record.memo = None, False, None, ""
                        self._end(record, outcome, value, error, trace, files)
                self._troubled = False
                return
            except StoreError as exc:
                self._troubled = True
                logger.warning("the end of %s is not stored yet: %s", job, exc)
                if self._stopping:
                    end = end or time.monotonic() + LAST_TRY_S
                    if time.monotonic() > end:
                        logger.error("the end of %s could not be stored: it runs again from its checkpoint", job)
                        return
                self._halted.wait(0.2 if self._stopping else 1.0)
            except Exception as exc:
                logger.exception("the end of %s (%s) could not be kept", job, outcome)
                if bare:
                    raise
                said = clean(f"{type(exc).__name__}: {exc}", 2_000)
                error = f"its end ({outcome}) could not be kept ({said})"
                outcome, value, trace, bare = "error", None, "", True

    def suspended(self, job: str, reason: str) -> None:
        """An active job goes back to the queue, and goes on from its checkpoint when there is a runner."""
        with self._news:
            record = self.records.get(job)
            if record is None or record.state is not JobState.ACTIVE:
                return
            values = {"state": JobState.PENDING, "reason": reason, "best": record.best, "has_best": record.has_best}
            self._active.pop(job, None)
            self.desk.close(job, self.settings.abort_grace_s)
            self._release_memory(job)
            self._set(record, values)
            self._store_soon({job: values})
            self._announce(record)
            if not self._stopping:
                self._enqueue(record)

    def lost(self, job: str, why: str) -> None:
        """The process that ran a job died: again, unless that was so too often."""
        with self._lock:
            record = self.records.get(job)
            again = record is not None and record.attempt < self.settings.attempts
        if again:
            logger.warning("job %s lost its process and begins again: %s", job, why)
            self.suspended(job, f"its process died: {why.splitlines()[0]}")
        else:
            self.ended(job, "error", None, f"its process died {self.settings.attempts} times: {why}", "")

    def execution_over(self, execution: Execution) -> None:
        """Its thread ends."""
        with self._news:
            if self._active.get(execution.record.id) is execution:
                del self._active[execution.record.id]
            self._news.notify_all()

    def _end(
        self,
        record: Record,
        outcome: str,
        value: Any,
        error: str,
        trace: str,
        files: dict[str, str] | None = None,
    ) -> None:
        if record.state is not JobState.ACTIVE:
            return  # somebody was first
        state = JobState(outcome)
        check_move(record.id, record.state, state)
        values: dict[str, Any] = {
            "state": state,
            "ended": time.time(),
            "error": error if state is JobState.ERROR else "",
            "trace": trace,
            "reason": record.reason if state is JobState.COMPLETE else error,
            "best": record.best,
            "has_best": record.has_best,
            "improved": record.improved,
            "progress": record.progress,
            "memo": record.memo,
        }
        if state is JobState.COMPLETE:
            values["result"] = value
        self._dirty.pop(record.id, None)
        try:
            note = self._mailer.note(replace(record, **values))
        except Exception:
            logger.exception("nobody is told by mail that %s ended", record.id)
            note = None
        remember = record.memo if state is JobState.COMPLETE else ""
        if not self.store.complete(record.id, values, remember, note, files):
            return
        self._set(record, values)
        self._active.pop(record.id, None)
        self._release_memory(record.id)
        self.desk.close(record.id, self.settings.abort_grace_s)
        if note is not None:
            self._mailer.noted(note)
        self._announce(record)
        self._settle()
