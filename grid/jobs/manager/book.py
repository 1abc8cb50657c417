"""The book of a job manager: every job's record, its copy in the store, and telling everybody what changed.

It is the only writer of records. A change is stored before anybody hears of it. Two kinds of change are stored a little
later: moves that follow from conditions, because after a crash they follow again (`apply` and `store_soon`), and what a
job tells while it runs, because each alone would cost an fsync (`note`, `save`).

**The lock.** `Book.lock` guards the records and whatever has to fit them: the tables of `Conditions`, `Races`,
`Dispatch` and `Runs`, and the order of messages in streams. One lock for all of these, because a state, the message
that tells it and the moves that follow from it happen in one step: with two locks somebody could hear of a state
before it can be seen, or see it without ever hearing of it. Under it nothing is computed, fetched or checked that a
client's input makes long. `news` (a job is pending, a runner may be free, the manager stops) and `ends` (a job or a
race ended) are conditions on this lock.

Lives here: `Book`.
Elsewhere:  what conditions make of news (`conditions.py`), which pending job is next (`dispatch.py`), the store
            (`store/`).
"""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grid.jobs.api import QUEUE
from grid.jobs.host import messages
from grid.jobs.host.errors import JobError, RequestError, StoreError, UnknownJob
from grid.jobs.host.messages import Message
from grid.jobs.host.names import safe_key
from grid.jobs.host.plain import from_plain
from grid.jobs.line.streams import Streams
from grid.jobs.manager.history import History
from grid.jobs.record import JobRecord
from grid.jobs.rules.post import Note
from grid.jobs.rules.states import JobState, check_move
from grid.jobs.settings import Settings
from grid.jobs.store.store import Store

logger = logging.getLogger(__name__)


