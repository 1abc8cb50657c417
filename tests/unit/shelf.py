"""A store of jobs in memory, for tests of what a job manager decides: it may refuse, and notes what was asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grid.jobs.conditions.algebra import Condition
from grid.jobs.conditions.atoms import KnownAtom
from grid.jobs.fetch.deposits import Deposits
from grid.jobs.host.errors import RequestError, StoreError
from grid.jobs.manager.admission import atom_id
from grid.jobs.manager.book import Book
from grid.jobs.manager.conditions import Conditions
from grid.jobs.manager.races import Races
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from grid.jobs.settings import Settings


class Shelf:
    """The part of `Store` that a `Book`, `Races` and `Accounts` use."""

    def __init__(self, directory: Path, records: Sequence[JobRecord] = ()) -> None:
        self.directory, self.records = directory, list(records)
        self.refuses = False
        self.unfit: set[str] = set()  # columns that can't be stored
        self.written: list[dict[str, dict[str, Any]]] = []
        self.forgotten: list[str] = []
        self.open_races: dict[str, tuple[list[str], str]] = {}
        self.known_users: dict[str, dict[str, Any]] = {}

    def _check(self) -> None:
        if self.refuses:
            raise StoreError("the store is full")

    def load(self) -> list[JobRecord]:
        return list(self.records)

    def insert(self, records: Sequence[JobRecord]) -> None:
        self._check()
        self.records += records

    def update(self, changes: Mapping[str, dict[str, Any]], forget_checkpoints: Sequence[str] = ()) -> None:
        self._check()
        for values in changes.values():
            if self.unfit & values.keys():
                raise RequestError("a value can't be stored")
        self.written.append({job: dict(values) for job, values in changes.items()})
        self.forgotten += forget_checkpoints

    def complete(self, job: str, values: Mapping[str, Any], *_: Any) -> bool:
        self._check()
        self.written.append({job: dict(values)})
        return True

    def delete(self, jobs: Sequence[str]) -> None:
        self._check()
        self.records = [record for record in self.records if record.id not in jobs]

    def races(self) -> dict[str, tuple[list[str], str]]:
        return dict(self.open_races)

    def keep_race(self, race: str, jobs: Sequence[str], expression: str) -> None:
        self._check()
        self.open_races[race] = (list(jobs), expression)

    def end_race(self, race: str) -> None:
        del self.open_races[race]

    def users(self) -> dict[str, dict[str, Any]]:
        return {name: dict(row) for name, row in self.known_users.items()}

    def keep_users(self, users: Mapping[str, Mapping[str, Any]]) -> None:
        self._check()
        for name, values in users.items():
            self.known_users.setdefault(name, {}).update(values)


class Ear:
    """Notes what it is told of jobs."""

    def __init__(self, book: Book) -> None:
        self.notes: list[tuple[str, str]] = []
        book.on_message.append(self.heard)
        book.on_move.append(self.moved)

    def heard(self, job: str, message: Any) -> None:
        self.notes.append((job, message.kind))

    def moved(self, record: JobRecord) -> None:
        self.notes.append((record.id, f"is {record.state}"))


def record(number: int, state: JobState = JobState.PENDING, owner: str = "mara", **values: Any) -> JobRecord:
    request = {"grid_request": 1, "service": "fits.Fit", "version": "1", "data": {}}
    return JobRecord(f"job-{number}", number, owner, "fits.Fit", "1", request, state=state, **values)


def book_of(directory: Path, *records: JobRecord, **limits: Any) -> tuple[Book, Shelf]:
    """A book that has these jobs, and its store."""
    shelf = Shelf(directory, records)
    book = Book(shelf, Settings(**limits), lambda: 1_000.0)  # type: ignore[arg-type]
    book.load()
    return book, shelf


class World:
    """Conditions and races over a store in memory; no thread but those that a test starts."""

    def __init__(self, book: Book, shelf: Shelf, directory: Path) -> None:
        self.book, self.shelf, self.servers, self.aborted = book, shelf, 0, list[tuple[str, str]]()
        self.conditions = Conditions(book, Deposits(directory), lambda: self.servers)
        self.races = Races(book, self.conditions, lambda job, reason: self.aborted.append((job, reason)))

    def end(self, job: str, state: JobState = JobState.COMPLETE, **values: Any) -> None:
        """A job ends; what waits for it is tested and moves."""
        record = self.book.record(job)
        record.state = JobState.ACTIVE
        with self.book.lock:
            self.book.move(record, state, ended=1.0, **values)
        while self.conditions.judge.turn():
            pass

    def wait_for(self, job: str, atom: Condition) -> None:
        """A job waits for that."""
        if isinstance(atom, KnownAtom):  # as admission does it; conditions of several have their ids from there
            atom.id = atom_id(atom.kind, atom.arguments)
        with self.book.lock:
            self.conditions.wait_for(self.book.record(job), atom)
            self.conditions.settle()


def world_of(directory: Path) -> World:
    """Jobs 1 to 3 are pending, 4 and 5 wait."""
    waiting = [record(number, JobState.WAITING) for number in (4, 5)]
    return World(*book_of(directory, *map(record, (1, 2, 3)), *waiting, races=2), directory)
