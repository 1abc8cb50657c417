"""Streams over HTTP: a header, then numbered changes, as server-sent events that can be resumed.

    id: 3fa9c1e2-17                          epoch of the stream, and number of the message
    data: {"kind": "JobChanged", "number": 17, ...}

A hub listens to one stream of the manager and keeps its last messages in a ring; readers are positions in it. So a
reader costs no queue, a slow one holds up nobody, and one that comes back with `Last-Event-ID` goes on where it was.
It begins anew, with a header, if the ring has passed it, or the epoch is another: the server was restarted. Each
message is made JSON once, or twice where some readers see less of it.

Threads: messages come from the manager's, under its lock; readers live in the event loop. `Hub._lock` guards the ring.

Lives here: `Hub`, `ListHub`, `JobHub`, `Hubs`.
Elsewhere:  streams in the process (`jobs/line/streams.py`), the HTTP side (`streaming.py`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from grid.jobs.api import CONDITIONS, QUEUE
from grid.jobs.host.errors import AccessError, JobError
from grid.jobs.host.messages import ENDS, Message
from grid.jobs.manager.job_manager import JobManager
from grid.jobs.rules.states import JobState
from grid.web.caller import Caller
from grid.web.limits import WebLimits
from grid.web.rights import hide

HEADERS = ("Jobs", "Join")
ENDED = frozenset(state.value for state in JobState if state.ended)
BATCH = 200
"""Messages that a reader gets at once."""


def frame(epoch: str, plain: dict[str, Any]) -> bytes:
    """One event. JSON has no line ends of its own, so it is one line."""
    data = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    return f"id: {epoch}-{plain['number']}\ndata: {data}\n\n".encode()


class _Entry:
    """A message in a ring; its JSON is made when the first reader takes it."""

    __slots__ = ("_full", "_less", "message", "number", "size")

    def __init__(self, message: Message) -> None:
        self.message, self.number = message, message.number
        self.size = message.__dict__.get("_size", 0)  # only large ones say
        self._full = self._less = b""

    def full(self, epoch: str) -> bytes:
        if not self._full:
            self._full = frame(epoch, self.message.to_plain())
        return self._full

    def less(self, epoch: str) -> bytes:
        if not self._less:
            plain = self.message.to_plain()
            self._less = frame(epoch, {**plain, "summary": hide(plain["summary"])})
        return self._less


class Hub:
    """See the module. Made and used in the event loop; `put_nowait` comes from other threads."""

    def __init__(
        self, manager: JobManager, key: str, loop: asyncio.AbstractEventLoop, size: int, most_bytes: int
    ) -> None:
        self.manager, self.key, self.loop = manager, key, loop
        self.epoch = secrets.token_hex(4)
        self.closed = False
        self._lock = threading.Lock()
        self._ring: deque[_Entry] = deque(maxlen=size)
        self._bytes, self._most_bytes = 0, most_bytes
        self._last = 0  # number of the newest message
        self._telling = False
        self.readers: set[asyncio.Event] = set()

    def open(self) -> None:
        """Begin to listen."""
        with self.manager.lock:
            self._last = self.manager.streams.number(self.key)
            self.manager.listen(self.key, self)

    def close(self) -> None:
        """No more; readers learn of it."""
        self.closed = True
        self.manager.streams.hangup(self.key, self)
        self._tell()

    def put_nowait(self, message: Message) -> None:
        """From the stream; under the manager's lock."""
        if message.kind in HEADERS:
            return
        with self._lock:
            if message.number <= self._last:
                return
            self._keep(_Entry(message))
            self._last = message.number
            self._took(message)
            telling, self._telling = self._telling, True
        if not telling:
            try:
                self.loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                pass  # the loop has ended, and its readers with it

    def _keep(self, entry: _Entry) -> None:
        """Put it into the ring; the oldest leave it by number or by size."""
        if len(self._ring) == self._ring.maxlen:
            self._bytes -= self._ring.popleft().size
        self._ring.append(entry)
        self._bytes += entry.size
        while self._bytes > self._most_bytes and len(self._ring) > 1:
            self._bytes -= self._ring.popleft().size

    def _took(self, message: Message) -> None:
        """It is in the ring; called under the lock, before any reader learns of it."""

    def _tell(self) -> None:
        with self._lock:
            self._telling = False
        for reader in self.readers:
            reader.set()

    def since(self, number: int, most: int = BATCH) -> list[_Entry] | None:
        """The next messages after that one, oldest first; None if some of them have left the ring, or never were."""
        with self._lock:
            missing = self._last - number
            if missing < 0 or missing > len(self._ring):
                return None
            start = len(self._ring) - missing
            if missing > most and start < len(self._ring) // 2:
                return list(islice(self._ring, start, start + most))
            newest = [self._ring[-1 - place] for place in range(missing)][::-1]
            return newest[:most]

    def position(self, after: str | None) -> int | None:
        """Where a reader goes on that has seen that id; None: with a header."""
        epoch, _, number = (after or "").partition("-")
        if epoch != self.epoch or not number.isdecimal() or len(number) > 18:
            return None
        return int(number) if self.since(int(number), 1) is not None else None

    def header(self, caller: Caller) -> tuple[int, bytes]:
        """Number and JSON of how things stand. Called in a thread; may wait for the manager's lock."""
        raise NotImplementedError

    def frames(self, caller: Caller, entries: list[_Entry]) -> bytes:
        """The messages, as that caller may see them."""
        return b"".join([entry.full(self.epoch) for entry in entries])

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.closed