class Book:
    """See the module."""

    def __init__(self, store: Store, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.store, self.settings = store, settings
        self.began = clock()
        self.streams = Streams(clock)
        self.history = History(store.directory / "history")
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.ends = threading.Condition(self.lock)
        self.records: dict[str, JobRecord] = {}
        self.on_message: list[Callable[[str, Message], None]] = []
        """Parts that hear each message of a job, or about one; under the lock."""
        self.on_move: list[Callable[[JobRecord], None]] = []
        """Parts that hear of each move, after all messages about it have gone out; under the lock."""
        self.stopping = False
        """The manager is stopping: nothing new begins."""
        self.halted = threading.Event()
        """Nothing is at work any more: threads end."""
        self.troubled = False
        """The store refused what it was given last."""
        self._numbers = itertools.count(1)
        self._owned: dict[str, list[int]] = {}  # owner -> jobs, bytes of their requests
        self._unsaved: dict[str, dict[str, Any]] = {}  # job -> columns
        self.streams.set_header(QUEUE, self._list_header)

    # -- reading ---------------------------------------------------------------------------------------------------

    def record(self, job: str) -> JobRecord:
        """The job's record. Raises UnknownJob."""
        record = self.records.get(job)
        if record is None:
            raise UnknownJob(f"there is no job {job!r}", hint="See `grid jobs list`", job=job)
        return record

    def all(self) -> list[JobRecord]:
        """All records, oldest first."""
        with self.lock:
            return list(self.records.values())

    def next_number(self) -> int:
        """For a new job or race; never given twice."""
        return next(self._numbers)

    def wait(self, job: str, timeout: float | None) -> JobRecord | None:
        """Until it has ended; None if that takes longer than `timeout` seconds. Raises UnknownJob."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.ends:
            while True:
                record = self.record(job)
                if record.state.ended:
                    return record
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or self.stopping:
                    return None
                self.ends.wait(5.0 if left is None else min(left, 5.0))

    def kept(self, job: str, kind: str) -> list[Message]:
        """The last messages of a kind that a job said."""
        with self.lock:
            return self.history.of(job, kind)

    def said(self, job: str, number: int) -> list[Message]:
        """The messages of a job up to that number of its stream, as far as they are kept."""
        with self.lock:
            return self.history.said(job, number, self.began)

    # -- jobs come and go ------------------------------------------------------------------------------------------

    def load(self) -> list[JobRecord]:
        """Take in what the store has; jobs that were active are pending again. Returns all."""
        records = self.store.load()
        back = {
            record.id: {"state": JobState.PENDING, "reason": "the server was restarted"}
            for record in records
            if record.state is JobState.ACTIVE
        }
        if back:
            self.store.update(back)
        with self.lock:
            for record in records:
                _set(record, back.get(record.id, {}))
                self.records[record.id] = record
                self._count(record, 1)
            self._numbers = itertools.count(max((record.number for record in records), default=0) + 1)
        return records

    def insert(self, owner: str, records: Sequence[JobRecord]) -> None:
        """Store new jobs of one owner, all or none; takes no lock. Raises RequestError: the owner has too many."""
        most, most_bytes = self.settings.jobs_each, self.settings.bytes_each
        jobs, size = self._owned.get(owner, (0, 0))
        if jobs + len(records) > most or size + sum(record.size for record in records) > most_bytes:
            raise RequestError(
                f"{owner} has {jobs} jobs here, with {size} bytes of requests; {most} and {most_bytes} are kept",
                hint="Delete some that have ended: grid jobs delete",
            )
        if records:
            self.store.insert(records)

    def enter(self, record: JobRecord) -> None:
        """A new job that is stored comes into the list."""
        self.records[record.id] = record
        self._count(record, 1)
        self.tell_list("created", record)

    def archive(self, jobs: Sequence[str], archived: bool) -> None:
        """Mark jobs that have ended; they leave the list, or come back. Raises JobError: one has not ended."""
        with self.news:
            self._check_ended(jobs)
            self.store.update({job: {"archived": archived} for job in jobs})
            for job in jobs:
                self.records[job].archived = archived
                self.tell_list("removed" if archived else "created", self.records[job])

    def delete(self, jobs: Sequence[str]) -> None:
        """Remove jobs that have ended, with all that belongs to them. Raises JobError: one has not ended."""
        with self.news:
            self._check_ended(jobs)
            self.store.delete(jobs)
            for job in jobs:
                record = self.records.pop(job)
                self._count(record, -1)
                self.tell_list("removed", record)
                self.streams.forget(job)
                self.history.forget(job)
        for job in jobs:
            shutil.rmtree(self.store.directory / "jobs" / safe_key(job), ignore_errors=True)

    def _check_ended(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            if not self.record(job).state.ended:
                raise JobError(f"job {job} is {self.record(job).state}", hint="Abort it first, or wait", job=job)

    def _count(self, record: JobRecord, sign: int) -> None:
        """A job comes (1) or is deleted (-1), in its owner's share."""
        owned = self._owned.setdefault(record.owner, [0, 0])
        owned[0] += sign
        owned[1] += sign * record.size
        if not owned[0]:
            del self._owned[record.owner]

    # -- changes (the caller has the lock) -------------------------------------------------------------------------

    def move(self, record: JobRecord, state: JobState, *, forget: bool = False, **values: Any) -> None:
        """Another state, stored and then told; `forget`: its checkpoint is not needed any more.

        Raises:
            MoveError: The table of states has no such move. StoreError: It is not stored, and nothing has changed.
        """
        check_move(record.id, record.state, state)
        values["state"] = state
        self.store.update({record.id: values}, [record.id] if forget else ())
        _set(record, values)
        self.announce(record)

    def apply(self, record: JobRecord, state: JobState, **values: Any) -> dict[str, Any]:
        """Another state, told at once; returns what the caller has to give to `store_soon`."""
        check_move(record.id, record.state, state)
        values["state"] = state
        _set(record, values)
        self.announce(record)
        return values

    def complete(
        self,
        record: JobRecord,
        values: Mapping[str, Any],
        remember: str,
        note: Note | None,
        files: Mapping[str, str] | None,
    ) -> bool:
        """The end of an active job, stored and not told yet. False: the store has it as ended already."""
        check_move(record.id, record.state, values["state"])
        self._unsaved.pop(record.id, None)
        if not self.store.complete(record.id, values, remember, note, files):
            return False
        _set(record, values)
        return True

    def change(self, record: JobRecord, values: Mapping[str, Any]) -> None:
        """Other columns than the state, stored and then told."""
        self.store.update({record.id: values})
        _set(record, values)
        self.tell_list("changed", record)

    def mark(self, record: JobRecord, **values: Any) -> None:
        """Values that are stored with the next move, or never, such as why a pending job waits."""
        _set(record, values)

    def note(self, record: JobRecord, **values: Any) -> None:
        """Values that a running job reports; `save` stores them."""
        _set(record, values)
        self._unsaved.setdefault(record.id, {}).update(values)

    def store_soon(self, changes: Mapping[str, dict[str, Any]]) -> None:
        """Store moves that were announced already: now, or, if the store refuses, with the next `save`."""
        if not changes:
            return
        try:
            self.store.update(changes)
        except StoreError as exc:
            self.troubled = True
            logger.warning("%s; trying again", exc)
            for job, values in changes.items():
                self._unsaved.setdefault(job, {}).update(values)

    def save(self) -> dict[str, RequestError]:
        """Store what `note` and `store_soon` left; takes the lock for moments only.

        Returns:
            Jobs that said what no store can take -> why: their values are dropped.
        """
        with self.lock:
            unsaved, self._unsaved = self._unsaved, {}
            unsaved = {job: values for job, values in unsaved.items() if job in self.records}
            said = self.history.take()
        self.history.flush(said)
        with self.lock:
            for job in said.keys() - self.records.keys():
                self.history.forget(job)  # it was deleted meanwhile
        try:
            return self._store_each(unsaved)
        except StoreError as exc:
            logger.warning("%s; trying again", exc)
            with self.lock:
                for job, values in unsaved.items():
                    self._unsaved[job] = {**values, **self._unsaved.get(job, {})}
        return {}

    def _store_each(self, unsaved: dict[str, dict[str, Any]]) -> dict[str, RequestError]:
        refused: dict[str, RequestError] = {}
        if not unsaved:
            return refused
        try:
            self.store.update(unsaved)
            return refused
        except RequestError:
            pass  # of one of them, and the others go on
        for job, values in unsaved.items():
            try:
                self.store.update({job: values})
            except RequestError as exc:
                logger.error("what job %s said can't be stored: %s", job, exc)
                refused[job] = exc
        return refused

    # -- telling (the caller has the lock) -------------------------------------------------------------------------

    def announce(self, record: JobRecord) -> None:
        """The state of a job has changed: to the streams, to those who wait, to the other parts."""
        self.tell_list("changed", record)
        self.emit(record.id, messages.State(state=record.state.value, reason=record.reason or record.error))
        end = _end_message(record)
        if end is not None:
            self.emit(record.id, end)
            self.ends.notify_all()
        for moved in self.on_move:
            moved(record)

    def emit(self, job: str, message: Message) -> None:
        """A message of a job, or about it: to its stream, its history, and the other parts."""
        self.history.note(job, self.streams.put(job, message))
        self.whisper(job, message)

    def whisper(self, job: str, message: Message) -> None:
        """The same to the other parts alone."""
        for heard in self.on_message:
            heard(job, message)

    def tell_list(self, change: str, record: JobRecord) -> None:
        """To those who follow the list of jobs."""
        message = Message("JobChanged", change=change, summary=record.summary())
        message.__dict__["_size"] = record.best_size
        self.streams.put(QUEUE, message)

    def join(self, record: JobRecord) -> Message:
        """The present state of a job, for a new listener."""
        k, n, units = record.progress or (None, None, None)
        return messages.Join(k=k, n=n, units=units, partial=from_plain(record.best), state=record.state.value)

    def open_stream(self, record: JobRecord) -> None:
        """From now on a new listener to that job first gets its present state."""
        self.streams.set_header(record.id, lambda: self.join(record))

    def _list_header(self) -> Message:
        jobs = [record.summary() for record in self.records.values() if not record.archived]
        return Message("Jobs", jobs=jobs)

    def listen(self, key: str, target: Any = None, size: int | None = None) -> Any:
        """Listen to a stream; the header and what follows fit together exactly."""
        with self.lock:  # state changes and their messages are made under it
            extra = {} if size is None else {"size": size}
            record = self.records.get(key)
            if record is not None and self.streams.header(key) is None:
                self.open_stream(record)
            listener = self.streams.listen(key, target, **extra)
            end = _end_message(record) if record is not None else None
            if record is not None and end is not None:  # nothing more will come
                end.job, end.number, end.time = key, self.streams.number(key), record.ended or 0.0
                listener.offer(end)
            return listener


def _set(record: JobRecord, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(record, name, value)


def _end_message(record: JobRecord) -> Message | None:
    if record.state is JobState.COMPLETE:
        return messages.Completed(final=from_plain(record.result))
    if record.state is JobState.ERROR:
        return messages.Error(error=record.error, trace=record.trace)
    if record.state is JobState.ABORTED:
        return messages.Aborted(reason=record.reason, partial=from_plain(record.best))
    if record.state is JobState.CANCELLED:
        return messages.Cancelled(reason=record.reason)
    return None
