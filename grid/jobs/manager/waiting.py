"""Jobs that wait: their conditions, the atoms that these are made of, and the moves that follow from them.

Moves that follow from conditions are made in memory and stored together afterwards: after a crash they follow again.

Lives here: `Waiting`, a layer of the manager; the world that atoms live in (`conditions/atoms.World`).
Elsewhere:  who is told when a condition is decided (`conditions/depends.py`).
"""

from __future__ import annotations

import functools
import logging
import time
from pathlib import Path
from typing import Any

from grid.errors import GridError
from grid.jobs.api import CONDITIONS
from grid.jobs.conditions.algebra import C, Condition, F, T
from grid.jobs.conditions.atoms import HasServers, IsElsewhere, IsFetched, JobAtom, KnownAtom
from grid.jobs.conditions.tree import swapped
from grid.jobs.fetch.fetcher import Wanted
from grid.jobs.host.errors import StoreError
from grid.jobs.host.messages import Message
from grid.jobs.manager.telling import Telling
from grid.jobs.record import Record
from grid.jobs.rules.states import JobState, check_move

logger = logging.getLogger(__name__)


class Waiting(Telling):
    """See the module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.depends.notify = self._atom_changed  # type: ignore[method-assign]  # by way of the stream
        self.streams.tap(CONDITIONS, self.depends.put)

    def _adopted(self, atom: KnownAtom, owner: str) -> KnownAtom:
        """One atom for each definition, shared by all who wait for it."""
        known = self._atoms.get(atom.id)
        if known is None:
            atom.world, atom.owner = self, owner
            known = self._atoms[atom.id] = atom
        return known

    def _wait_for_condition(self, record: Record, condition: Condition) -> None:
        job = record.id
        try:
            condition = swapped(condition, lambda atom: self._adopted(atom, record.owner))
            registration = self.depends.register(
                condition, lambda: self._decided.append((job, "")), lambda reason: self._decided.append((job, reason))
            )
        except GridError as exc:
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
            self._troubled = True
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
            view = record.view()
            hear, see = (atom.hear, atom.see)
            if atom.is_tested:
                hear = see = functools.partial(self._judge.add, atom)
            for kind in atom.past:
                for message in self.history.of(atom.job, kind):
                    hear(message)
            if atom.state is F:
                see(view)

    def unfollow(self, atom: JobAtom) -> None:
        """See `conditions.atoms.World`."""
        with self._lock:
            followers = self._followers.get(atom.job, [])
            if atom in followers:
                followers.remove(atom)
            if not followers:
                self._followers.pop(atom.job, None)
            self._judge.forget(atom)
            self._atoms.pop(atom.id, None)

    def fetch(self, atom: IsFetched) -> None:
        """See `conditions.atoms.World`."""

        def done(reason: str | None) -> None:
            with self._news:
                if reason is None:
                    atom.satisfy()
                else:
                    atom.cancel(reason)

        self._fetcher.fetch(
            Wanted(key=atom.id, owner=atom.owner, url=atom.url, sha256=atom.sha256, size=atom.size, done=done)
        )

    def unfetch(self, atom: IsFetched) -> None:
        """See `conditions.atoms.World`."""
        self._fetcher.give_up(atom.id)
        self._atoms.pop(atom.id, None)

    def fetched(self, url: str) -> Path:
        """Where the file of a URL lies, or will."""
        return self._fetcher.path(url)

    def supply(self, atom: HasServers) -> None:
        """See `conditions.atoms.World`; looked at by the tick."""

    def unsupply(self, atom: HasServers) -> None:
        """See `conditions.atoms.World`."""
        self._atoms.pop(atom.id, None)

    def watch(self, atom: IsElsewhere) -> None:
        """See `conditions.atoms.World`."""
        self._elsewhere.watch(atom)

    def unwatch(self, atom: IsElsewhere) -> None:
        """See `conditions.atoms.World`."""
        self._elsewhere.unwatch(atom)
        self._atoms.pop(atom.id, None)

    def _look_at_servers(self) -> None:
        waiting = [atom for atom in self._atoms.values() if isinstance(atom, HasServers)]
        if waiting:
            size = self.engine.size()
            for atom in waiting:
                if size >= atom.n:
                    atom.satisfy()
