"""Hands units of work to the workers of the whole grid, one by one, as the scheduler says.

One thread waits for a free worker whenever a unit waits, asks the scheduler which unit it gets, sends it, and gives the
worker back at once: it is free again when the unit is done. Outcomes come by call-back.

Lives here: `Desk`.
Elsewhere:  which unit is next (`rules/scheduler.py`), workers (`engine.py`), the job that asked (`execution.py`), which
            desk a job is at (`desks.py`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from grid.errors import GridError, GridStopped, NoServers, PublishError, ServerLost
from grid.grids.leftover import UnderWay
from grid.jobs.manager.engine import Engine, Place, Workers
from grid.jobs.rules.scheduler import Unit, UnitScheduler
from grid.slots.needs import Needs

logger = logging.getLogger(__name__)

ACQUIRE_S = 0.5

Deliver = Callable[[int, list[tuple[int, bool, Any]]], None]


@dataclass
class _Work:
    """One map of a job."""

    key: str
    task: Any
    items: dict[int, Any]
    deliver: Deliver


@dataclass(frozen=True)
class _Sent:
    """A unit that a worker has."""

    unit: Unit
    call: UnderWay
    host: str
    since: float  # by the monotonic clock


class Desk:
    """See the module. `needs`: of each of its workers; without any it has those that are always there."""

    def __init__(
        self, engine: Engine, scheduler: UnitScheduler, lock: threading.RLock, needs: Needs | None = None
    ) -> None:
        self._engine, self._scheduler = engine, scheduler
        self._own = None if needs is None else engine.workers_with(needs)
        self._lock = lock
        self._news = threading.Condition(self._lock)
        self._work: dict[tuple[str, int], _Work] = {}
        self._loaded: dict[str, set[str]] = {}
        self._places: dict[str, Future[Any]] = {}  # worker -> what `register` answered there
        self._under_way: dict[int, _Sent] = {}  # by ticket
        self._tickets = itertools.count(1)
        self._donated: dict[str, tuple[str, bool]] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._hand_out, name="jobs-units", daemon=True)

    def start(self) -> None:
        """Begin to hand out."""
        self._thread.start()

    def end(self) -> None:
        """Hand out no more; workers with needs give up what they have as soon as nobody waits for one."""
        with self._news:
            self._stopping = True
            self._news.notify_all()

    def stop(self) -> None:
        """The same, and wait for it."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(10.0)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def open(self, job: str, user: str, priority: int) -> None:
        """A job that may have units."""
        with self._lock:
            self._scheduler.add_job(job, user, priority)

    def close(self, job: str, force_s: float) -> None:
        """It has ended: forget its units here. Units under way are stopped, by force after `force_s` seconds,
        so that their workers are free for others.
        """
        with self._lock:
            self._scheduler.remove_job(job)
            for key in [key for key in self._work if key[0] == job]:
                del self._work[key]
            under_way = [sent.call for sent in self._under_way.values() if sent.unit.job == job]
        self._engine.stop_units(under_way, force_s)

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
        """Units of one map, perhaps not its first: `deliver(number, [(index, ok, outcome)])` is called for each."""
        with self._news:
            known = self._work.setdefault((job, number), _Work(key, task, {}, deliver))
            known.items.update(work)
            self._scheduler.add_units((Unit(job, (job, number, i), attempts) for i, _ in work), time.monotonic())
            self._news.notify_all()

    def drop(self, job: str, number: int) -> None:
        """A map that nobody waits for any more."""
        with self._lock:
            self._work.pop((job, number), None)

    def donate(self, host: str, owner: str | None, only: bool = False) -> None:
        """The machine `host` is `owner`'s, whose jobs come first there, or alone (`only`); None: everybody's."""
        with self._lock:
            if owner is None:
                self._donated.pop(host, None)
            else:
                self._donated[host] = (owner, only)

    def credits(self, user: str) -> dict[str, float]:
        """The credits that a user has used, and can still spend."""
        with self._lock:
            ledger, now = self._scheduler.ledger, time.monotonic()
            return {"used": ledger.used(user, now), "balance": ledger.balance(user, now), "allowance": ledger.allowance}

    def usage(self) -> dict[str, float]:
        """User -> what is not yet forgotten."""
        with self._lock:
            now = time.monotonic()
            return {user: self._scheduler.ledger.used(user, now) for user in self._scheduler.ledger.dump()}

    def expire(self) -> None:
        """Give units whose lease has ended to others."""
        with self._news:
            given_up = self._scheduler.expire(time.monotonic())
            if self._scheduler.waiting:
                self._news.notify_all()
        for unit in given_up:
            self._deliver(unit, False, _given_up(unit))

    # -- handing out -----------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        try:
            self._hand_out_until_stopped(self._own or self._engine)
        finally:
            if self._own is not None:
                self._own.dismiss()

    def _hand_out_until_stopped(self, workers: Engine | Workers) -> None:
        while True:
            with self._news:
                while not self._scheduler.waiting and not self._stopping:
                    self._news.wait(5.0)
                if self._stopping:
                    return
            try:
                place = workers.worker(ACQUIRE_S)
            except GridStopped:
                return
            except PublishError as exc:  # needs that no host can meet
                self._refuse(exc)
                continue
            except NoServers as exc:
                logger.warning("no workers: %s", exc)
                with self._news:
                    self._news.wait(ACQUIRE_S)
                continue
            if place is not None:
                self._give(place)

    def _refuse(self, error: GridError) -> None:
        """None of the units that wait can be done."""
        with self._lock:
            units = [
                Unit(job, (job, number, index)) for (job, number), work in self._work.items() for index in work.items
            ]
            for job in {unit.job for unit in units}:
                self._scheduler.drop_units(job)
        for unit in units:
            self._deliver(unit, False, error)

    def _give(self, place: Place) -> None:
        with self._lock:
            self._scheduler.add_worker(place.name, *self._donated.get(place.host, (None, False)))
            while True:
                unit = self._scheduler.pick(place.name, time.monotonic())
                work = self._work.get(unit.key[:2]) if unit is not None else None
                if unit is None or work is not None:
                    break
                self._scheduler.done(unit.key)  # its map was dropped
        if unit is None:
            place.release()
            with self._news:
                if self._scheduler.waiting and not self._stopping:
                    self._news.wait(0.02)  # the waiting units are not for this worker
            return
        assert work is not None
        loading: Future[Any] | None = None
        try:
            loaded = self._loaded.setdefault(place.name, set())
            if work.key not in loaded:
                if place.name not in self._places:
                    self._places[place.name] = place.call("register")
                loading = place.call("load", work.key, work.task)
                loaded.add(work.key)
            ticket = next(self._tickets)
            outcome = place.call("do", work.key, work.items[unit.key[2]], ticket)
        except Exception as exc:  # the item or the function can't be sent
            place.release()
            self._forget_worker(place.name)
            self._finished(unit, place.name, exc, isinstance(exc, ServerLost))
            return
        call = UnderWay(place.name, self._places.get(place.name), ticket, outcome, place.end)
        with self._lock:
            self._under_way[ticket] = _Sent(unit, call, place.host, time.monotonic())
            late = not self._scheduler.has_job(unit.job)  # it ended while we sent this
        if late:
            self._engine.stop_units([call], 0.0)
        place.release()
        outcome.add_done_callback(lambda future: self._done(ticket, unit, place.name, loading, future))

    def _done(self, ticket: int, unit: Unit, worker: str, loading: Future[Any] | None, future: Future[Any]) -> None:
        """Call-back, in a thread of the engine's."""
        with self._lock:
            self._under_way.pop(ticket, None)
        failure: BaseException | None
        value: Any = None
        try:
            failure = loading.exception() if loading is not None else None
            if failure is None:
                there, value = future.result()
                if not there:  # it was forgotten there: load it again
                    self._loaded.pop(worker, None)
                    self._finished(unit, worker, None, True)
                    return
            else:
                self._loaded.pop(worker, None)
        except CancelledError:
            self._finished(unit, worker, None, True)
            return
        except BaseException as exc:
            failure = exc
        if isinstance(failure, ServerLost):
            self._finished(unit, worker, failure, True)
            return
        with self._lock:
            first = self._scheduler.done(unit.key)
        if first:
            self._deliver(unit, failure is None, value if failure is None else failure)

    def _finished(self, unit: Unit, worker: str, failure: BaseException | None, lost: bool) -> None:
        """It could not be done there: again elsewhere, or given up."""
        with self._news:
            again = lost and self._scheduler.fail(unit.key, worker)
            if lost and isinstance(failure, ServerLost):
                self._scheduler.lose_worker(worker)
                self._forget_worker(worker)
            if not lost:
                self._scheduler.done(unit.key)
            self._news.notify_all()
        if not again:
            self._deliver(unit, False, failure or _given_up(unit))

    def _forget_worker(self, worker: str) -> None:
        self._loaded.pop(worker, None)
        self._places.pop(worker, None)

    def oldest(self, job: str | None = None) -> dict[str, Any] | None:
        """The unit that has been under way for longest, of one job or of all.

        Returns:
            `job`, `unit` (its number), `age` (seconds), `host`, `worker`; None if none is under way.
        """
        with self._lock:
            found = [sent for sent in self._under_way.values() if job in (None, sent.unit.job)]
        if not found:
            return None
        sent = min(found, key=lambda each: each.since)
        age = time.monotonic() - sent.since
        where = {"host": sent.host, "worker": sent.call.server}
        return {"job": sent.unit.job, "unit": sent.unit.key[2], "age": age, **where}

    def _deliver(self, unit: Unit, ok: bool, value: Any) -> None:
        job, number, index = unit.key
        with self._lock:
            work = self._work.get((job, number))
            if work is None:
                return
            work.items.pop(index, None)
            if not work.items:
                del self._work[job, number]
        work.deliver(number, [(index, ok, value)])


def _given_up(unit: Unit) -> GridError:
    return GridError(
        f"unit {unit.key[2]} of {unit.job} was tried {unit.attempts} times and never came back",
        hint="See the output of the workers",
    )
