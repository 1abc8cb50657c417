"""The job manager: keeps the list of jobs, starts those whose time has come, and tells everybody what changes.

    submit --> admission --> store --> Depends --(ready)--> pending --> start thread --> Execution, one per active job
                                          ^                                                 |  units --> Desk
                                          |____ atoms <---- ends, messages, results <-------|

Threads: `jobs-start` (gives pending jobs runners), `jobs-units` (the desk's), `jobs-tick` (what is stored a little
later; servers counted), `jobs-mail` (where there are mails to send), `jobs-judge` (tests conditions), `jobs-wait`
(for a while after the start: builds conditions that were stored), `jobs-fetch` (some), one per active job. All state
is behind one lock, under which nothing is computed, fetched or checked that a client's input makes long; every state
change is stored before anybody hears of it, but for moves that follow from conditions: after a crash they follow
again.

Lives here: `JobManager`: start and stop, recovery, submission, the tick.
Elsewhere:  its layers, from the bottom: `telling.py`, `waiting.py`, `running.py`, `asking.py`; checks at submission
            (`admission.py`), the store (`store/`), what clients may ask (`server.py`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grid.jobs.conditions.atoms import KnownAtom
from grid.jobs.conditions.tree import atoms_in
from grid.jobs.host.errors import JobError, RequestError, StoreError
from grid.jobs.host.messages import Message
from grid.jobs.manager.admission import admit, build
from grid.jobs.manager.asking import Asking
from grid.jobs.modules.install import SERVICE as INSTALL
from grid.jobs.record import Record
from grid.jobs.rules.states import JobState

logger = logging.getLogger(__name__)


class JobManager(Asking):
    """See the module. `start` recovers what the store has; `stop` gives active jobs back to it."""

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> JobManager:
        """Recover what the store has, and begin to work."""
        for problem in self.modules.load():
            logger.warning("%s", problem)
        waiting = self._recover()
        self.engine.start()
        self.desk.start()
        self._judge.start()
        self._mailer.nudge()
        for name, body, given in (
            ("jobs-start", self._start_jobs, ()),
            ("jobs-tick", self._tick, ()),
            ("jobs-wait", self._resume, (waiting,)),
        ):
            thread = threading.Thread(target=body, args=given, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> None:
        """Have active jobs take a checkpoint and go back to the store; then end. Harmless if done already."""
        with self._news:
            if self._stopping:
                return
            self._stopping = True
            if self._troubled:
                self.store.give_room()  # what is at work has to be stored now
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
        self._judge.stop()
        self._fetcher.stop()
        self._elsewhere.stop()
        self.modules.close()
        self._mailer.stop()
        self._save_dirty()
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

    def _recover(self) -> list[Record]:
        """Take in what the store has; the jobs whose conditions are to be built yet."""
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
                self._count(record, 1)
            self._numbers = itertools.count(max((record.number for record in records), default=0) + 1)
            for record in records:
                if record.state is JobState.PENDING:
                    self._enqueue(record)
            for race, (jobs, expression) in self.store.races().items():
                self._open_race(race, jobs, expression)
        return [record for record in records if record.state is JobState.WAITING]

    def _resume(self, waiting: list[Record]) -> None:
        """Thread: conditions and races that were stored wait again; they may hold many expressions."""
        for record in waiting:
            if self._stopping:
                return
            try:
                condition = build(record.condition, self.settings.most, self.records.__contains__)
                why = ""
            except Exception as exc:  # a job that it waited for was deleted by hand, say, or it is of an older version
                condition, why = None, str(exc)
            with self._news:
                if record.state is not JobState.WAITING or self.records.get(record.id) is not record:
                    continue
                if condition is None:
                    self._decided.append((record.id, why))
                else:
                    self._wait_for_condition(record, condition)
                self._settle()
        for race in list(self._races):
            if self._stopping:
                return
            self._run_race(race)

    # -- submission ------------------------------------------------------------------------------------------------

    def submit(
        self,
        owner: str,
        submissions: Sequence[Mapping[str, Any]],
        may_wait: Callable[[KnownAtom], None] = lambda atom: None,
    ) -> list[Record]:
        """New jobs, all or none; stored when this returns. See `admission.admit` for what each is.

        They are checked and stored without the lock that others need: only then are they put into the tables.

        Args:
            may_wait: Raises for an atom that the owner may not wait for.
        """
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
                    exists=self.records.__contains__,
                    most=self.settings.most,
                    may_wait=may_wait,
                    installing=self._installing,
                )
            )
        if self._stopping:
            raise JobError("the job server is stopping", hint="Submit again when it is back")
        self._check_share(owner, [each.record for each in admitted])
        if admitted:
            self.store.insert([each.record for each in admitted])
        with self._news:
            for each in admitted:
                record = each.record
                self.records[record.id] = record
                self._count(record, 1)
                if each.late:
                    self._late[record.id] = each.memo
                self._tell_queue("created", record)
            for each in admitted:
                if each.condition is None:
                    self._enqueue(each.record)
                else:
                    self._wait_for_condition(each.record, each.condition)
            self._settle()
            self._news.notify_all()
        return [each.record for each in admitted]

    def _check_share(self, owner: str, records: Sequence[Record]) -> None:
        """Whether a user may have so many more jobs. Raises RequestError."""
        most, most_bytes = self.settings.jobs_each, self.settings.bytes_each
        jobs, size = self._owned.get(owner, (0, 0))
        if jobs + len(records) > most or size + sum(record.size for record in records) > most_bytes:
            raise RequestError(
                f"{owner} has {jobs} jobs here, with {size} bytes of requests; {most} and {most_bytes} are kept",
                hint="Delete some that have ended: grid jobs delete",
            )

    def _installing(self, owner: str, service: str, tree: Any) -> str | None:
        """The job that installs the module of a service which is not here yet: one that the condition names, else one
        of the owner's that has not ended and is for a module of that name.
        """
        with self._lock:
            named = {str(atom.get("job")) for atom in atoms_in(tree) if atom.get("atom") == "completed"}
            installs = [record for record in self.records.values() if record.service == INSTALL]
        module = service.rpartition("/")[2].partition(".")[0]
        mine = [each for each in installs if each.id in named or (each.owner == owner and not each.state.ended)]
        for record in reversed(mine):
            if record.id in named or record.request["data"].get("name") == module:
                return record.id
        return None

    def register(self, service: Any) -> None:
        """Make a service available; jobs that waited for it can start."""
        self.registry.add(service)
        with self._news:
            for job in self._homeless.pop(service.name(), set()):
                record = self.records.get(job)
                if record is not None and record.state is JobState.PENDING:
                    self._enqueue(record)
            self._news.notify_all()

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
                    self._look_at_sources()
                if turn % 20 == 0:
                    self._save_credits()
                    self.store.set_aside()
            except Exception:
                logger.exception("the tick stumbled, and goes on")

    def _save_dirty(self) -> None:
        with self._lock:
            dirty, self._dirty = self._dirty, {}
            dirty = {job: values for job, values in dirty.items() if job in self.records}
            said = self.history.take()
        self._write_history(said)
        if dirty:
            try:
                self._store_dirty(dirty)
            except StoreError as exc:
                logger.warning("%s; trying again", exc)
                with self._lock:
                    for job, values in dirty.items():
                        self._dirty[job] = {**values, **self._dirty.get(job, {})}

    def _store_dirty(self, dirty: dict[str, dict[str, Any]]) -> None:
        try:
            self.store.update(dirty)
            return
        except RequestError:
            pass  # of one of them, and the others go on
        for job, values in dirty.items():
            try:
                self.store.update({job: values})
            except RequestError as exc:
                logger.error("what job %s said can't be stored: %s", job, exc)
                with self._news:
                    execution = self._active.get(job)
                if execution is not None:
                    execution.fail(f"what it said can't be stored: {exc}")

    def _write_history(self, said: dict[str, list[Message]]) -> None:
        self.history.flush(said)
        with self._lock:
            for job in said.keys() - self.records.keys():
                self.history.forget(job)  # it was deleted meanwhile

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
