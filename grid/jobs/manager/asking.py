"""What may be asked of a job manager about its jobs: status, ends, messages, archives, races, users.

Lives here: `Asking`, a layer of the manager.
Elsewhere:  who may ask (`server.py`).
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from typing import Any

from grid.jobs.conditions.algebra import C, Condition, F, Value
from grid.jobs.conditions.atoms import HasServers, IsFetched, IsResult, JobAtom, JobView
from grid.jobs.conditions.expressions import Expression
from grid.jobs.conditions.work import Work
from grid.jobs.host.errors import JobError, RequestError, UnknownJob
from grid.jobs.host.messages import Message
from grid.jobs.host.names import safe_key
from grid.jobs.host.plain import dumps
from grid.jobs.manager.admission import atom_id
from grid.jobs.manager.judge import verdict
from grid.jobs.manager.running import Running
from grid.jobs.record import Record
from grid.jobs.rules.states import JobState, check_move
from grid.text import clean

logger = logging.getLogger(__name__)


REASON_CHARS = 2_000
"""Longest reason that a client gives; the rest is cut off."""


class Asking(Running):
    """See the module."""

    def status(self, job: str) -> dict[str, Any]:
        """State, progress, times, reason; of active jobs the seconds since the last safe point and the oldest unit."""
        with self._lock:
            record = self.record(job)
            execution = self._active.get(job)
            status = record.summary()
            status["ready_age"] = execution.ready_age if execution is not None else None
            status["paused"] = execution.paused if execution is not None else False
            status["oldest_unit"] = self.desk.oldest(job) if record.state is JobState.ACTIVE else None
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
                self.cancel(job, clean(reason, REASON_CHARS) or "aborted before it ran")
            elif record.state is JobState.ACTIVE and job in self._active:
                grace = self.settings.abort_grace_s if grace_s is None else grace_s
                self._active[job].abort(clean(reason, REASON_CHARS) or "aborted", grace)

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
        """A message for a job: now, or when it starts; dropped if it has ended.

        Raises:
            RequestError: It is too large, or too many wait.
        """
        most, size = self.settings.message_bytes, len(dumps(message.to_plain()))
        if size > most:
            raise RequestError(f"a message of {size} bytes", hint=f"At most {most}; submit what is larger")
        with self._news:
            record = self.record(job)
            execution = self._active.get(job)
            waiting = len(self._early.get(job, ())) if execution is None else execution.n_waiting
            if waiting >= self.settings.messages_waiting and not record.state.ended:
                raise RequestError(f"{waiting} messages wait for job {job} already", hint="It takes in none: abort it")
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
                self._count(record, -1)
                self._tell_queue("removed", record)
                self.streams.forget(job)
                self.history.forget(job)
        for job in jobs:
            shutil.rmtree(self.store.directory / "jobs" / safe_key(job), ignore_errors=True)

    def look(self, condition: Condition) -> None:
        """Have the atoms of a condition that nobody waits for say how things stand. Starts nothing."""
        work = Work(self.settings.evaluate_units)
        n_servers: int | None = None
        for atom in condition.depends:
            with self._lock:
                known = self._atoms.get(atom.id)
                if known is not None and known is not atom and known.state is not F:
                    atom.decide(known.state, known.reason)
                    continue
                record = self.records.get(atom.job) if isinstance(atom, JobAtom) else None
                view = None
                past: list[Message] = []
                if record is not None and isinstance(atom, JobAtom):
                    past = [message for kind in atom.past for message in self.history.of(atom.job, kind)]
                    view = record.view() if atom.is_tested else JobView(record.id, record.state.value, record.why)
            if isinstance(atom, JobAtom):
                if view is None:
                    found: tuple[Value, str] | None = (C, f"there is no job {atom.job}")
                else:
                    events: list[Message | JobView] = [*past, view]
                    verdicts = (verdict(atom, event, work) for event in events)
                    found = next((each for each in verdicts if each is not None), None)
                if found is not None:
                    atom.decide(*found)
            elif isinstance(atom, HasServers):
                n_servers = self.engine.size() if n_servers is None else n_servers
                if n_servers >= atom.n:
                    atom.satisfy()
            elif isinstance(atom, IsFetched) and atom.sha256 is None:
                path = self.fetched(atom.url)
                if path.is_file() and atom.size in (None, path.stat().st_size):
                    atom.satisfy()

    def race(self, jobs: Sequence[str], expression: str) -> str:
        """The first of these jobs with a result for which the expression holds ends the others; returns its id."""
        Expression(expression)
        with self._news:
            for job in jobs:
                self.record(job)
            if not jobs:
                raise RequestError("a race needs jobs", hint="Give one at least")
            self._forget_races()
            race = f"race-{next(self._numbers)}"
            self.store.keep_race(race, jobs, expression)
            self._open_race(race, list(jobs), expression)
        self._run_race(race)
        return race

    def _forget_races(self) -> None:
        """Make room for one more: of those that are decided the oldest are forgotten."""
        most = self.settings.races
        decided = [race for race, entry in self._races.items() if entry["over"]]
        for race in decided[: max(0, len(decided) - most + 1)]:
            del self._races[race]
        if len(self._races) - len(decided) >= most:
            raise RequestError(f"{most} races are open", hint="Wait until some are decided")

    def _open_race(self, race: str, jobs: list[str], expression: str) -> None:
        self._races[race] = {"jobs": jobs, "expression": expression, "winner": None, "over": False}

    def _run_race(self, race: str) -> None:
        entry = self._races[race]
        jobs, expression = entry["jobs"], entry["expression"]
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
            atom = IsResult(job, expression)
            atom.id = atom_id(atom.kind, atom.arguments)
            with self._news:
                owner = self.records[job].owner if job in self.records else ""
                self.depends.register(
                    self._adopted(atom, owner),
                    lambda job=job: won(job),  # type: ignore[misc]
                    lambda reason, job=job: left(job),  # type: ignore[misc]
                )
                self._settle()

    def race_status(self, race: str) -> dict[str, Any]:
        """`jobs`, `expression`, `winner` (a job, or None), `over`."""
        with self._lock:
            if race not in self._races:
                raise UnknownJob(f"there is no race {race!r}", hint="It may have been decided before a restart")
            return dict(self._races[race])

    def user(self, name: str) -> dict[str, Any]:
        """What is known of a user."""
        with self._lock:
            return dict(self._users.get(name, {"email": "", "mails": "", "token": "", "used": 0.0, "used_at": 0.0}))

    def keep_user(self, name: str, **values: Any) -> None:
        """Change what is known of a user."""
        with self._lock:
            self.store.keep_users({name: values})
            self._users[name] = {**self.user(name), **values}
        if "email" in values or "mails" in values:
            self._mailer.nudge()
