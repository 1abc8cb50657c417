"""The job manager: keeps the list of jobs, starts those whose time has come, and tells everybody what changes.

    submit --> admission --> Book --> Conditions --(ready)--> Dispatch --> Starter --> Runs: an Execution per active job
                                         ^                                                 |  units --> Desks
                                         |____ atoms <---- ends, messages, results <-------|

| part | its state | its lock |
| --- | --- | --- |
| `Book` | records, streams, history, what is not stored yet; the only writer | `Book.lock` |
| `Conditions`, `Races` | conditions and races that wait, their atoms | `Book.lock` |
| `Dispatch`, `Fitting` | pending jobs in their order, those whose service is not here | `Book.lock` |
| `Runs` | jobs at work, messages for jobs that have not begun | `Book.lock` |
| `Accounts` | addresses, tokens, credits as stored | its own |
| `Desks`, `Judge`, `Fetcher`, `Mailer`, `ServiceRegistry`, `Modules`, `Streams` | units, files, letters | their own |

Why `Book.lock` is one for five: see `book.py`. Own locks are taken inside of it, never the other way round.

Threads: `jobs-start` (the starter's), `jobs-units` (the desk's), `jobs-tick` (what is stored a little later; servers
counted), `jobs-mail` (where there are mails to send), `jobs-judge` (tests conditions), `jobs-wait` (for a while after
the start: builds conditions that were stored), `jobs-fetch` (some), one per active job.

Lives here: `JobManager`: its parts put together, start and stop, submission, the tick; what clients ask is handed on.
Elsewhere:  checks at submission (`admission.py`), the store (`store/`), what clients may ask (`server.py`).
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grid.jobs.conditions.algebra import Condition
from grid.jobs.conditions.atoms import KnownAtom
from grid.jobs.conditions.depends import Depends
from grid.jobs.fetch.deposits import Deposits
from grid.jobs.fetch.job import downloading
from grid.jobs.host.errors import JobError, RequestError, UnknownJob
from grid.jobs.host.messages import Message
from grid.jobs.host.plain import dumps
from grid.jobs.mails.mailer import Mailer
from grid.jobs.manager.accounts import Accounts
from grid.jobs.manager.admission import admit, build
from grid.jobs.manager.book import Book
from grid.jobs.manager.conditions import Conditions
from grid.jobs.manager.desks import Desks
from grid.jobs.manager.dispatch import Dispatch
from grid.jobs.manager.engine import Engine
from grid.jobs.manager.fitting import Fitting
from grid.jobs.manager.memory import Memory
from grid.jobs.manager.races import Races
from grid.jobs.manager.registry import ServiceRegistry
from grid.jobs.manager.runs import Runs
from grid.jobs.manager.starter import Starter
from grid.jobs.modules.install import Modules, installing
from grid.jobs.record import JobRecord
from grid.jobs.rules.credits import Ledger
from grid.jobs.rules.scheduler import UnitScheduler
from grid.jobs.rules.states import JobState
from grid.jobs.settings import Settings
from grid.jobs.store.store import Store
from grid.text import clean

logger = logging.getLogger(__name__)

REASON_CHARS = 2_000
"""Longest reason that a client gives; the rest is cut off."""
JOIN_S = 10.0
"""For a thread to end once the manager has halted."""
RARE = 20
"""Ticks between looks at credits, and at the room that the store sets aside."""


class JobManager:
    """See the module. `start` recovers what the store has; `stop` gives active jobs back to it."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        settings: Settings | None = None,
        registry: ServiceRegistry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.engine = store, engine
        self.settings = settings = settings or Settings()
        self.registry = registry or ServiceRegistry()
        self.book = Book(store, settings, clock)
        self.accounts = Accounts(store)
        self.ledger = Ledger(settings.allowance, settings.half_life_s)
        self.desk = Desks(
            engine,
            lambda: UnitScheduler(
                self.ledger,
                rules=settings.rules,
                minimum_share=settings.minimum_share,
                lease_s=settings.lease_s,
                weights=settings.weights,
            ),
        )
        self.deposits = Deposits(store.directory)
        self.modules = Modules(store.directory, self.registry)
        self.mailer = Mailer(store, settings, self.accounts.all, clock)
        memory, dispatch = Memory(store), Dispatch(self.book.records.get)
        self.runs = Runs(self.book, self.desk, dispatch, memory, self.mailer)
        self.conditions = Conditions(self.book, self.deposits, engine.size)
        self.races = Races(self.book, self.conditions, self.abort)
        self.fitting = Fitting(self.book, self.registry)
        self.starter = Starter(engine, self.registry, self.conditions, dispatch, self.fitting, memory, self.runs)
        self._threads: list[threading.Thread] = []
        engine.paths = [str(self.modules.code)]
        self.registry.add(downloading(settings.fetch, self.deposits, self._owner_of))
        self.registry.add(installing(self.modules, self._owner_of))

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> JobManager:
        """Recover what the store has, and begin to work."""
        for problem in self.modules.load():
            logger.warning("%s", problem)
        waiting = self._recover()
        self.engine.start()
        self.desk.start()
        self.conditions.start()
        self.mailer.nudge()
        self.starter.start()
        for name, body in (("jobs-tick", self._tick), ("jobs-wait", functools.partial(self._resume, waiting))):
            thread = threading.Thread(target=body, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> None:
        """Have active jobs take a checkpoint and go back to the store; then end. Harmless if done already."""
        book = self.book
        with book.news:
            if book.stopping:
                return
            book.stopping = True
            if book.troubled:
                self.store.give_room()  # what is at work has to be stored now
            book.news.notify_all()
            book.ends.notify_all()
        self.runs.suspend_all("the server stopped", self.settings.suspend_s)
        book.halted.set()
        self.starter.join(JOIN_S)
        for thread in self._threads:
            thread.join(JOIN_S)
        self.desk.stop()
        self.conditions.stop()
        self.modules.close()
        self.mailer.stop()
        self._save()
        self.engine.stop()
        book.streams.hangup()
        self.store.close()

    def __enter__(self) -> JobManager:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether it has been told to stop."""
        return self.book.stopping

    def _recover(self) -> list[JobRecord]:
        """Take in what the store has; the jobs whose conditions are to be built yet."""
        records = self.book.load()
        self.accounts.load(self.ledger, self.settings.half_life_s)
        with self.book.lock:
            for record in records:
                if record.state is JobState.PENDING:
                    self.starter.add(record)
            self.races.load()
        return [record for record in records if record.state is JobState.WAITING]

    def _resume(self, waiting: list[JobRecord]) -> None:
        """Thread: conditions and races that were stored wait again; they may hold many expressions."""
        book = self.book
        for record in waiting:
            if book.stopping:
                return
            try:
                condition = build(record.condition, self.settings.most, book.records.__contains__)
                why = ""
            except Exception as exc:  # a job that it waited for was deleted by hand, say, or it is of an older version
                condition, why = None, str(exc)
            with book.lock:
                if record.state is not JobState.WAITING or book.records.get(record.id) is not record:
                    continue
                if condition is None:
                    self.conditions.decide(record.id, why)
                else:
                    self.conditions.wait_for(record, condition)
                self.conditions.settle()
        self.races.run()

    # -- the tick --------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Thread: values that are stored a little later, and changes that nobody announces."""
        turn = 0
        while not self.book.halted.wait(self.settings.tick_s):
            turn += 1
            try:
                self._save()
                self.desk.expire()
                with self.book.lock:
                    self.conditions.count_servers()
                    for service in self.fitting.mended():
                        self.starter.service_came(service)
                if turn % RARE == 0:
                    self.accounts.save_credits(self.desk.usage())
                    self.store.set_aside()
            except Exception:
                logger.exception("the tick stumbled, and goes on")

    def _save(self) -> None:
        for job, exc in self.book.save().items():
            with self.book.lock:
                execution = self.runs.execution(job)
            if execution is not None:
                execution.fail(f"what it said can't be stored: {exc}")

    # -- jobs come -------------------------------------------------------------------------------------------------

    def submit(
        self,
        owner: str,
        submissions: Sequence[Mapping[str, Any]],
        may_wait: Callable[[KnownAtom], None] = lambda atom: None,
    ) -> list[JobRecord]:
        """New jobs, all or none; stored when this returns. See `admission.admit` for what each is.

        They are checked and stored without the lock that others need: only then are they put into the tables.

        Args:
            may_wait: Raises for an atom that the owner may not wait for.
        """
        book = self.book
        admitted = []
        for plain in submissions:
            number = book.next_number()
            admitted.append(
                admit(
                    plain,
                    owner=owner,
                    job=f"job-{number}",
                    number=number,
                    now=time.time(),
                    directory=self.store.directory,
                    registry=self.registry,
                    exists=book.records.__contains__,
                    most=self.settings.most,
                    may_wait=may_wait,
                    installing=self.fitting.installing,
                )
            )
        if book.stopping:
            raise JobError("the job server is stopping", hint="Submit again when it is back")
        book.insert(owner, [each.record for each in admitted])
        with book.lock:
            for each in admitted:
                if each.late:
                    self.fitting.came_early(each.record.id, each.memo)
                book.enter(each.record)
            for each in admitted:
                if each.condition is None:
                    self.starter.add(each.record)
                else:
                    self.conditions.wait_for(each.record, each.condition)
            self.conditions.settle()
        return [each.record for each in admitted]

    def register(self, service: Any) -> None:
        """Make a service available; jobs that waited for it can start."""
        self.registry.add(service)
        with self.book.lock:
            self.starter.service_came(service.name())

    # -- what is asked about jobs ----------------------------------------------------------------------------------

    @property
    def lock(self) -> threading.RLock:
        """A reader of several things that have to fit together holds it; see `book.py`."""
        return self.book.lock

    @property
    def records(self) -> dict[str, JobRecord]:
        """Id -> record of every job that is not deleted."""
        return self.book.records

    @property
    def streams(self) -> Any:
        """The streams of messages, see `line/streams.py`."""
        return self.book.streams

    @property
    def depends(self) -> Depends:
        """The conditions that wait."""
        return self.conditions.depends

    def record(self, job: str) -> JobRecord:
        """The job's record. Raises UnknownJob."""
        return self.book.record(job)

    def _owner_of(self, job: str) -> str:
        return self.record(job).owner

    def listen(self, key: str, target: Any = None, size: int | None = None) -> Any:
        """Listen to a stream: header, then messages; see `Book.listen`."""
        return self.book.listen(key, target, size)

    def status(self, job: str) -> dict[str, Any]:
        """State, progress, times, reason; of active jobs the seconds since the last safe point and the oldest unit."""
        with self.lock:
            record = self.record(job)
            execution = self.runs.execution(job)
            condition = self.conditions.waits_for(job) if record.state is JobState.WAITING else None
            return {
                **record.summary(),
                "ready_age": execution.ready_age if execution is not None else None,
                "oldest_unit": self.desk.oldest(job) if record.state is JobState.ACTIVE else None,
                "waits_for": condition.text(8) if condition is not None else None,
            }

    def explain(self, record: JobRecord) -> str:
        """Why that job is where it is, in a sentence."""
        with self.lock:
            condition = self.conditions.waits_for(record.id)
            if condition is not None:
                return f"job {record.id} is {record.state}: {condition.explain()}"
            if record.summary()["paused"]:
                return f"job {record.id} is active and paused: it stands at a safe point until it is sent Resume"
        why = record.reason or record.error
        return f"job {record.id} is {record.state}{f': {why}' if why else ''}"

    def evaluate(self, tree: Any, may_wait: Callable[[KnownAtom], None]) -> Condition:
        """The condition of a tree, as things stand now; see `Conditions.look`."""
        condition = build(tree, self.settings.most, self.records.__contains__, may_wait)
        self.conditions.look(condition)
        return condition

    def wait(self, job: str, timeout: float | None) -> JobRecord | None:
        """Until it has ended; None if that takes longer than `timeout` seconds."""
        return self.book.wait(job, timeout)

    # -- what is done with jobs ------------------------------------------------------------------------------------

    def abort(self, job: str, reason: str = "", grace_s: float | None = None) -> None:
        """Ask a job to end; harmless if it has."""
        with self.lock:
            record = self.record(job)
            execution = self.runs.execution(job)
            if record.state in (JobState.WAITING, JobState.PENDING):
                self.cancel(job, clean(reason, REASON_CHARS) or "aborted before it ran")
            elif record.state is JobState.ACTIVE and execution is not None:
                grace = self.settings.abort_grace_s if grace_s is None else grace_s
                execution.abort(clean(reason, REASON_CHARS) or "aborted", grace)

    def stop_job(self, job: str, reason: str = "") -> None:
        """End a job at once. Raises UnknownJob if it is unknown or has ended."""
        with self.lock:
            record = self.record(job)
            if record.state.ended:
                raise UnknownJob(f"job {job!r} does not run: it is {record.state}", hint="Nothing to stop", job=job)
            self.abort(job, reason or "stopped", grace_s=0.0)

    def cancel(self, job: str, reason: str) -> None:
        """A job that does not run yet shall never run. Raises MoveError: it runs, or has ended."""
        with self.lock:
            record = self.record(job)
            self.book.move(record, JobState.CANCELLED, forget=True, reason=reason, ended=time.time())
            self.conditions.forget(job)

    def control(self, job: str, message: Message) -> None:
        """A message for a job: now, or when it starts; dropped if it has ended.

        Raises:
            RequestError: It is too large, or too many wait.
        """
        most, size = self.settings.message_bytes, len(dumps(message.to_plain()))
        if size > most:
            raise RequestError(f"a message of {size} bytes", hint=f"At most {most}; submit what is larger")
        with self.lock:
            self.runs.control(self.record(job), message)

    def archive(self, jobs: Sequence[str], archived: bool = True) -> None:
        """Mark jobs that have ended; they leave the list."""
        self.book.archive(jobs, archived)

    def delete(self, jobs: Sequence[str]) -> None:
        """Remove jobs that have ended, with their data; jobs that depend on them are cancelled."""
        self.book.delete(jobs)

    def race(self, jobs: Sequence[str], expression: str) -> str:
        """The first of these jobs with a result for which the expression holds ends the others; returns its id."""
        return self.races.open(jobs, expression)

    def race_status(self, race: str) -> dict[str, Any]:
        """`jobs`, `expression`, `winner` (a job, or None), `over`."""
        return self.races.status(race)

    # -- users -----------------------------------------------------------------------------------------------------

    def user(self, name: str) -> dict[str, Any]:
        """The account of a user: `email`, `mails`, `token` (its hash), `used`, `used_at`."""
        return self.accounts.find(name)

    def change_user(self, name: str, **values: Any) -> None:
        """Change what is known of a user."""
        self.accounts.change(name, **values)
        if "email" in values or "mails" in values:
            self.mailer.nudge()
