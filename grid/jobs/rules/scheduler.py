"""Which unit of work a free worker gets: asked once per unit, never for more.

The rules, in this order; each can be switched off by leaving it out of `rules`:

1. `owner`     on a machine that somebody gave, that user's jobs come first (and, if so given, no others come at all).
2. `fresh`     a job's first unit goes ahead of others, so that errors show early. Once per job.
3. `share`     paid work (priority > 0) goes before free work, but of any 10 units free work gets one, where it waits.
4. `users`     users have equal shares, however many jobs each has (`weights` changes that).
5. `priority`  of one user's jobs, shares are as priority (1 + priority within free work, where credits ran out).
6. `loaded`    among those whose turn it nearly is, the job whose function this worker has already.

Equal ones are served in the order of their submission. Shares are kept by virtual time: each unit moves its user and
job forward by 1/weight, and who is furthest behind is next. Who comes back after a pause starts level with the others.

A unit is leased to a worker. Its first outcome counts; others are dropped. A lost worker's units, and those whose lease
ends, go back to the front.

Lives here: the queue of units, virtual times, leases. Heaps throughout: one decision is O(log n).
Elsewhere:  clock and workers (`manager/desk.py`), what work costs (`credits.py`).
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grid.jobs.rules.credits import Ledger

RULES = ("owner", "fresh", "share", "users", "priority", "loaded")
MINIMUM_SHARE = 0.1
"""Of all units go to free work, where it waits."""
SLACK = 2.0
"""Units by which a job may get ahead of its turn because its function is loaded."""


@dataclass(frozen=True)
class Unit:
    """One item of a job's map; `key` is unique."""

    job: str
    key: Any
    attempts: int = 3


@dataclass
class _Lease:
    unit: Unit
    workers: dict[str, float]  # worker -> when its lease ends
    lost: int = 0
    queued: bool = False  # back in the queue


@dataclass
class _Job:
    job: str
    user: str
    priority: int
    order: int
    units: deque[Unit] = field(default_factory=deque)
    time: float = 0.0
    paid: bool = False
    queued: bool = False
    fresh: bool = True


@dataclass
class _User:
    name: str
    weight: float
    time: float = 0.0
    queued: bool = False
    jobs: list[tuple[float, int, str]] = field(default_factory=list)
    floor: float = 0.0


@dataclass
class _Worker:
    """A worker for units: its name, the owner of its machine, the functions that it has loaded."""

    name: str
    owner: str | None = None
    only: bool = False
    loaded: set[str] = field(default_factory=set)


