"""Which pending job is next, and why the others wait. Pure: it knows no lock, thread, clock, store or place.

    pending --add--> a heap for each owner --choose--> the next one
                      ^        |-- its service is not here, or not as it was --> aside, by service
                      |        |-- an equal job is computed right now ---------> parked
                      +------- service_came, unpark --------------------------------+

Of the owner with the fewest active jobs the job of the highest priority is next, then the oldest. What leaves a heap in
another way than by being chosen (it was cancelled, say) is noticed when its turn comes.

Lives here: `Dispatch`, `NextJob`.
            The caller holds `Book.lock`.
Elsewhere:  whether a service is here (`fitting.py`), places and the thread that asks (`starter.py`).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState


@dataclass
class NextJob:
    """The next job (None: none can start), and the jobs that were put aside on the way, each with its reason."""

    record: JobRecord | None = None
    waits: list[tuple[JobRecord, str]] = field(default_factory=list)


class Dispatch:
    """See the module. `find` gives the record of a job, or None."""

    def __init__(self, find: Callable[[str], JobRecord | None]) -> None:
        self._find = find
        self._heaps: dict[str, list[tuple[int, int, str]]] = {}  # owner -> (-priority, number, id)
        self._aside: dict[str, set[str]] = {}  # service -> jobs that wait for it
        self._parked: set[str] = set()

    def add(self, record: JobRecord) -> None:
        """A job is pending; harmless if it was known already."""
        heapq.heappush(self._heaps.setdefault(record.owner, []), (-record.priority, record.number, record.id))

    def choose(self, active: Mapping[str, str], why_not: Callable[[JobRecord], str]) -> NextJob:
        """The next job; it stays the next one until it is not pending any more.

        Args:
            active: Jobs that have a place -> their owners.
            why_not: Why a job can't start, though there is room; empty: it can. It may cancel the job.
        """
        choice, busy = NextJob(), Counter(active.values())
        for owner in sorted(self._heaps, key=lambda owner: busy[owner]):
            heap = self._heaps[owner]
            while heap:
                record = self._pending(heap[0][2])
                if record is None or record.id in active or record.id in self._parked:
                    heapq.heappop(heap)
                    continue
                why = why_not(record)
                if not why:
                    choice.record = record
                    return choice
                heapq.heappop(heap)
                if record.state is JobState.PENDING:
                    self._aside.setdefault(record.service, set()).add(record.id)
                    choice.waits.append((record, why))
            del self._heaps[owner]
        return choice

    def service_came(self, service: str) -> list[JobRecord]:
        """A service is here, or is as it was: the jobs that waited for it can be chosen again; returns them."""
        return self._again(self._aside.pop(service, ()))

    def park(self, job: str) -> None:
        """An equal job is computed: this one is not chosen until `unpark`."""
        self._parked.add(job)

    def unpark(self, jobs: Iterable[str]) -> list[JobRecord]:
        """The result for which these waited is computed, or won't be; returns those that are still pending."""
        jobs = list(jobs)
        self._parked.difference_update(jobs)
        return self._again(jobs)

    def _again(self, jobs: Iterable[str]) -> list[JobRecord]:
        found = [record for record in map(self._pending, jobs) if record is not None]
        for record in found:
            self.add(record)
        return found

    def _pending(self, job: str) -> JobRecord | None:
        record = self._find(job)
        return record if record is not None and record.state is JobState.PENDING else None
