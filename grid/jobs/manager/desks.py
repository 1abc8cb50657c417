"""A desk for each kind of worker: those without needs, and one for each `Service.needs` of jobs that are active.

Workers with needs hold cores and devices. So their desk opens with the first job that has these needs, and closes with
the last: then others can have the devices. Users share each kind of worker fairly; what they pay is one account.

Lives here: `Desks`: which job is at which desk, and when there is one.
Elsewhere:  handing out (`desk.py`), publishing workers (`engine.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from grid.jobs.manager.desk import Deliver, Desk
from grid.jobs.manager.engine import Engine
from grid.jobs.rules.scheduler import UnitScheduler
from grid.slots.needs import Needs


class Desks:
    """See the module. `make_scheduler`: for one desk; all of them have one ledger, and one lock guards them."""

    def __init__(self, engine: Engine, make_scheduler: Callable[[], UnitScheduler]) -> None:
        self._engine, self._make = engine, make_scheduler
        self._lock = threading.RLock()
        self._plain = Desk(engine, make_scheduler(), self._lock)
        self._desks: dict[Needs, Desk] = {}
        self._of: dict[str, Needs | None] = {}  # job -> what its units need
        self._donated: dict[str, tuple[str | None, bool]] = {}
        self._stopping = False

    def start(self) -> None:
        """Begin to hand out; the grid's status names the oldest unit."""
        self._engine.report("oldest_unit", self.oldest)
        self._plain.start()

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._stopping = True
            desks = [self._plain, *self._desks.values()]
        for desk in desks:
            desk.stop()

    def _desk(self, job: str) -> Desk:
        needs = self._of.get(job)
        return self._plain if needs is None else self._desks[needs]

    def open(self, job: str, user: str, priority: int, needs: Needs | None = None) -> None:
        """A job that may have units, on workers with such needs."""
        with self._lock:
            if needs is not None and needs not in self._desks and not self._stopping:
                desk = self._desks[needs] = Desk(self._engine, self._make(), self._lock, needs)
                for host, (owner, only) in self._donated.items():
                    desk.donate(host, owner, only)
                desk.start()
            self._of[job] = needs if needs in self._desks else None  # the manager stops: nothing is handed out
            self._desk(job).open(job, user, priority)

    def close(self, job: str, force_s: float) -> None:
        """It has ended: see `Desk.close`."""
        with self._lock:
            desk, needs = self._desk(job), self._of.pop(job, None)
            last = needs is not None and needs not in self._of.values()
            if needs is not None and last:
                del self._desks[needs]
        desk.close(job, force_s)
        if last:
            desk.end()

    def add(
        self,
        job: str,
        number: int,
        key: str,
        task: Any,
        work: Sequence[tuple[int, Any]],
        attempts: int,
        deliver: Deliver,
    ) -> None:
        """See `Desk.add`."""
        with self._lock:
            self._desk(job).add(job, number, key, task, work, attempts, deliver)

    def drop(self, job: str, number: int) -> None:
        """See `Desk.drop`."""
        with self._lock:
            self._desk(job).drop(job, number)

    def donate(self, host: str, owner: str | None, only: bool = False) -> None:
        """See `Desk.donate`."""
        with self._lock:
            self._donated[host] = (owner, only)
            for desk in (self._plain, *self._desks.values()):
                desk.donate(host, owner, only)

    def credits(self, user: str) -> dict[str, float]:
        """The credits that a user has used, and can still spend."""
        return self._plain.credits(user)

    def usage(self) -> dict[str, float]:
        """User -> what is not yet forgotten."""
        return self._plain.usage()

    def expire(self) -> None:
        """Give units whose lease has ended to others."""
        with self._lock:
            desks = [self._plain, *self._desks.values()]
        for desk in desks:
            desk.expire()

    def oldest(self, job: str | None = None) -> dict[str, Any] | None:
        """See `Desk.oldest`."""
        with self._lock:
            desks = [self._plain, *self._desks.values()]
        found = [one for desk in desks if (one := desk.oldest(job)) is not None]
        return max(found, key=lambda one: one["age"], default=None)
