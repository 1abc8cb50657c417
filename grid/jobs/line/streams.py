"""Streams of messages: many, by key; each listener gets the header first, then every message, in order, numbered.

A listener is a queue of bounded size. One that is full loses messages, never holds up anybody, and is told how many it
lost by a `Gap` as soon as it has room. Nothing is kept of a stream but its header, which says how things stand.

Lives here: `Streams`, `Listener`.
Elsewhere:  messages (`host/messages.py`), what the headers are (`manager/job_manager.py`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from grid.jobs.host.messages import Gap, Message
from grid.jobs.host.names import safe_key

SIZE = 10_000
"""Messages that wait for a listener."""

Header = Callable[[], Message | None]


class Listener:
    """A bounded queue of messages; `get` and iteration take them out. `key` is its stream."""

    def __init__(self, key: str, size: int = SIZE, target: Any = None) -> None:
        self.key = key
        self._queue: Any = target if target is not None else queue.Queue(size)
        self._put = self._queue.put_nowait if hasattr(self._queue, "put_nowait") else self._queue.put
        inner = getattr(self._queue, "target", self._queue)
        self._qsize = getattr(inner, "qsize", lambda: 0)
        self._room = getattr(inner, "maxsize", 0) or float("inf")
        self._gap: Gap | None = None

    def offer(self, message: Message) -> None:
        """Never waits. The last place is for the Gap, so that a late listener learns of it without further news."""
        if self._qsize() >= self._room - 1:
            if self._gap is not None:  # still the last in the queue: nothing was put since
                self._gap.__dict__["missed"] += 1
                return
            self._gap = message = _gap(self.key, message.number)
        else:
            self._gap = None
        try:
            self._put(message)
        except queue.Full:  # somebody else puts into it, too
            self._gap = None

    def get(self, timeout: float | None = None) -> Message:
        """The next message. Raises queue.Empty after `timeout` seconds."""
        message: Message = self._queue.get(timeout=timeout)
        return message

    def holds(self, target: Any) -> bool:
        """Whether it puts into that queue."""
        return self._queue is target or getattr(self._queue, "target", None) is target

    def __iter__(self) -> Iterator[Message]:
        while True:
            yield self.get()


def _gap(key: str, number: int) -> Gap:
    gap = Gap(missed=1)
    gap.job, gap.number, gap.time = key, number, time.time()
    return gap


class Streams:
    """See the module. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.RLock()
        self.clock = clock
        self._listeners: dict[str, list[Listener]] = {}
        self._taps: dict[str, list[Callable[[Message], None]]] = {}
        self._headers: dict[str, Header] = {}
        self._numbers: dict[str, int] = {}

    def put(self, key: str, message: Message) -> Message:
        """Number a message, stamp it, and give it to all who listen to the stream, in order."""
        with self._lock:
            number = self._numbers[key] = self._numbers.get(key, 0) + 1
            message.job, message.number, message.time = key, number, self.clock()
            for listener in self._listeners.get(key, ()):
                listener.offer(message)
            taps = list(self._taps.get(key, ()))
        for tap in taps:
            tap(message)
        return message

    def listen(self, key: str, target: Any = None, size: int = SIZE) -> Listener:
        """Get the header, if the stream has one, and then every message.

        Args:
            target: A queue of your own (`put_nowait`, else `put`); default: one of `size` messages.
        """
        safe_key(key, "name of a stream")
        listener = Listener(key, size, target)
        with self._lock:
            header = self.header(key)
            if header is not None:
                header.job, header.number, header.time = key, self._numbers.get(key, 0), self.clock()
                listener.offer(header)
            self._listeners.setdefault(key, []).append(listener)
        return listener

    def tap(self, key: str, function: Callable[[Message], None]) -> None:
        """Call a function with each message, here and now: for parts of the server itself."""
        with self._lock:
            self._taps.setdefault(key, []).append(function)

    def hangup(self, key: str | None = None, target: Any = None) -> None:
        """No more messages: of one stream or all, for one listener (or its queue) or all."""
        with self._lock:
            for each in [key] if key is not None else list(self._listeners):
                left = [
                    listener
                    for listener in self._listeners.get(each, [])
                    if target is not None and listener is not target and not listener.holds(target)
                ]
                if left:
                    self._listeners[each] = left
                else:
                    self._listeners.pop(each, None)

    def listening(self, key: str) -> int:
        """How many listen."""
        with self._lock:
            return len(self._listeners.get(key, ()))

    def set_header(self, key: str, header: Header | Message) -> None:
        """The first message for new listeners, or a function that makes it, called under the streams' lock."""
        with self._lock:
            self._headers[key] = header if not isinstance(header, Message) else (lambda: header)

    def header(self, key: str) -> Message | None:
        """The message that a new listener would get now."""
        with self._lock:
            make = self._headers.get(key)
            return make() if make is not None else None

    def number(self, key: str) -> int:
        """That of the last message."""
        with self._lock:
            return self._numbers.get(key, 0)

    def delete_header(self, key: str) -> None:
        """New listeners get none."""
        with self._lock:
            self._headers.pop(key, None)

    def forget(self, key: str) -> None:
        """The job of that stream was deleted: nothing comes any more."""
        with self._lock:
            self.hangup(key)
            self._headers.pop(key, None)
            self._numbers.pop(key, None)

    @property
    def lock(self) -> threading.RLock:
        """Held while a header is made: a change under it is never sent twice nor missed."""
        return self._lock
