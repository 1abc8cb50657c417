"""Races: jobs of which the first with a result that is good enough ends the others.

    open --> each job: an atom `result(expression)` --> first one ready: won, the others are aborted
                                                    --> all cancelled: over without a winner

Lives here: `Races`. Its table is guarded by `Book.lock`.
Elsewhere:  waiting for results (`conditions.py`), the client's view (`client/handle.Race`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from grid.jobs.conditions.atoms import IsResult
from grid.jobs.conditions.expressions import Expression
from grid.jobs.host.errors import RequestError, UnknownJob
from grid.jobs.manager.admission import atom_id
from grid.jobs.manager.book import Book
from grid.jobs.manager.conditions import Conditions


@dataclass
class _Race:
    jobs: list[str]
    expression: str
    winner: str | None = None
    over: bool = False


class Races:
    """See the module. `abort(job, reason)` ends a job that has lost."""

    def __init__(self, book: Book, conditions: Conditions, abort: Callable[[str, str], None]) -> None:
        self._book, self._conditions, self._abort = book, conditions, abort
        self._races: dict[str, _Race] = {}

    def __len__(self) -> int:
        return len(self._races)

    def load(self) -> None:
        """Take in what the store has; `run` lets them wait again."""
        for race, (jobs, expression) in self._book.store.races().items():
            self._races[race] = _Race(jobs, expression)

    def open(self, jobs: Sequence[str], expression: str) -> str:
        """A new one; returns its id.

        Raises:
            ExpressionError: It can't be used. UnknownJob: One of the jobs is none.
            RequestError: It has no jobs, or too many races are open.
        """
        Expression(expression)
        with self._book.lock:
            for job in jobs:
                self._book.record(job)
            if not jobs:
                raise RequestError("a race needs jobs", hint="Give one at least")
            self._make_room()
            race = f"race-{self._book.next_number()}"
            self._book.store.keep_race(race, jobs, expression)
            self._races[race] = _Race(list(jobs), expression)
        self._run(race)
        return race

    def _make_room(self) -> None:
        """For one more: of those that are decided the oldest are forgotten."""
        most = self._book.settings.races
        decided = [race for race, entry in self._races.items() if entry.over]
        for race in decided[: max(0, len(decided) - most + 1)]:
            del self._races[race]
        if len(self._races) - len(decided) >= most:
            raise RequestError(f"{most} races are open", hint="Wait until some are decided")

    def run(self) -> None:
        """After `load`: all wait again, until the manager stops."""
        for race in list(self._races):
            if self._book.stopping:
                return
            self._run(race)

    def _run(self, race: str) -> None:
        book, entry = self._book, self._races[race]
        out: set[str] = set()

        def won(job: str) -> None:
            if entry.over:
                return
            entry.winner, entry.over = job, True
            book.store.end_race(race)
            for other in entry.jobs:
                if other != job and other in book.records:
                    self._abort(other, f"{job} was first in {race} with {entry.expression}")
            book.ends.notify_all()

        def left(job: str) -> None:
            out.add(job)
            if len(out) == len(entry.jobs) and not entry.over:
                entry.over = True
                book.store.end_race(race)
                book.ends.notify_all()

        for job in entry.jobs:
            atom = IsResult(job, entry.expression)
            atom.id = atom_id(atom.kind, atom.arguments)
            with book.lock:
                owner = book.records[job].owner if job in book.records else ""
                self._conditions.register(
                    atom,
                    owner,
                    lambda job=job: won(job),  # type: ignore[misc]
                    lambda reason, job=job: left(job),  # type: ignore[misc]
                )
                self._conditions.settle()

    def status(self, race: str) -> dict[str, Any]:
        """`jobs`, `expression`, `winner` (a job, or None), `over`. Raises UnknownJob."""
        with self._book.lock:
            if race not in self._races:
                raise UnknownJob(f"there is no race {race!r}", hint="It may have been decided before a restart")
            return dict(vars(self._races[race]))