class UnitScheduler:
    """See the module. Not thread-safe: its owner holds a lock."""

    def __init__(
        self,
        ledger: Ledger | None = None,
        *,
        rules: Collection[str] = RULES,
        minimum_share: float = MINIMUM_SHARE,
        lease_s: float = float("inf"),
        weights: Mapping[str, float] | None = None,
    ) -> None:
        unknown = set(rules) - set(RULES)
        if unknown:
            raise ValueError(f"no rule is called {sorted(unknown)[0]!r}; there are {', '.join(RULES)}")
        self.ledger = ledger or Ledger()
        self.rules = frozenset(rules)
        self.minimum_share, self.lease_s = minimum_share, lease_s
        self.weights = dict(weights or {})
        self.workers: dict[str, _Worker] = {}
        self._jobs: dict[str, _Job] = {}
        # by class: paid or free
        self._users: dict[bool, dict[str, _User]] = {True: {}, False: {}}
        self._heaps: dict[bool, list[tuple[float, int, str]]] = {True: [], False: []}
        self._floors = {True: 0.0, False: 0.0}
        self._fresh: deque[str] = deque()
        self._leases: dict[Any, _Lease] = {}
        self._order = itertools.count()
        self._debt = 0.0  # units that free work is behind its minimum share
        self._poor: set[str] = set()
        self._looked = float("-inf")
        self.waiting = 0
        """Units that wait for a worker."""

    # -- workers and users------------------------------------------------------------------------------------------

    def add_worker(self, name: str, owner: str | None = None, only: bool = False) -> _Worker:
        """A worker; adding it again changes its owner."""
        worker = self.workers.setdefault(name, _Worker(name))
        worker.owner, worker.only = owner, only
        return worker

    def lose_worker(self, name: str) -> list[Unit]:
        """A worker has died: its units go back to the front.

        Returns:
            Those that have been tried often enough; they are forgotten.
        """
        self.workers.pop(name, None)
        given_up = []
        for lease in [lease for lease in self._leases.values() if name in lease.workers]:
            if not self._give_back(lease, name, lost=True):
                given_up.append(lease.unit)
        return given_up

    def add_job(self, job: str, user: str, priority: int = 0) -> None:
        """A job that may have units."""
        self._jobs[job] = _Job(job, user, max(0, priority), next(self._order))

    def has_job(self, job: str) -> bool:
        """Whether it may have units."""
        return job in self._jobs

    def remove_job(self, job: str) -> list[Unit]:
        """The job has ended: its units, queued and leased, are forgotten; returns those that workers still have."""
        entry = self._jobs.pop(job, None)
        if entry is None:
            return []
        self.waiting -= len(entry.units)
        held = [lease.unit for lease in self._leases.values() if lease.unit.job == job]
        for unit in held:
            del self._leases[unit.key]
        self._poor.discard(job)
        for worker in self.workers.values():
            worker.loaded.discard(job)
        return held

    def add_units(self, units: Iterable[Unit], now: float = 0.0) -> None:
        """Units that wait, behind others of their job."""
        for unit in units:
            entry = self._jobs.get(unit.job)
            if entry is not None:
                entry.units.append(unit)
                self.waiting += 1
                if not entry.queued:
                    self._enqueue(entry, now)

    def drop_units(self, job: str) -> list[Any]:
        """Forget what the job has in the queue (not what workers have); returns the keys."""
        entry = self._jobs.get(job)
        if entry is None:
            return []
        keys = [unit.key for unit in entry.units]
        for key in keys:
            self._leases.pop(key, None)
        entry.units.clear()
        self.waiting -= len(keys)
        return keys

    def _enqueue(self, entry: _Job, now: float) -> None:
        entry.paid = entry.priority > 0 and self.ledger.can_pay(entry.user, entry.priority, now)
        if entry.priority > 0 and not entry.paid:
            self._poor.add(entry.job)
        paid = entry.paid
        name = entry.user if "users" in self.rules else ""
        user = self._users[paid].get(name)
        if user is None:
            user = self._users[paid][name] = _User(name, self.weights.get(name, 1.0))
        if not user.queued:
            user.queued = True
            user.time = max(user.time, self._floors[paid])
            heapq.heappush(self._heaps[paid], (user.time, entry.order, name))
        entry.time = max(entry.time, user.floor)
        entry.queued = True
        heapq.heappush(user.jobs, (entry.time, entry.order, entry.job))
        if entry.fresh and "fresh" in self.rules:
            self._fresh.append(entry.job)

    # -- handing out -----------------------------------------------------------------------------------------------

    def pick(self, worker: str, now: float = 0.0) -> Unit | None:
        """The unit that a free worker shall do now, leased to it; None if there is none for it."""
        who = self.workers.get(worker) or self.add_worker(worker)
        entry = self._choose(who, now)
        if entry is None:
            return None
        unit = entry.units.popleft()
        self.waiting -= 1
        entry.fresh = False
        self._advance(entry, now)
        lease = self._leases.setdefault(unit.key, _Lease(unit, {}))
        lease.workers[worker], lease.queued = now + self.lease_s, False
        who.loaded.add(unit.job)
        return unit

    def _choose(self, who: _Worker, now: float) -> _Job | None:
        self._reconsider(now)
        if who.owner is not None and "owner" in self.rules:
            own = self._of_user(who.owner, who)
            if own is not None or who.only:
                return own
        while self._fresh:
            entry = self._jobs.get(self._fresh.popleft())
            if entry is not None and entry.fresh and entry.units:
                return entry
        paid, free = self._first(True), self._first(False)
        if paid is None or free is None:
            user, is_paid = (paid, True) if paid is not None else (free, False)
        elif "share" in self.rules and self._debt >= 1.0:
            user, is_paid = free, False
        else:
            user, is_paid = paid, True
        return None if user is None else self._of(user, is_paid, who)

    def _of_user(self, name: str, who: _Worker) -> _Job | None:
        if "users" not in self.rules:
            found = [job for job in self._jobs.values() if job.user == name and job.units]
            return min(found, key=lambda job: (job.time, job.order), default=None)
        for paid in (True, False):
            user = self._users[paid].get(name)
            if user is not None:
                entry = self._of(user, paid, who)
                if entry is not None:
                    return entry
        return None

    def _first(self, paid: bool) -> _User | None:
        """The user of that class that is furthest behind and has units."""
        heap = self._heaps[paid]
        while heap:
            time, order, name = heap[0]
            user = self._users[paid][name]
            if time != user.time:  # moved on meanwhile
                heapq.heapreplace(heap, (user.time, order, name))
            elif self._head(user, paid) is None:
                heapq.heappop(heap)
                user.queued = False
            else:
                self._floors[paid] = max(self._floors[paid], user.time)
                return user
        return None

    def _head(self, user: _User, paid: bool) -> _Job | None:
        """The user's job that is furthest behind and has units."""
        while user.jobs:
            time, order, name = user.jobs[0]
            entry = self._jobs.get(name)
            if entry is None or entry.paid is not paid or not entry.queued:
                heapq.heappop(user.jobs)
            elif not entry.units:
                heapq.heappop(user.jobs)
                entry.queued = False
            elif time != entry.time:
                heapq.heapreplace(user.jobs, (entry.time, order, name))
            else:
                user.floor = max(user.floor, entry.time)
                return entry
        return None

    def _of(self, user: _User, paid: bool, who: _Worker) -> _Job | None:
        head = self._head(user, paid)
        if head is None or head.job in who.loaded or "loaded" not in self.rules:
            return head
        best: _Job | None = None
        for name in who.loaded:
            entry = self._jobs.get(name)
            if entry is None or not entry.units or entry.paid is not paid:
                continue
            same = entry.user == user.name or "users" not in self.rules
            near = entry.time - head.time <= SLACK / self._weight(entry)
            if same and near and (best is None or (entry.time, entry.order) < (best.time, best.order)):
                best = entry
        return best or head

    def _weight(self, entry: _Job) -> float:
        if "priority" not in self.rules:
            return 1.0
        return float(entry.priority if entry.paid else 1 + entry.priority)

    def _advance(self, entry: _Job, now: float) -> None:
        """A unit of the job is handed out: times move on, and it is charged."""
        user = self._users[entry.paid][entry.user if "users" in self.rules else ""]
        user.time += 1.0 / user.weight
        entry.time += 1.0 / self._weight(entry)
        if entry.paid:
            self.ledger.charge(entry.user, entry.priority, now)
            if self._has_free():
                share = self.minimum_share
                self._debt = min(2.0, self._debt + share / (1.0 - share))
            if not self.ledger.can_pay(entry.user, entry.priority, now):
                self._change_class(entry, now)
        else:
            self._debt = max(0.0, self._debt - 1.0)

    def _has_free(self) -> bool:
        return self._first(False) is not None

    def _change_class(self, entry: _Job, now: float) -> None:
        entry.queued, entry.time = False, 0.0
        self._poor.discard(entry.job)
        if entry.units:
            self._enqueue(entry, now)

    def _reconsider(self, now: float) -> None:
        """Users that could not pay and can again."""
        if now - self._looked < 1.0 and now >= self._looked:
            return
        self._looked = now
        for name in list(self._poor):
            entry = self._jobs.get(name)
            if entry is None:
                self._poor.discard(name)
            elif self.ledger.can_pay(entry.user, entry.priority, now):
                self._change_class(entry, now)

    # -- coming back -----------------------------------------------------------------------------------------------

    def done(self, key: Any) -> bool:
        """A worker reports an outcome; True if it is the first one, and counts."""
        lease = self._leases.pop(key, None)
        if lease is None:
            return False
        entry = self._jobs.get(lease.unit.job)
        if lease.queued and entry is not None:  # late, but before anybody else
            entry.units.remove(lease.unit)
            self.waiting -= 1
        return True

    def fail(self, key: Any, worker: str) -> bool:
        """The worker could not do it; True if the unit goes back to the queue, False if it was tried often enough."""
        lease = self._leases.get(key)
        return lease is None or self._give_back(lease, worker, lost=True)

    def expire(self, now: float) -> list[Unit]:
        """Give units whose lease has ended to others; an outcome that comes late all the same counts if it is first.

        Returns:
            Those that have been tried often enough.
        """
        given_up = []
        for lease in list(self._leases.values()):
            for worker, end in list(lease.workers.items()):
                if end <= now and not self._give_back(lease, worker, lost=True, keep=True):
                    given_up.append(lease.unit)
        return given_up

    def _give_back(self, lease: _Lease, worker: str, *, lost: bool, keep: bool = False) -> bool:
        unit = lease.unit
        lease.workers.pop(worker, None)
        lease.lost += lost
        if lease.workers:
            return True  # another has it, too
        if lease.lost >= unit.attempts:
            self._leases.pop(unit.key, None)
            return False
        entry = self._jobs.get(unit.job)
        if entry is not None and not lease.queued:
            lease.queued = True
            entry.units.appendleft(unit)
            self.waiting += 1
            if not entry.queued:
                self._enqueue(entry, max(0.0, self._looked))
        return True

    def leased(self) -> int:
        """Units that workers have."""
        return sum(1 for lease in self._leases.values() if lease.workers)