class ListHub(Hub):
    """The stream of the list of jobs. Headers are kept for a moment: a crowd that comes at once needs one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._headers: dict[str, tuple[int, bytes]] = {}
        self._making = threading.Lock()
        self._waits: dict[str, set[asyncio.Future[None]]] = {}

    def put_nowait(self, message: Message) -> None:
        """Keep it, and tell the end of its job to all that wait for it."""
        super().put_nowait(message)
        if message.kind == "JobChanged":
            over = message.summary["state"] in ENDED or message.change == "removed"
            if over and message.summary["id"] in self._waits:
                self.loop.call_soon_threadsafe(self._end_waits_of, message.summary["id"])

    @contextmanager
    def waiting(self, job: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the job has ended; look at the job after it is made."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._waits.setdefault(job, set()).add(future)
        try:
            yield future
        finally:
            left = self._waits[job]
            left.discard(future)
            if not left:
                del self._waits[job]

    def _end_waits_of(self, job: str) -> None:
        for future in self._waits.get(job, ()):
            if not future.done():
                future.set_result(None)

    def end_waits(self) -> None:
        """The server stops."""
        for job in self._waits:
            self._end_waits_of(job)

    def header(self, caller: Caller) -> tuple[int, bytes]:
        """Number and JSON of the whole list, as that caller may see it."""
        whose = "" if caller.who.sees_all else caller.who.user
        with self._making:
            found = self._headers.get(whose)
            if found is not None and (after := self.since(found[0], BATCH)) is not None and len(after) < BATCH // 2:
                return found
            with self.manager.lock:
                number = self.manager.streams.number(QUEUE)
                records = [record for record in self.manager.records.values() if not record.archived]
                jobs = [caller.rights.shown(record) for record in records]
            plain = {**Message("Jobs", jobs=[]).to_plain(), "job": QUEUE, "number": number, "jobs": jobs}
            if len(self._headers) >= 32:
                self._headers.clear()
            self._headers[whose] = number, frame(self.epoch, plain)
            return self._headers[whose]

    def frames(self, caller: Caller, entries: list[_Entry]) -> bytes:
        """The changes; of other people's jobs with less."""
        if caller.who.sees_all:
            return super().frames(caller, entries)
        user = caller.who.user
        return b"".join(
            [
                entry.full(self.epoch) if entry.message.summary["owner"] == user else entry.less(self.epoch)
                for entry in entries
            ]
        )


class NoticeHub(Hub):
    """The stream of notices about atoms; it has no header."""

    def header(self, caller: Caller) -> tuple[int, bytes]:
        """Its number alone."""
        with self._lock:
            return self._last, b""


