"""The state of a job manager, and telling about it: streams, atoms that follow a job, mails.

Lives here: `Telling`, the lowest layer of the manager.
Elsewhere:  conditions (`waiting.py`), jobs at work (`running.py`), what clients ask (`asking.py`), all of it
            (`job_manager.py`).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from grid.jobs.api import QUEUE
from grid.jobs.conditions.atoms import JobAtom, KnownAtom
from grid.jobs.conditions.depends import Depends
from grid.jobs.fetch.deposits import Deposits
from grid.jobs.fetch.elsewhere import Elsewhere
from grid.jobs.fetch.fetcher import Fetcher
from grid.jobs.fetch.job import FetchURL
from grid.jobs.host import messages
from grid.jobs.host.errors import UnknownJob
from grid.jobs.host.messages import Message
from grid.jobs.host.plain import from_plain
from grid.jobs.line.streams import Streams
from grid.jobs.mails.mailer import Mailer
from grid.jobs.manager.desk import Desk
from grid.jobs.manager.engine import Engine
from grid.jobs.manager.execution import Execution
from grid.jobs.manager.history import History
from grid.jobs.manager.judge import Judge
from grid.jobs.manager.memory import Memory
from grid.jobs.manager.registry import Registry
from grid.jobs.modules.install import InstallService, Modules
from grid.jobs.record import Record
from grid.jobs.rules.credits import Ledger
from grid.jobs.rules.scheduler import Scheduler
from grid.jobs.rules.states import JobState
from grid.jobs.settings import Settings
from grid.jobs.store.store import Store

logger = logging.getLogger(__name__)


class Telling:
    """See the module. Whoever calls its private methods holds the lock."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        settings: Settings | None = None,
        registry: Registry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.engine = store, engine
        self.settings = settings or Settings()
        self.registry = registry or Registry()
        self.began = clock()
        self.streams = Streams(clock)
        self.history = History(store.directory / "history")
        self.depends = Depends()
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
        self._late: dict[str, bool | None] = {}  # jobs that came before their service -> what they want of memory
        self._edited: dict[str, str] = {}  # file -> service that waits, since the file is not as it was
        self._active: dict[str, Execution] = {}
        self._memory = Memory(store)
        self._parked: set[str] = set()  # pending jobs that wait for an equal one, see `memory.py`
        self._early: dict[str, list[Message]] = {}
        self._dirty: dict[str, dict[str, Any]] = {}
        self._owned: dict[str, list[int]] = {}  # owner -> jobs, bytes of their requests
        self._races: dict[str, dict[str, Any]] = {}
        self._users: dict[str, dict[str, Any]] = {}
        self._stopping = False
        self._troubled = False  # the store refused what it was given last
        self._halted = threading.Event()
        self._threads: list[threading.Thread] = []
        self._mailer = Mailer(store, self.settings, self._users_now, clock)
        self._fetcher = Fetcher(
            store.directory / "fetched",
            self.settings.fetch,
            at_once=self.settings.fetches,
            each=self.settings.fetches_each,
            most=self.settings.fetches_waiting,
        )
        self._judge = Judge(self._lock, self.settings.events_waiting)
        self.deposits = Deposits(store.directory)
        self._elsewhere = Elsewhere(self.deposits, self._lock, self.settings)
        self.modules = Modules(store.directory, self.registry)
        engine.paths = [str(self.modules.code)]
        for own in (FetchURL, InstallService):  # services of grid itself, which run in this process
            self.registry.add(type(own.__name__, (own,), {"manager": self}))
        self.streams.set_header(QUEUE, self._queue_header)

    def _users_now(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            return dict(self._users)

    def _settle(self) -> None:
        """Make the moves that conditions have decided: `waiting.py`."""
        raise NotImplementedError

    def _count(self, record: Record, sign: int) -> None:
        """A job comes (1) or is deleted (-1), in its owner's share."""
        owned = self._owned.setdefault(record.owner, [0, 0])
        owned[0] += sign
        owned[1] += sign * record.size
        if not owned[0]:
            del self._owned[record.owner]

    def _enqueue(self, record: Record) -> None:
        heapq.heappush(self._pending.setdefault(record.owner, []), (-record.priority, record.number, record.id))
        self._news.notify_all()

    def _set(self, record: Record, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(record, name, value)

    def _announce(self, record: Record) -> None:
        """The state of a job has changed: to the streams, to atoms, to who waits."""
        self._tell_queue("changed", record)
        self._emit(record.id, messages.State(state=record.state.value, reason=record.reason or record.error))
        end = _end_message(record)
        if end is not None:
            self._emit(record.id, end)
            self._early.pop(record.id, None)
            self._ends.notify_all()
        view = None
        for atom in list(self._followers.get(record.id, ())):
            try:
                view = view or record.view()
                self._judge.add(atom, view) if atom.is_tested else atom.see(view)
            except Exception as exc:
                logger.exception("the condition %s failed", atom)
                atom.cancel(f"the condition failed ({type(exc).__name__})")

    def _emit(self, job: str, message: Message) -> None:
        self.history.note(job, self.streams.put(job, message))
        self._to_followers(job, message)

    def _to_followers(self, job: str, message: Message) -> None:
        for atom in list(self._followers.get(job, ())):
            self._judge.add(atom, message) if atom.is_tested else atom.hear(message)
        self._settle()

    def _tell_queue(self, change: str, record: Record) -> None:
        message = Message("JobChanged", change=change, summary=record.summary())
        message.__dict__["_size"] = record.best_size
        self.streams.put(QUEUE, message)

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

    def record(self, job: str) -> Record:
        """The job's record. Raises UnknownJob."""
        record = self.records.get(job)
        if record is None:
            raise UnknownJob(f"there is no job {job!r}", hint="See `grid jobs list`", job=job)
        return record


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
