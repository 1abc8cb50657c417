"""A list at the client that follows the server's: always consistent, and it tells when something changed.

Lives here: `JobList`.
Elsewhere:  the stream that it applies (`manager.QUEUE`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from grid.jobs.host.errors import JobError, WaitTimeout
from grid.jobs.host.messages import Message

if TYPE_CHECKING:
    from grid.jobs.client.proxy import ServerProxy

logger = logging.getLogger(__name__)

_TURN_S = 0.2


class JobList:
    """Summaries of jobs by id, in order of submission. `on_change(list, message)` is called after each change.

    It begins with the whole list, and then applies each change once; if it fell so far behind that changes were
    dropped, it begins anew. A context manager.
    """

    def __init__(
        self,
        service: ServerProxy,
        on_change: Callable[[JobList, Message], Any] | None = None,
        size: int = 10_000,
    ) -> None:
        self._service, self._on_change, self._size = service, on_change, size
        self._lock = threading.Condition()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._number = 0
        self._closed = False
        self._lost: JobError | None = None
        self.restarts = 0
        """How often it began anew."""
        self._listener = service.listen(service.queue, size)
        self._apply(self._listener.get(30.0))
        self._thread = threading.Thread(target=self._follow, name="jobs-list", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._closed:
            try:
                message = self._listener.get(_TURN_S)
            except WaitTimeout:
                continue
            except JobError as exc:
                with self._lock:
                    self._lost = exc
                    self._lock.notify_all()
                return
            if not self._fits(message):
                logger.info("the list of jobs missed changes and begins anew")
                self._listener.close()
                self._listener = self._service.listen(self._service.queue, self._size)
                self.restarts += 1
                continue
            self._apply(message)

    def _fits(self, message: Message) -> bool:
        """Whether nothing is missing before it."""
        return message.kind == "Jobs" or (message.kind != "Gap" and message.number == self._number + 1)

    def _apply(self, message: Message) -> None:
        with self._lock:
            self._number = message.number
            if message.kind == "Jobs":
                self._jobs = {summary["id"]: summary for summary in message.jobs}
            elif message.change == "removed":
                self._jobs.pop(message.summary["id"], None)
            elif not message.summary["archived"]:
                self._jobs[message.summary["id"]] = message.summary
            self._lock.notify_all()
        if self._on_change is not None:
            try:
                self._on_change(self, message)
            except Exception:
                logger.exception("on_change failed")

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """A copy: id -> summary."""
        with self._lock:
            return dict(self._jobs)

    def wait_for(self, condition: Callable[[dict[str, dict[str, Any]]], Any], timeout: float | None = None) -> None:
        """Until the list is as wanted. Raises TimeoutError, or JobError if the server does not answer any more."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while not condition(self._jobs):
                if self._lost is not None:
                    raise self._lost
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeout(f"the list was not as wanted within {timeout:g} s", hint="It goes on")
                self._lock.wait(left)

    def close(self) -> None:
        """Follow no more."""
        self._closed = True
        if self._thread is not threading.current_thread():
            self._thread.join(10.0)
        self._listener.close()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.jobs.values())

    def __enter__(self) -> JobList:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