class JobHub(Hub):
    """The stream of one job. It ends with the job."""

    def open(self) -> None:
        """Begin to listen; nothing has ended yet."""
        self._ended = False
        super().open()

    def put_nowait(self, message: Message) -> None:
        """Keep it; the last message of a job that had ended comes once more."""
        if message.kind in ENDS and message.number <= self._last:  # the job had ended: its last message comes once more
            with self._lock:
                self._last -= 1
        super().put_nowait(message)

    def _took(self, message: Message) -> None:
        self._ended = self._ended or message.kind in ENDS

    def header(self, caller: Caller) -> tuple[int, bytes]:
        """Number and JSON of how the job stands."""
        with self.manager.lock:
            message = self.manager.book.join(self.manager.record(self.key))
            with self._lock:
                number = self._ring[-1].number - 1 if self._ended else self._last
            message.job, message.number, message.time = self.key, number, self.manager.streams.clock()
        return number, frame(self.epoch, message.to_plain())

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, or was removed."""
        return self.closed or self._ended or self.key not in self.manager.records


class Hubs:
    """The hubs of a server, made as they are needed. All but `open` in the event loop."""

    def __init__(self, manager: JobManager, limits: WebLimits) -> None:
        self.manager, self.limits = manager, limits
        self._hubs: dict[str, Hub] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._each: dict[str, int] = {}
        self._count = 0
        self.closed = False

    @property
    def count(self) -> int:
        """Open streams."""
        return self._count

    def enter(self, user: str) -> None:
        """A reader comes. Raises JobError if there are too many."""
        if self.closed:
            raise Busy("the job server stops", hint="Come back when it is there again")
        if self._count >= self.limits.streams or self._each.get(user, 0) >= self.limits.streams_each:
            raise Busy("too many streams are open", hint="Close some, or try again later")
        self._count += 1
        self._each[user] = self._each.get(user, 0) + 1

    def leave(self, user: str) -> None:
        """A reader goes."""
        self._count -= 1
        self._each[user] -= 1
        if not self._each[user]:
            del self._each[user]

    async def get(self, key: str, caller: Caller) -> Hub:
        """The hub of that stream. Raises UnknownJob, AccessError."""
        if key == QUEUE and caller.who.is_narrow:
            raise AccessError("this token is not for the list of jobs", hint="Ask who gave it to you")
        if key == CONDITIONS and not caller.who.sees_all:
            raise AccessError("notices about conditions are for admins", hint="Listen to your jobs instead")
        if key not in (QUEUE, CONDITIONS):
            caller.rights.record(key)
        hub = self._hubs.get(key)
        if hub is not None:
            return hub
        loop = asyncio.get_running_loop()
        kind = {QUEUE: ListHub, CONDITIONS: NoticeHub}.get(key, JobHub)
        size = self.limits.ring if kind is ListHub else min(1_000, self.limits.ring)
        hub = kind(self.manager, key, loop, size, self.limits.ring_bytes)
        await loop.run_in_executor(None, hub.open)
        other = self._hubs.setdefault(key, hub)  # another may have been quicker
        if other is not hub:
            await loop.run_in_executor(None, hub.close)
        return other

    def came(self, hub: Hub, reader: asyncio.Event) -> None:
        """A reader of that hub."""
        hub.readers.add(reader)
        timer = self._lingering.pop(hub.key, None)
        if timer is not None:
            timer.cancel()

    def went(self, hub: Hub, reader: asyncio.Event) -> None:
        """It has left; a hub that nobody reads lingers for readers that come back."""
        hub.readers.discard(reader)
        if not hub.readers and not self.closed and hub.key not in (QUEUE, CONDITIONS):
            old = self._lingering.pop(hub.key, None)
            if old is not None:
                old.cancel()
            self._lingering[hub.key] = hub.loop.call_later(self.limits.linger_s, self._drop, hub)

    def _drop(self, hub: Hub) -> None:
        self._lingering.pop(hub.key, None)
        if not hub.readers and self._hubs.get(hub.key) is hub:
            del self._hubs[hub.key]
            hub.loop.run_in_executor(None, hub.close)

    def close(self) -> None:
        """End all."""
        self.closed = True
        for timer in self._lingering.values():
            timer.cancel()
        for hub in self._hubs.values():
            hub.close()


class Busy(JobError):
    """Not now: too many do that already, or the server stops."""
