"""Active jobs: their messages, the messages to them, and their end.

    Execution --said, improved, ...--> Runs --> Book
    a client's message, an abort ----> Runs --> Execution, or kept until the job begins

Lives here: `Runs`. `Book.lock` guards its tables; an `Execution` has a lock of its own, taken inside of that one.
Elsewhere:  giving jobs a place (`starter.py`), the conversation with one (`execution.py`), their units (`desk.py`).
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import replace
from typing import Any

from grid.jobs.host import messages
from grid.jobs.host.errors import RequestError, StoreError
from grid.jobs.host.messages import Message
from grid.jobs.host.names import safe_key
from grid.jobs.host.plain import dumps, from_plain
from grid.jobs.mails.mailer import Mailer
from grid.jobs.manager.book import Book
from grid.jobs.manager.desks import Desks
from grid.jobs.manager.dispatch import Dispatch
from grid.jobs.manager.execution import Execution
from grid.jobs.manager.memory import Memory
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from grid.text import clean

logger = logging.getLogger(__name__)

LAST_TRY_S = 2.0
"""For the end of a job to be stored, while the manager stops and the store refuses."""
JOIN_S = 10.0
"""For a thread of a job to end, beyond the time that its job has."""


class Runs:
    """See the module."""

    def __init__(self, book: Book, desk: Desks, dispatch: Dispatch, memory: Memory, mailer: Mailer) -> None:
        self.book, self._dispatch, self._memory, self._mailer = book, dispatch, memory, mailer
        self.desk, self.settings = desk, book.settings
        self._active: dict[str, Execution] = {}
        self._early: dict[str, list[Message]] = {}  # messages for jobs that have not begun
        book.on_move.append(self._moved)

    # -- what the manager asks (the caller has the lock) -----------------------------------------------------------

    def owners(self) -> dict[str, str]:
        """Jobs that have a place -> their owners."""
        return {job: execution.record.owner for job, execution in self._active.items()}

    def execution(self, job: str) -> Execution | None:
        """The thread of a job; None: it is not at work."""
        return self._active.get(job)

    def begin(self, execution: Execution) -> None:
        """A job has a place: its thread begins, with the messages that came before."""
        job = execution.record.id
        self._active[job] = execution
        for message in self._early.pop(job, []):
            execution.send(message)
        execution.start()

    def control(self, record: JobRecord, message: Message) -> None:
        """A message for a job: now, or when it starts; dropped if it has ended. Raises RequestError: too many wait."""
        execution = self._active.get(record.id)
        waiting = len(self._early.get(record.id, ())) if execution is None else execution.n_waiting
        if waiting >= self.settings.messages_waiting and not record.state.ended:
            raise RequestError(
                f"{waiting} messages wait for job {record.id} already", hint="It takes in none: abort it"
            )
        if execution is not None:
            execution.send(message)
        elif not record.state.ended:
            self._early.setdefault(record.id, []).append(message)

    def release_memory(self, job: str) -> None:
        """The job computes nothing any more: those that waited for its result are pending again."""
        if self._dispatch.unpark(self._memory.release(job)):
            self.book.news.notify_all()

    def suspend_all(self, reason: str, grace_s: float) -> None:
        """The manager stops: have each job take a checkpoint and go back to the store. Called without the lock."""
        with self.book.lock:
            active = list(self._active.values())
        for execution in active:
            execution.suspend(reason, grace_s)
        deadline = time.monotonic() + grace_s + JOIN_S
        for execution in active:
            execution.join(max(0.1, deadline - time.monotonic()))

    def _moved(self, record: JobRecord) -> None:
        """Messages for a job that has ended before it began are dropped."""
        if record.state.ended:
            self._early.pop(record.id, None)

    # -- what jobs tell (`execution._Reports`) ----------------------------------------------------------------------

    def said(self, job: str, message: Message) -> None:
        """A message of a job."""
        with self.book.lock:
            record = self._at_work(job)
            if record is None:
                return
            if message.kind == "Progress":
                self.book.note(record, progress=[message.k, message.n, message.units])
                self.book.tell_list("changed", record)
            self.book.emit(job, message)

    def improved(self, job: str, value: Any, *, loud: bool) -> None:
        """A job has a better result."""
        message = messages.Improved(partial=from_plain(value))
        size = message.__dict__["_size"] = len(dumps(value))  # for the store of the last ones
        with self.book.lock:
            record = self._at_work(job)
            if record is None:
                return
            self.book.note(record, best=value, has_best=True, improved=time.time())
            self.book.mark(record, best_size=size)
            if loud:
                self.book.emit(job, message)
                self.book.tell_list("changed", record)
            else:
                self.book.whisper(job, message)

    def paused(self, job: str, is_paused: bool) -> None:
        """A job stands still at a safe point, or goes on."""
        with self.book.lock:
            record = self._at_work(job)
            if record is not None:
                self.book.mark(record, is_paused=is_paused)
                self.book.tell_list("changed", record)

    def _at_work(self, job: str) -> JobRecord | None:
        record = self.book.records.get(job)
        return record if record is not None and record.state is JobState.ACTIVE else None

    def store_checkpoint(self, job: str, state: bytes) -> None:
        """A job can start again from here."""
        try:
            self.book.store.keep_checkpoint(job, state)
        except StoreError as exc:
            logger.warning("the checkpoint of %s was not stored, the last one stays: %s", job, exc)

    def store_file(self, job: str, name: str, data: bytes) -> None:
        """An output file of a job."""
        try:
            directory = self.book.store.directory / "jobs" / safe_key(job)
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
        book, bare = self.book, False
        files: dict[str, str] | None = None
        if outcome == "complete" and (known := book.records.get(job)) is not None and known.memo:
            files = self._memory.made(job)  # reading them takes time: not under the lock
            if files is None:
                book.mark(known, memo="")
        end: float | None = None
        while not book.halted.is_set():
            try:
                with book.lock:
                    record = book.records.get(job)
                    if record is not None:
                        if bare:
                            book.mark(record, best=None, has_best=False, progress=None, memo="")
                        self.end(record, outcome, value, error, trace, files)
                book.troubled = False
                return
            except StoreError as exc:
                book.troubled = True
                logger.warning("the end of %s is not stored yet: %s", job, exc)
                if book.stopping:
                    end = end or time.monotonic() + LAST_TRY_S
                    if time.monotonic() > end:
                        logger.error("the end of %s could not be stored: it runs again from its checkpoint", job)
                        return
                book.halted.wait(0.2 if book.stopping else 1.0)
            except Exception as exc:
                logger.exception("the end of %s (%s) could not be kept", job, outcome)
                if bare:
                    raise
                said = clean(f"{type(exc).__name__}: {exc}", 2_000)
                error = f"its end ({outcome}) could not be kept ({said})"
                outcome, value, trace, bare = "error", None, "", True

    def suspended(self, job: str, reason: str) -> None:
        """An active job goes back to the queue, and goes on from its checkpoint when there is a runner."""
        with self.book.lock:
            record = self._at_work(job)
            if record is None:
                return
            self._active.pop(job, None)
            self.desk.close(job, self.settings.abort_grace_s)
            self.release_memory(job)
            best = {"best": record.best, "has_best": record.has_best}
            self.book.store_soon({job: {"state": JobState.PENDING, "reason": reason, **best}})
            self.book.apply(record, JobState.PENDING, reason=reason)

    def lost(self, job: str, why: str) -> None:
        """The process that ran a job died: again, unless that was so too often."""
        with self.book.lock:
            record = self.book.records.get(job)
            again = record is not None and record.attempt < self.settings.attempts
        if again:
            logger.warning("job %s lost its process and begins again: %s", job, why)
            self.suspended(job, f"its process died: {why.splitlines()[0]}")
        else:
            self.ended(job, "error", None, f"its process died {self.settings.attempts} times: {why}", "")

    def execution_over(self, execution: Execution) -> None:
        """Its thread ends."""
        with self.book.news:
            if self._active.get(execution.record.id) is execution:
                del self._active[execution.record.id]
            self.book.news.notify_all()

    def end(
        self, record: JobRecord, outcome: str, value: Any, error: str, trace: str, files: dict[str, str] | None = None
    ) -> None:
        """The end of an active job, stored and told; nothing happens if it has ended. The caller has the lock.

        Args:
            files: What the job left in its directory -> sha256, if its result is remembered.
        """
        if record.state is not JobState.ACTIVE:
            return  # somebody was first
        state = JobState(outcome)
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
        try:
            note = self._mailer.note(replace(record, **values))
        except Exception:
            logger.exception("nobody is told by mail that %s ended", record.id)
            note = None
        remember = record.memo if state is JobState.COMPLETE else ""
        if not self.book.complete(record, values, remember, note, files):
            return
        self._active.pop(record.id, None)
        self.release_memory(record.id)
        self.desk.close(record.id, self.settings.abort_grace_s)
        if note is not None:
            self._mailer.noted(note)
        self.book.announce(record)
