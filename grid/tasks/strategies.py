"""Ready strategies: which slave gets the next task. Pure.

    LeastLoaded  running tasks per worker (the default)
    Weighted     the same, over the measured speed: where it will be finished first
    Locality     a slave that the task prefers, if it has room, else the least loaded
    RoundRobin   one after the other, without ratings

A strategy of your own needs only `rate`: subclass `RatedStrategy`.

Naming the next slave takes O(log n) of n slaves: ratings stand in a heap, and a change adds an entry and leaves the
stale one to be passed over when it comes up. Slaves are rated when the next one is asked for, once for all that
happened in between.

Lives here: ratings and the heap. Elsewhere: what a slave is (`slaves`), who asks (`schedule`).
"""

from __future__ import annotations

import heapq
import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from grid.errors import StrategyError
from grid.tasks.abstract import Task, TaskScheduleStrategy
from grid.tasks.slaves import Slave

WORST = math.inf


class RatedStrategy(TaskScheduleStrategy):
    """The best rating goes first; ties by fewest tasks, then round robin. Subclasses rate."""

    def __init__(self) -> None:
        self._slaves: dict[str, Slave] = {}
        self._heap: list[tuple[float, int, int, str, int]] = []
        self._stamps: dict[str, int] = {}
        self._dirty: dict[str, Slave] = {}

    @abstractmethod
    def rate(self, slave: Slave) -> float:
        """How much speaks against this slave now: the one with the lowest number gets the next task."""

    def changed(self, slave: Slave) -> None:
        """A slave's numbers have changed: it is rated anew before the next choice."""
        self._dirty[slave.slave_id] = slave

    def rerate(self, slaves: Iterable[Slave]) -> None:
        """Rate all of them anew."""
        self._slaves = {slave.slave_id: slave for slave in slaves}
        self._stamps = dict.fromkeys(self._slaves, 0)
        self._heap.clear()
        self._dirty = dict(self._slaves)

    def get_next_slave(self) -> str | None:
        """The id of the one with the lowest rate that has room; None if none has."""
        self._freshen()
        heap = self._heap
        while heap:
            _, _, _, slave_id, stamp = heap[0]
            if self._stamps.get(slave_id) == stamp and self._slaves[slave_id].room > 0:
                return slave_id
            heapq.heappop(heap)  # stale, or full: it comes back when it changes
        return None

    def _freshen(self) -> None:
        if not self._dirty:
            return
        for slave_id, slave in self._dirty.items():
            if slave_id not in self._slaves:
                continue
            self._stamps[slave_id] += 1
            if slave.room > 0:
                heapq.heappush(self._heap, self._entry(slave))
        self._dirty.clear()
        if len(self._heap) > 4 * len(self._slaves) + 64:  # mostly stale: at most every 3 n changes, so O(1) for each
            self._heap = [entry for entry in self._heap if self._stamps.get(entry[3]) == entry[4]]
            heapq.heapify(self._heap)

    def _entry(self, slave: Slave) -> tuple[float, int, int, str, int]:
        rating: Any = self.rate(slave)
        if isinstance(rating, bool) or not isinstance(rating, (int, float)) or math.isnan(rating):
            raise StrategyError(
                f"{type(self).__name__}.rate({slave.slave_id!r}) answered {rating!r}",
                hint="A rating is a number, 0 for the best; float('inf') for the worst",
            )
        return rating, slave.running, slave.turn, slave.slave_id, self._stamps[slave.slave_id]


class LeastLoaded(RatedStrategy):
    """Running tasks per worker; a slave without workers is worst."""

    def rate(self, slave: Slave) -> float:
        """Running tasks per worker."""
        return slave.running / slave.workers if slave.workers else WORST


class Weighted(RatedStrategy):
    """When the next task would be finished: tasks per worker, with this one, over the measured speed.

    An unmeasured slave counts as average, so that each gets a task soon and shows what it can do.
    """

    def rate(self, slave: Slave) -> float:
        """Running tasks and the next one, per worker and its speed: about when the next one would end."""
        return (slave.running + 1) / (slave.workers * slave.speed) if slave.workers else WORST


class Locality(LeastLoaded):
    """A slave of the task's `prefers`, the least loaded of them that has room; if none has, the least loaded of all."""

    def get_next_slave_for(self, task: Task) -> str | None:
        """Of those slaves that the task prefers the one with most room; else any, as in the base."""
        near = [self._slaves[name] for name in task.prefers if name in self._slaves]
        near = [slave for slave in near if slave.room > 0]
        if near:
            return min(near, key=lambda slave: (self.rate(slave), slave.running, slave.turn)).slave_id
        return self.get_next_slave()


class RoundRobin(RatedStrategy):
    """The slave that waited longest gets the next task, whatever the load: as a push socket does."""

    def rate(self, slave: Slave) -> float:
        """When it last had its turn."""
        return slave.turn
