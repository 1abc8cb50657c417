"""Units that a job has handed out: of a `map`, all at once and in order, or of `handler.units`, as it likes.

Lives here: `Ordered`, `Units`.
Elsewhere:  the conversation by which they leave and come back (`runner.py`), who does them (`worker.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

from grid.jobs.host.service import AbortService
from grid.wire import codec

if TYPE_CHECKING:
    from typing_extensions import Self

    from grid.jobs.host.runner import RunningJob


class Outcomes:
    """The units of one function: its number in the conversation, the function with its key, its items."""

    def __init__(self, job: RunningJob, task: Callable[[Any], Any], attempts: int) -> None:
        function = codec.dumps_whole(task, "the function given to map")
        self._job, self._task, self._attempts = job, task, attempts
        self._key = f"{job.job}/{hashlib.sha256(function).hexdigest()[:16]}"
        self.number = next(job.numbers)
        self._given = 0

    def _hand_out(self, items: Iterable[Any]) -> None:
        work = list(enumerate(items, self._given))
        if not work:
            return
        codec.dumps(work, "an item given to map")  # here, where the traceback says whose
        self._given += len(work)
        self._job.maps[self.number] = self
        self._job.say("units", self.number, self._key, self._task, work, self._attempts)

    def arrived(self, index: int, ok: bool, value: Any) -> None:
        """An outcome; the caller holds the job's lock."""
        raise NotImplementedError


class Ordered(Outcomes):
    """A map: results in the order of its items; the first failure to arrive ends it.

    What has a length is there already, and is handed out at once. Other items are read as they are needed, so endless
    input costs nothing: `AHEAD` of them, or `PER_WORKER` for each worker where that is more, are handed out and not yet
    fetched. Where they are used up within `TURN_S` their number doubles,
    up to `MOST`: the queue of a job with quick units must not run empty between two words with its manager, for then
    others get its share.
    """

    AHEAD = 256
    PER_WORKER = 4
    MOST = 16_384
    TURN_S = 2.0

    def __init__(
        self, job: RunningJob, task: Callable[[Any], Any], items: Iterable[Any], attempts: int, workers: int = 0
    ) -> None:
        super().__init__(job, task, attempts)
        self._results: dict[int, Any] = {}
        self._failure: BaseException | None = None
        self._items: Iterator[Any] | None = iter(items)
        self._broken: Exception | None = None  # what reading the items raised
        self._ahead = max(self.AHEAD, self.PER_WORKER * workers, len(items) if isinstance(items, Sized) else 0)
        self._read_at = float("-inf")
        self._read(0)

    def _read(self, fetched: int) -> None:
        """Hand out more, when half of those that were handed out are fetched."""
        if self._items is None or self._given - fetched > self._ahead // 2:
            return
        now = time.monotonic()
        if now - self._read_at < self.TURN_S:
            self._ahead = min(max(self.MOST, self._ahead), 2 * self._ahead)
        self._read_at = now
        room = self._ahead - (self._given - fetched)
        work: list[Any] = []
        try:
            for item in itertools.islice(self._items, room):
                work.append(item)
        except Exception as exc:  # told when its turn comes: results of the items before it come first
            self._broken = exc
        if len(work) < room:
            self._items = None
        self._hand_out(work)

    def arrived(self, index: int, ok: bool, value: Any) -> None:
        if ok:
            self._results[index] = value
        elif self._failure is None:
            self._failure = value

    def results(self) -> Iterator[Any]:
        """In order, each when all before it have arrived."""
        done = False
        index = 0
        try:
            while index < self._given:
                self._job.wait_until(lambda: index in self._results or self._failure is not None)  # noqa: B023
                if index in self._results:
                    value = self._results.pop(index)
                    index += 1
                    self._read(index)
                    yield value
                elif self._failure is not None:
                    raise self._failure
                else:
                    raise AbortService(self._job.ends_because)
            done = True
            if self._broken is not None:
                raise self._broken
        finally:
            self._job.forget(self.number, drop=not done)


class Units(Outcomes):
    """What `handler.units` gives; see there."""

    def __init__(self, job: RunningJob, task: Callable[[Any], Any], attempts: int) -> None:
        super().__init__(job, task, attempts)
        self._arrived: deque[tuple[int, bool, Any]] = deque()
        self._taken = 0
        self._closed = False

    @property
    def under_way(self) -> int:
        """How many were put and not taken."""
        return self._given - self._taken

    def put(self, items: Iterable[Any]) -> range:
        """Hand out more; returns their numbers. ValueError after `close`."""
        if self._closed:
            raise ValueError("these units are closed: ask for others with handler.units")
        first = self._given
        self._hand_out(items)
        return range(first, self._given)

    def take(self) -> tuple[int, Any, BaseException | None]:
        """The next one to come back: its number, and its result or what it raised.

        Raises:
            IndexError: There is none under way.
            AbortService: The job shall end.
        """
        if not self.under_way:
            raise IndexError("no unit is under way")
        self._job.wait_until(lambda: bool(self._arrived))
        if not self._arrived:
            raise AbortService(self._job.ends_because)
        number, ok, value = self._arrived.popleft()
        self._taken += 1
        return number, *((value, None) if ok else (None, value))

    def arrived(self, index: int, ok: bool, value: Any) -> None:
        self._arrived.append((index, ok, value))

    def close(self) -> None:
        """Those that nobody has begun are not done any more."""
        self._closed = True
        self._job.forget(self.number, drop=self.under_way > 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
