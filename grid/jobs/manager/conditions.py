"""Jobs that wait: their conditions, the atoms that these are made of, and the moves that follow from them.

    a job is told to wait --> its atoms, one for each definition, are given to the world --> an atom is decided
        --> a notice on the stream --> `Depends` --> the job is pending or cancelled, told at once, stored together

Moves that follow from conditions are made in memory and stored together afterwards: after a crash they follow again.

Lives here: `Conditions`: the register of waiting jobs, and the world of atoms (`conditions/atoms.AtomWorld`).
            `Book.lock` guards its tables.
Elsewhere:  who is told when a condition is decided (`conditions/depends.py`), testing expressions (`judge.py`), files
            and other servers (`fetch/`).
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grid.errors import GridError
from grid.jobs.api import CONDITIONS
from grid.jobs.conditions.algebra import Atom, C, Condition, F, T, Value
from grid.jobs.conditions.atoms import HasServers, IsElsewhere, IsFetched, JobAtom, JobView, KnownAtom
from grid.jobs.conditions.depends import Depends, Registration
from grid.jobs.conditions.tree import swapped
from grid.jobs.conditions.work import Work
from grid.jobs.fetch.deposits import Deposits
from grid.jobs.fetch.elsewhere import Elsewhere
from grid.jobs.fetch.fetcher import Fetcher, WantedFile
from grid.jobs.host.messages import Message
from grid.jobs.manager.book import Book
from grid.jobs.manager.judge import Judge, verdict
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState

logger = logging.getLogger(__name__)


class Conditions:
    """See the module.

    Args:
        servers: How many servers there are.
    """

    def __init__(self, book: Book, deposits: Deposits, servers: Callable[[], int]) -> None:
        self._book, self._servers = book, servers
        settings = book.settings
        self.depends = Depends()
        self._atoms: dict[str, KnownAtom] = {}
        self._followers: dict[str, list[JobAtom]] = {}
        self._registrations: dict[str, Registration] = {}
        self._decided: list[tuple[str, str]] = []  # job, why it can't run ("": it can)
        self._settling = False
        self.judge = Judge(book.lock, settings.events_waiting)
        self._elsewhere = Elsewhere(deposits, book.lock, settings)
        self._fetcher = Fetcher(
            book.store.directory / "fetched",
            settings.fetch,
            at_once=settings.fetches,
            each=settings.fetches_each,
            most=settings.fetches_waiting,
        )
        self.depends.notify = self._atom_changed  # type: ignore[method-assign]  # by way of the stream
        book.streams.tap(CONDITIONS, self.depends.put)
        book.on_message.append(self.heard)
        book.on_move.append(self.moved)

    def start(self) -> None:
        """Begin to test expressions."""
        self.judge.start()

    def stop(self) -> None:
        """End all work of atoms; the next manager begins the undecided ones again."""
        self.judge.stop()
        self._fetcher.stop()
        self._elsewhere.stop()

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait_for(self, record: JobRecord, condition: Condition) -> None:
        """The job waits for that; with `settle` it moves, if that is decided already."""
        job = record.id
        try:
            registration = self.register(
                condition, record.owner, lambda: self.decide(job), lambda reason: self.decide(job, reason)
            )
        except GridError as exc:
            self.decide(job, str(exc))
            return
        if not registration.done:
            self._registrations[job] = registration

    def register(
        self, condition: Condition, owner: str, ready: Callable[[], Any], cancel: Callable[[str], Any]
    ) -> Registration:
        """Have a condition waited for, in the owner's share, with one atom for each definition."""
        return self.depends.register(swapped(condition, lambda atom: self._adopted(atom, owner)), ready, cancel)

    def decide(self, job: str, reason: str = "") -> None:
        """The condition of a job is satisfied, or can't be (`reason`); `settle` makes the move."""
        self._decided.append((job, reason))

    def forget(self, job: str) -> None:
        """That job does not wait any more."""
        registration = self._registrations.pop(job, None)
        if registration is not None:
            registration.unregister()

    def waits_for(self, job: str) -> Condition | None:
        """The condition for which a job waits; None: it waits for nothing."""
        registration = self._registrations.get(job)
        return registration.condition if registration is not None else None

    def settle(self) -> None:
        """Make the moves that conditions have decided, and those that follow from these; store them together."""
        if self._settling:
            return
        self._settling = True
        changes: dict[str, dict[str, Any]] = {}
        try:
            while self._decided:
                decided, self._decided = self._decided, []
                for job, reason in decided:
                    record = self._book.records.get(job)
                    self._registrations.pop(job, None)
                    if record is None or record.state is not JobState.WAITING:
                        continue
                    if reason:
                        values = self._book.apply(record, JobState.CANCELLED, reason=reason, ended=time.time())
                    else:
                        values = self._book.apply(record, JobState.PENDING)
                    changes[job] = values
        finally:
            self._settling = False
        self._book.store_soon(changes)

    def look(self, condition: Condition) -> None:
        """Have the atoms of a condition that nobody waits for say how things stand. Starts nothing."""
        work = Work(self._book.settings.evaluate_units)
        n_servers: int | None = None
        open_ones: list[tuple[Atom, list[Message | JobView] | None]] = []
        with self._book.lock:  # all of them at one time: else a job ends between two of its atoms
            for atom in condition.depends:
                known = self._atoms.get(atom.id)
                if known is not None and known is not atom and known.state is not F:
                    atom.decide(known.state, known.reason)
                else:
                    open_ones.append((atom, self._events(atom) if isinstance(atom, JobAtom) else None))
        for atom, events in open_ones:
            if isinstance(atom, JobAtom):
                if events is None:
                    found: tuple[Value, str] | None = (C, f"there is no job {atom.job}")
                else:
                    verdicts = (verdict(atom, event, work) for event in events)
                    found = next((each for each in verdicts if each is not None), None)
                if found is not None:
                    atom.decide(*found)
            elif isinstance(atom, HasServers):
                n_servers = self._servers() if n_servers is None else n_servers
                if n_servers >= atom.n:
                    atom.satisfy()
            elif isinstance(atom, IsFetched) and atom.sha256 is None:
                path = self.fetched(atom.url)
                if path.is_file() and atom.size in (None, path.stat().st_size):
                    atom.satisfy()

    def _events(self, atom: JobAtom) -> list[Message | JobView] | None:
        """The state of its job that an atom would have seen by now; None: there is no such job."""
        record = self._book.records.get(atom.job)
        if record is None:
            return None
        view = record.view() if atom.is_tested else JobView(record.id, record.state.value, record.why)
        past = [message for kind in atom.past for message in self._book.history.of(atom.job, kind)]
        return [*past, view]

    # -- news of jobs (`Book.on_message`, `on_move`) -------------------------------------------------------------------

    def heard(self, job: str, message: Message) -> None:
        """To the atoms that follow the job."""
        with self.depends.together():
            for atom in list(self._followers.get(job, ())):
                self.judge.add(atom, message) if atom.is_tested else atom.hear(message)
        self.settle()

    def moved(self, record: JobRecord) -> None:
        """To the atoms that follow the job."""
        view = None
        with self.depends.together():
            for atom in list(self._followers.get(record.id, ())):
                try:
                    view = view or record.view()
                    self.judge.add(atom, view) if atom.is_tested else atom.see(view)
                except Exception as exc:
                    logger.exception("the condition %s failed", atom)
                    atom.cancel(f"the condition failed ({type(exc).__name__})")
        self.settle()

    def count_servers(self) -> None:
        """Servers announce themselves to nobody: look whether there are as many as atoms want."""
        waiting = [atom for atom in self._atoms.values() if isinstance(atom, HasServers)]
        if waiting:
            size = self._servers()
            for atom in waiting:
                if size >= atom.n:
                    atom.satisfy()

    # -- the world of atoms (`conditions.atoms.AtomWorld`) -------------------------------------------------------------

    def _adopted(self, atom: KnownAtom, owner: str) -> KnownAtom:
        """One atom for each definition, shared by all who wait for it."""
        known = self._atoms.get(atom.id)
        if known is None:
            atom.world, atom.owner = self, owner
            known = self._atoms[atom.id] = atom
        return known

    def _atom_changed(self, atom: Any) -> None:
        """An atom says that it changed: a notice on the stream, to which the register listens."""
        status = {T: "ready", C: "cancelled"}.get(atom.state, "pending")
        with self._book.lock:
            self._book.streams.put(CONDITIONS, Message("Notify", atom=atom.id, status=status, text=str(atom)))
            self.settle()

    def follow(self, atom: JobAtom) -> None:
        """See `conditions.atoms.AtomWorld`."""
        with self._book.lock:
            record = self._book.records.get(atom.job)
            if record is None:
                atom.cancel(f"there is no job {atom.job}")
                return
            self._followers.setdefault(atom.job, []).append(atom)
            view = record.view()
            hear, see = (atom.hear, atom.see)
            if atom.is_tested:
                hear = see = functools.partial(self.judge.add, atom)
            for kind in atom.past:
                for message in self._book.history.of(atom.job, kind):
                    hear(message)
            if atom.state is F:
                see(view)

    def unfollow(self, atom: JobAtom) -> None:
        """See `conditions.atoms.AtomWorld`."""
        with self._book.lock:
            followers = self._followers.get(atom.job, [])
            if atom in followers:
                followers.remove(atom)
            if not followers:
                self._followers.pop(atom.job, None)
            self.judge.forget(atom)
            self._atoms.pop(atom.id, None)

    def fetch(self, atom: IsFetched) -> None:
        """See `conditions.atoms.AtomWorld`."""

        def done(reason: str | None) -> None:
            with self._book.lock:
                if reason is None:
                    atom.satisfy()
                else:
                    atom.cancel(reason)

        self._fetcher.fetch(
            WantedFile(key=atom.id, owner=atom.owner, url=atom.url, sha256=atom.sha256, size=atom.size, done=done)
        )

    def unfetch(self, atom: IsFetched) -> None:
        """See `conditions.atoms.AtomWorld`."""
        self._fetcher.give_up(atom.id)
        self._atoms.pop(atom.id, None)

    def fetched(self, url: str) -> Path:
        """Where the file of a URL lies, or will."""
        return self._fetcher.path(url)

    def supply(self, atom: HasServers) -> None:
        """See `conditions.atoms.AtomWorld`; see `count_servers`."""

    def unsupply(self, atom: HasServers) -> None:
        """See `conditions.atoms.AtomWorld`."""
        self._atoms.pop(atom.id, None)

    def watch(self, atom: IsElsewhere) -> None:
        """See `conditions.atoms.AtomWorld`."""
        self._elsewhere.watch(atom)

    def unwatch(self, atom: IsElsewhere) -> None:
        """See `conditions.atoms.AtomWorld`."""
        self._elsewhere.unwatch(atom)
        self._atoms.pop(atom.id, None)
