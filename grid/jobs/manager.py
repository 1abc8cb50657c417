"""The job manager: keeps the list of jobs, starts those whose time has come, and tells everybody what changes.

    submit --> admission --> store --> Depends --(ready)--> pending --> start thread --> Execution, one per active job
                                          ^                                                 |  units --> Desk
                                          |____ atoms <---- ends, messages, results <-------|

Threads: `jobs-start` (gives pending jobs runners), `jobs-units` (the desk's), `jobs-tick` (what is stored a little
later; servers counted), one per active job. All state is behind one lock; every state change is stored before anybody
hears of it, but for moves that follow from conditions: after a crash they follow again.

Lives here: the life of jobs.
Elsewhere:  checks at submission (`admission.py`), the store (`store/`), what clients may ask (`server.py`).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grid.errors import GridError
from grid.jobs.admission import admit, atom_id
from grid.jobs.conditions.algebra import C, Condition, T
from grid.jobs.conditions.atoms import KINDS, HasServers, IsFetched, JobAtom, KnownAtom
from grid.jobs.conditions.depends import Depends
from grid.jobs.conditions.expressions import Expression
from grid.jobs.conditions.tree import from_tree
from grid.jobs.desk import Desk
from grid.jobs.engine import Engine
from grid.jobs.execution import Execution
from grid.jobs.fetch import Fetcher
from grid.jobs.host import messages
from grid.jobs.host.errors import JobError, RequestError, StoreError, UnknownJob, UnknownJobService
from grid.jobs.host.messages import Message
from grid.jobs.host.plain import from_plain, to_plain
from grid.jobs.host.references import part_of
from grid.jobs.mail import Mailer
from grid.jobs.memory import memo_key
from grid.jobs.record import Record
from grid.jobs.registry import Registry
from grid.jobs.rules.credits import Ledger
from grid.jobs.rules.scheduler import Scheduler
from grid.jobs.rules.states import JobState, check_move
from grid.jobs.rules.tags import safe_key
from grid.jobs.settings import Settings
from grid.jobs.store.store import Store
from grid.jobs.streams import Streams

logger = logging.getLogger(__name__)

QUEUE = "jobs"
"""The stream of the list of jobs."""
CONDITIONS = "condition"
"""The stream of notices about atoms."""


class JobManager:
    """See the module. `start` recovers what the store has; `stop` gives active jobs back to it."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        settings: Settings | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.store, self.engine = store, engine
        self.settings = settings or Settings()
        self.registry = registry or Registry()
        self.streams = Streams()
        self.depends = Depends()
        self.depends.notify = self._atom_changed  # type: ignore[method-assign]  # by way of the stream
        self.streams.tap(CONDITIONS, self.depends.put)
        self.ledger = Ledger(self.settings.allowance, self.settings.half_life_s)
        self.desk = Desk(
            engine,
            Scheduler(
                self.ledger,
                rules=self.settings.rules,
                minimum_share=self.settings.minimum_share,
                lease_s=self.settings.lease_s,
                weights=self.settings.weights,
            ),
        )
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)  # a job became pending, or a runner free
        self._ends = threading.Condition(self._lock)  # a job ended
        self.records: dict[str, Record] = {}
        self._numbers = itertools.count(1)
        self._atoms: dict[str, KnownAtom] = {}
        self._followers: dict[str, list[JobAtom]] = {}
        self._registrations: dict[str, Any] = {}
        self._decided: list[tuple[str, str]] = []
        self._settling = False
        self._pending: dict[str, list[tuple[int, int, str]]] = {}  # owner -> heap of (-priority, number, id)
        self._homeless: dict[str, set[str]] = {}  # service -> pending jobs whose service is not here
        self._active: dict[str, Execution] = {}
        self._early: dict[str, list[Message]] = {}
        self._dirty: dict[str, dict[str, Any]] = {}
        self._races: dict[str, dict[str, Any]] = {}
        self._users: dict[str, dict[str, Any]] = {}
        self._stopping = False
        self._halted = threading.Event()
        self._threads: list[threading.Thread] = []
        self._mailer = Mailer(self.settings)
        self._fetcher = Fetcher(store.directory / "fetched")
        self.streams.set_header(QUEUE, self._queue_header)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> JobManager:
        """Recover what the store has, and begin to work."""
        self._recover()
        self.engine.start()
        self.desk.start()
        for name, body in (("jobs-start", self._start_jobs), ("jobs-tick", self._tick)):
            thread = threading.Thread(target=body, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> None:
        """Have active jobs take a checkpoint and go back to the store; then end. Harmless if done already."""
        with self._news:
            if self._stopping:
                return
            self._stopping = True
            active = list(self._active.values())
            self._news.notify_all()
            self._ends.notify_all()
        for execution in active:
            execution.suspend("the server stopped", self.settings.suspend_s)
        deadline = time.monotonic() + self.settings.suspend_s + 10.0
        for execution in active:
            execution.join(max(0.1, deadline - time.monotonic()))
        self._halted.set()
        for thread in self._threads:
            thread.join(10.0)
        self.desk.stop()
        self._fetcher.stop()
        self._save_dirty()
        self._mailer.stop()
        self.engine.stop()
        self.streams.hangup()
        self.store.close()

    def __enter__(self) -> JobManager:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether it has been told to stop."""
        return self._stopping

    def _recover(self) -> None:
        records = self.store.load()
        back = {
            record.id: {"state": JobState.PENDING, "reason": "the server was restarted"}
            for record in records
            if record.state is JobState.ACTIVE
        }
        if back:
            self.store.update(back)
        now = time.monotonic()
        self._users = self.store.users()
        used = {}
        for user, row in self._users.items():
            age = max(0.0, time.time() - row["used_at"])
            used[user] = (row["used"] * 0.5 ** (age / self.settings.half_life_s), now)
        self.ledger.load(used)
        with self._lock:
            for record in records:
                for name, value in back.get(record.id, {}).items():
                    setattr(record, name, value)
                self.records[record.id] = record
            self._numbers = itertools.count(max((record.number for record in records), default=0) + 1)
            for record in records:
                if record.state is JobState.PENDING:
                    self._enqueue(record)
            for record in records:
                if record.state is JobState.WAITING:
                    self._wait_for_condition(record, None)
            self._settle()
            for race, (jobs, expression) in self.store.races().items():
                self._run_race(race, jobs, expression)

    # -- submission ------------------------------------------------------------------------------------------------

    def submit(self, owner: str, submissions: Sequence[Mapping[str, Any]]) -> list[Record]:
        """New jobs, all or none; stored when this returns. See `admission.admit` for what each is."""
        with self._news:
            if self._stopping:
                raise JobError("the job server is stopping", hint="Submit again when it is back")
            admitted = []
            for plain in submissions:
                number = next(self._numbers)
                admitted.append(
                    admit(
                        plain,
                        owner=owner,
                        job=f"job-{number}",
                        number=number,
                        now=time.time(),
                        directory=self.store.directory,
                        registry=self.registry,
                        make_atom=self._make_atom,
                        exists=self.records.__contains__,
                    )
                )
            if admitted:
                self.store.insert([each.record for each in admitted])
            for each in admitted:
                record = each.record
                self.records[record.id] = record
                self._tell_queue("created", record)
            for each in admitted:
                if each.condition is None:
                    self._enqueue(each.record)
                else:
                    self._wait_for_condition(each.record, each.condition)
            self._settle()
            self._news.notify_all()
        return [each.record for each in admitted]

    def register(self, service: Any) -> None:
        """Make a service available; jobs that waited for it can start."""
        self.registry.add(service)
        with self._news:
            for job in self._homeless.pop(service.name(), set()):
                record = self.records.get(job)
                if record is not None and record.state is JobState.PENDING:
                    self._enqueue(record)
            self._news.notify_all()

    # -- conditions ------------------------------------------------------------------------------------------------

    def _make_atom(self, kind: str, key: str, arguments: dict[str, Any]) -> KnownAtom:
        """One atom for each definition, shared by all who wait for it."""
        key = atom_id(kind, arguments)
        atom = self._atoms.get(key)
        if atom is None:
            atom = KINDS[kind](**arguments, id=key)
            atom.world = self
            self._atoms[key] = atom
        return atom

    def _wait_for_condition(self, record: Record, condition: Condition | None) -> None:
        job = record.id
        try:
            if condition is None:
                condition = from_tree(record.condition, self._make_atom)
            registration = self.depends.register(
                condition, lambda: self._decided.append((job, "")), lambda reason: self._decided.append((job, reason))
            )
        except GridError as exc:  # a job that it waited for was deleted by hand, say
            self._decided.append((job, str(exc)))
            return
        if not registration.done:
            self._registrations[job] = registration

    def _atom_changed(self, atom: Any) -> None:
        """An atom says that it changed: a notice on the stream, to which the register listens."""
        status = {T: "ready", C: "cancelled"}.get(atom.state, "pending")
        with self._news:
            self.streams.put(CONDITIONS, Message("Notify", atom=atom.id, status=status, text=str(atom)))
            self._settle()

    def _settle(self) -> None:
        """Make the moves that conditions have decided, and those that follow from these; store them together."""
        if self._settling:
            return
        self._settling = True
        changes: dict[str, dict[str, Any]] = {}
        try:
            while self._decided:
                decided, self._decided = self._decided, []
                for job, reason in decided:
                    record = self.records.get(job)
                    self._registrations.pop(job, None)
                    if record is None or record.state is not JobState.WAITING:
                        continue
                    if reason:
                        self._apply(record, changes, JobState.CANCELLED, reason=reason, ended=time.time())
                    else:
                        self._apply(record, changes, JobState.PENDING)
        finally:
            self._settling = False
        if changes:
            self._store_soon(changes)

    def _apply(self, record: Record, changes: dict[str, dict[str, Any]], state: JobState, **values: Any) -> None:
        """A move that follows from a condition."""
        check_move(record.id, record.state, state)
        self._set(record, {"state": state, **values})
        changes[record.id] = {"state": state, **values}
        self._announce(record)
        if state is JobState.PENDING:
            self._enqueue(record)

    def _store_soon(self, changes: dict[str, dict[str, Any]]) -> None:
        try:
            self.store.update(changes)
        except StoreError as exc:
            logger.warning("%s; trying again", exc)
            for job, values in changes.items():
                self._dirty.setdefault(job, {}).update(values)

    def follow(self, atom: JobAtom) -> None:
        """See `conditions.atoms.World`."""
        with self._lock:
            record = self.records.get(atom.job)
            if record is None:
                atom.cancel(f"there is no job {atom.job}")
                return
            self._followers.setdefault(atom.job, []).append(atom)
            atom.see(record.view())

    def unfollow(self, atom: JobAtom) -> None:
        """See `conditions.atoms.World`."""
        with self._lock:
            followers = self._followers.get(atom.job, [])
            if atom in followers:
                followers.remove(atom)
            if not followers:
                self._followers.pop(atom.job, None)
            self._atoms.pop(atom.id, None)

    def fetch(self, atom: IsFetched) -> None:
        """See `conditions.atoms.World`."""

        def done(reason: str | None) -> None:
            with self._news:
                if reason is None:
                    atom.satisfy()
                else:
                    atom.cancel(reason)

        self._fetcher.fetch(atom.url, atom.sha256, atom.size, done)

    def fetched(self, url: str) -> Path:
        """Where the file of a URL lies, or will."""
        return self._fetcher.path(url)

    def supply(self, atom: HasServers) -> None:
        """See `conditions.atoms.World`; looked at by the tick."""

    def _look_at_servers(self) -> None:
        waiting = [atom for atom in self._atoms.values() if isinstance(atom, HasServers)]
        if waiting:
            size = self.engine.size()
            for atom in waiting:
                if size >= atom.n:
                    atom.satisfy()

    # -- starting jobs ---------------------------------------------------------------------------------------------

    def _enqueue(self, record: Record) -> None:
        heapq.heappush(self._pending.setdefault(record.owner, []), (-record.priority, record.number, record.id))
        self._news.notify_all()

    def _next_pending(self) -> Record | None:
        """Of the owner with the fewest active jobs, the one of highest priority, then the oldest."""
        busy: dict[str, int] = {}
        for execution in self._active.values():
            busy[execution.record.owner] = busy.get(execution.record.owner, 0) + 1
        for owner in sorted(self._pending, key=lambda owner: busy.get(owner, 0)):
            heap = self._pending[owner]
            while heap:
                record = self.records.get(heap[0][2])
                if record is None or record.state is not JobState.PENDING or record.id in self._active:
                    heapq.heappop(heap)
                    continue
                try:
                    self.registry.find(record.service, record.version)
                except UnknownJobService:
                    heapq.heappop(heap)
                    self._homeless.setdefault(record.service, set()).add(record.id)
                    record.reason = f"waits until the service {record.service} {record.version} is registered"
                    continue
                return record
            del self._pending[owner]
        return None

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
            with self._news:
                started = False
                while not self._stopping and not started:
                    record = self._next_pending()
                    if record is None:
                        break
                    try:
                        started = self._activate(record, place)
                    except StoreError as exc:
                        logger.warning("%s; trying again", exc)
                        self._news.wait(1.0)
            if not started:
                place.release()

    def _activate(self, record: Record, place: Any) -> bool:
        """Begin a job in that place; False if it needs none."""
        values = {"state": JobState.ACTIVE, "attempt": record.attempt + 1, "started": time.time(), "reason": ""}
        check_move(record.id, record.state, JobState.ACTIVE)
        self.store.update({record.id: values})
        self._set(record, values)
        self._announce(record)
        try:
            service = self.registry.find(record.service, record.version)
            request = {**record.request, "data": self._resolved(record.request["data"])}
            inputs = self._resolved(record.inputs)
            key = memo_key(service, request, inputs) if record.use_memo else ""
            known = self.store.remembered(key) if key else None
            if known is not None:
                record.reason = f"remembered from {known[0]}"
                self._end(record, "complete", known[1], "", "")
                return False
            record.memo = key
            checkpoint = self.store.checkpoint(record.id)
        except StoreError:
            raise
        except Exception as exc:
            self._end(record, "error", None, f"{type(exc).__name__}: {exc}", "")
            return False
        interval = service.checkpoint_s if service.checkpoint_s is not None else self.settings.checkpoint_s
        spec = {
            "job": record.id,
            "request": request,
            "inputs": inputs,
            "attempt": record.attempt,
            "checkpoint": checkpoint,
            "checkpoint_s": interval,
            "best": record.best,
        }
        self.desk.open(record.id, record.owner, record.priority)
        self.streams.set_header(record.id, lambda: self._join(record))
        execution = Execution(self, record, service, spec, place)
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
        with self._news:
            record = self.records.get(job)
            if record is None or record.state is not JobState.ACTIVE:
                return
            record.best, record.has_best = value, True
            self._dirty.setdefault(job, {}).update(best=value, has_best=True)
            message = messages.Improved(partial=from_plain(value))
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
        """A job is over: complete, error or aborted. Tried until it is stored."""
        while not self._halted.is_set():
            try:
                with self._news:
                    record = self.records.get(job)
                    if record is not None:
                        self._end(record, outcome, value, error, trace)
                return
            except StoreError as exc:
                logger.warning("the end of %s is not stored yet: %s", job, exc)
                self._halted.wait(1.0)

    def suspended(self, job: str, reason: str) -> None:
        """An active job goes back to the queue, and goes on from its checkpoint when there is a runner."""
        with self._news:
            record = self.records.get(job)
            if record is None or record.state is not JobState.ACTIVE:
                return
            values = {"state": JobState.PENDING, "reason": reason, "best": record.best, "has_best": record.has_best}
            self._active.pop(job, None)
            self.desk.close(job)
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

    def _end(self, record: Record, outcome: str, value: Any, error: str, trace: str) -> None:
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
            "progress": record.progress,
            "memo": record.memo,
        }
        if state is JobState.COMPLETE:
            values["result"] = value
        self._dirty.pop(record.id, None)
        if not self.store.complete(record.id, values, record.memo if state is JobState.COMPLETE else ""):
            return
        self._set(record, values)
        self.desk.close(record.id)
        self._active.pop(record.id, None)
        self._announce(record)
        self._settle()

    # -- telling ---------------------------------------------------------------------------------------------------

    def _set(self, record: Record, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(record, name, value)

    def _announce(self, record: Record) -> None:
        """The state of a job has changed: to the streams, to atoms, to who waits, by mail."""
        self._tell_queue("changed", record)
        self._emit(record.id, messages.State(state=record.state.value, reason=record.reason or record.error))
        end = _end_message(record)
        if end is not None:
            self._emit(record.id, end)
            self._early.pop(record.id, None)
            self._ends.notify_all()
            address = record.notify or self._users.get(record.owner, {}).get("email", "")
            if address and record.state is not JobState.CANCELLED:
                self._mailer.send(record, address)
        for atom in list(self._followers.get(record.id, ())):
            atom.see(record.view())

    def _emit(self, job: str, message: Message) -> None:
        self.streams.put(job, message)
        self._to_followers(job, message)

    def _to_followers(self, job: str, message: Message) -> None:
        for atom in list(self._followers.get(job, ())):
            try:
                atom.hear(message)
            except Exception:
                logger.exception("the filter of %s failed", atom)
        self._settle()

    def _tell_queue(self, change: str, record: Record) -> None:
        self.streams.put(QUEUE, Message("JobChanged", change=change, summary=record.summary()))

    def _queue_header(self) -> Message:
        jobs = [record.summary() for record in self.records.values() if not record.archived]
        return Message("Jobs", jobs=jobs)

    def _join(self, record: Record) -> Message:
        k, n, units = record.progress or (None, None, None)
        return messages.Join(k=k, n=n, units=units, partial=from_plain(record.best), state=record.state.value)

    def listen(self, key: str, target: Any = None, size: int | None = None) -> Any:
        """Listen to a stream; the header and what follows fit together exactly."""
        with self._lock:  # state changes and their messages are made under it
            extra = {} if size is None else {"size": size}
            if key in self.records and self.streams.header(key) is None:
                record = self.records[key]
                self.streams.set_header(key, lambda: self._join(record))
            listener = self.streams.listen(key, target, **extra)
            end = _end_message(self.records[key]) if key in self.records else None
            if end is not None:  # nothing more will come
                end.job, end.number, end.time = key, self.streams.number(key), self.records[key].ended or 0.0
                listener.offer(end)
            return listener

    # -- what clients ask for --------------------------------------------------------------------------------------

    def record(self, job: str) -> Record:
        """The job's record. Raises UnknownJob."""
        record = self.records.get(job)
        if record is None:
            raise UnknownJob(f"there is no job {job!r}", hint="See `grid jobs list`", job=job)
        return record

    def status(self, job: str) -> dict[str, Any]:
        """State, progress, times, reason; for active jobs the seconds since the last safe point."""
        with self._lock:
            record = self.record(job)
            execution = self._active.get(job)
            status = record.summary()
            status["ready_age"] = execution.ready_age if execution is not None else None
            status["paused"] = execution.paused if execution is not None else False
            status["waits_for"] = None
            if record.state is JobState.WAITING:
                registration = self._registrations.get(job)
                status["waits_for"] = registration.condition.text(8) if registration is not None else None
            return status

    def abort(self, job: str, reason: str = "", grace_s: float | None = None) -> None:
        """Ask a job to end; harmless if it has."""
        with self._news:
            record = self.record(job)
            if record.state in (JobState.WAITING, JobState.PENDING):
                self.cancel(job, reason or "aborted before it ran")
            elif record.state is JobState.ACTIVE and job in self._active:
                grace = self.settings.abort_grace_s if grace_s is None else grace_s
                self._active[job].abort(reason or "aborted", grace)

    def stop_job(self, job: str, reason: str = "") -> None:
        """End a job at once. Raises UnknownJob if it is unknown or has ended."""
        with self._news:
            record = self.record(job)
            if record.state.ended:
                raise UnknownJob(f"job {job!r} does not run: it is {record.state}", hint="Nothing to stop", job=job)
            self.abort(job, reason or "stopped", grace_s=0.0)

    def cancel(self, job: str, reason: str) -> None:
        """A job that does not run yet shall never run."""
        with self._news:
            record = self.record(job)
            check_move(job, record.state, JobState.CANCELLED)
            values = {"state": JobState.CANCELLED, "reason": reason, "ended": time.time()}
            self.store.update({job: values}, [job])
            registration = self._registrations.pop(job, None)
            if registration is not None:
                registration.unregister()
            self._set(record, values)
            self._announce(record)
            self._settle()

    def control(self, job: str, message: Message) -> None:
        """A message for a job: now, or when it starts; dropped if it has ended."""
        with self._news:
            record = self.record(job)
            execution = self._active.get(job)
            if execution is not None:
                execution.send(message)
            elif not record.state.ended:
                self._early.setdefault(job, []).append(message)

    def wait(self, job: str, timeout: float | None) -> Record | None:
        """Until it has ended; None if that takes longer."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._ends:
            while True:
                record = self.record(job)
                if record.state.ended:
                    return record
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or self._stopping:
                    return None
                self._ends.wait(5.0 if left is None else min(left, 5.0))

    def archive(self, jobs: Sequence[str], archived: bool = True) -> None:
        """Mark jobs that have ended; they leave the list."""
        with self._news:
            for job in jobs:
                if not self.record(job).state.ended:
                    raise JobError(f"job {job} is {self.record(job).state}", hint="Abort it first, or wait", job=job)
            self.store.update({job: {"archived": archived} for job in jobs})
            for job in jobs:
                self.records[job].archived = archived
                self._tell_queue("removed" if archived else "created", self.records[job])

    def delete(self, jobs: Sequence[str]) -> None:
        """Remove jobs that have ended, with all that belongs to them; what depends on them is cancelled."""
        with self._news:
            for job in jobs:
                if not self.record(job).state.ended:
                    raise JobError(f"job {job} is {self.record(job).state}", hint="Abort it first, or wait", job=job)
            self.store.delete(jobs)
            for job in jobs:
                record = self.records.pop(job)
                self._tell_queue("removed", record)
                self.streams.forget(job)
        for job in jobs:
            _remove_folder(self.store.directory / "jobs" / safe_key(job))

    def race(self, jobs: Sequence[str], expression: str) -> str:
        """The first of these jobs with a result for which the expression holds ends the others; returns its id."""
        Expression(expression)
        with self._news:
            for job in jobs:
                self.record(job)
            if not jobs:
                raise RequestError("a race needs jobs", hint="Give one at least")
            race = f"race-{next(self._numbers)}"
            self.store.keep_race(race, jobs, expression)
            self._run_race(race, list(jobs), expression)
            self._settle()
        return race

    def _run_race(self, race: str, jobs: list[str], expression: str) -> None:
        entry: dict[str, Any] = {"jobs": jobs, "expression": expression, "winner": None, "over": False}
        self._races[race] = entry
        out: set[str] = set()

        def won(job: str) -> None:
            if not entry["over"]:
                entry.update(winner=job, over=True)
                self.store.end_race(race)
                for other in jobs:
                    if other != job and other in self.records:
                        self.abort(other, f"{job} was first in {race} with {expression}")
                self._ends.notify_all()

        def left(job: str) -> None:
            out.add(job)
            if len(out) == len(jobs) and not entry["over"]:
                entry["over"] = True
                self.store.end_race(race)
                self._ends.notify_all()

        for job in jobs:
            arguments = {"job": job, "expression": expression}
            self.depends.register(
                self._make_atom("result", "", arguments),
                lambda job=job: won(job),  # type: ignore[misc]
                lambda reason, job=job: left(job),  # type: ignore[misc]
            )

    def race_status(self, race: str) -> dict[str, Any]:
        """`jobs`, `expression`, `winner` (a job, or None), `over`."""
        with self._lock:
            if race not in self._races:
                raise UnknownJob(f"there is no race {race!r}", hint="It may have been decided before a restart")
            return dict(self._races[race])

    def user(self, name: str) -> dict[str, Any]:
        """What is known of a user."""
        with self._lock:
            return dict(self._users.get(name, {"email": "", "token": "", "used": 0.0, "used_at": 0.0}))

    def keep_user(self, name: str, **values: Any) -> None:
        """Change what is known of a user."""
        with self._lock:
            self.store.keep_users({name: values})
            self._users[name] = {**self.user(name), **values}

    # -- the tick --------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Thread: what is stored a little later, what announces itself to nobody."""
        turn = 0
        while not self._halted.wait(self.settings.tick_s):
            turn += 1
            try:
                self._save_dirty()
                self.desk.expire()
                with self._news:
                    self._look_at_servers()
                if turn % 20 == 0:
                    self._save_credits()
            except Exception:
                logger.exception("the tick stumbled, and goes on")

    def _save_dirty(self) -> None:
        with self._lock:
            dirty, self._dirty = self._dirty, {}
            dirty = {job: values for job, values in dirty.items() if job in self.records}
        if dirty:
            try:
                self.store.update(dirty)
            except StoreError as exc:
                logger.warning("%s; trying again", exc)
                with self._lock:
                    for job, values in dirty.items():
                        self._dirty[job] = {**values, **self._dirty.get(job, {})}

    def _save_credits(self) -> None:
        used = self.desk.usage()
        changed = {
            user: {"used": amount, "used_at": time.time()}
            for user, amount in used.items()
            if abs(amount - self._users.get(user, {}).get("used", 0.0)) > 0.01
        }
        if changed:
            for user, values in changed.items():
                self.keep_user(user, **values)


def _end_message(record: Record) -> Message | None:
    if record.state is JobState.COMPLETE:
        return messages.Completed(final=from_plain(record.result))
    if record.state is JobState.ERROR:
        return messages.Error(error=record.error, trace=record.trace)
    if record.state is JobState.ABORTED:
        return messages.Aborted(reason=record.reason, partial=from_plain(record.best))
    if record.state is JobState.CANCELLED:
        return messages.Cancelled(reason=record.reason)
    return None


def _remove_folder(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
