"""Listening to streams at the client: by hand, or in threads that hand messages on to monitors.

Lives here: `Listening`, `Monitors`.
Elsewhere:  streams at the server (`line/streams.py`), a list that follows one (`joblist.py`).
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from grid.jobs.api import Calls
from grid.jobs.host.errors import JobError, WaitTimeout
from grid.jobs.host.messages import ENDS, Message
from grid.jobs.line.lines import error_from_plain

logger = logging.getLogger(__name__)

LISTENER_SIZE = 10_000
"""Messages that wait for their listener; of more the oldest are lost, and a `Gap` tells of it."""
_TURN_S = 0.5
_JOIN_S = 5.0


class Listening:
    """Messages of one stream; a context manager, whose end hangs up."""

    def __init__(self, server: Calls, key: str, size: int = LISTENER_SIZE) -> None:
        self._calls, self.key = server, key
        self._queue: queue.Queue[Message] = queue.Queue(size)
        server.listen(key, self._queue)

    def get(self, timeout: float | None = None) -> Message:
        """The next message.

        Raises:
            TimeoutError: None came in time.
            JobError: The server does not answer any more, or it says that something went wrong with this stream.
        """
        try:
            message = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise WaitTimeout(f"no message of {self.key} for {timeout:g} s", hint="The stream goes on") from None
        if message.kind == "Lost":
            self._queue.put(message)  # for the next that asks
            if message.fields.get("error"):
                raise error_from_plain(message.error)
            raise JobError(
                f"the job server at {message.path} does not answer any more", hint="Jobs go on when it is back"
            )
        return message

    def close(self) -> None:
        """Hang up."""
        self._calls.hangup(self.key, self._queue)

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Monitors:
    """Threads of one connection, each of which gives a job's messages to a monitor."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, job: str, monitor: Any) -> None:
        """Until the job ends, or `close`; see `ServerProxy.monitor`."""
        listener = Listening(self._calls, job)
        thread = threading.Thread(target=self._pump, args=(listener, monitor), name="jobs-monitor", daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def close(self) -> None:
        """End them all."""
        self._closed.set()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def _pump(self, listener: Listening, monitor: Any) -> None:
        last = 0
        with listener:
            while not self._closed.is_set():
                try:
                    message = listener.get(_TURN_S)
                    missed = self._missed(listener.key, message, last)
                except WaitTimeout:
                    continue
                except JobError as exc:
                    logger.warning("%s", exc)
                    return
                for each in (message, *missed):
                    last = max(last, each.number)
                    try:
                        monitor.put(each)
                    except Exception:
                        logger.exception("the monitor of %s failed", listener.key)
                if message.kind in ENDS:
                    return

    def _missed(self, job: str, message: Message, last: int) -> list[Message]:
        """What was said before a listener came, or while it could not keep up."""
        if message.kind not in ("Join", "Gap"):
            return []
        said = map(Message.from_plain, self._calls.said(job, message.number))
        if not last:
            return list(said)
        return [each for each in said if last < each.number <= message.number]
