"""The handle of a system under way, which its originator holds: waiting, fetching, withdrawing.

Lives here: `SystemHandle`.
Elsewhere:  when which method of the system is called (`life`), who settles a handle (`systems`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from grid.errors import CallTimeout


class SystemHandle:
    """Of a system, or a single task, that was started; its outcome arrives here.

    Args:
        withdraw: Called with the id and the error that shall be its outcome.
        doing: Tells of an id how far its system is.
    """

    def __init__(
        self,
        system_id: str,
        name: str,
        withdraw: Callable[[str, BaseException], object],
        doing: Callable[[str], str],
    ) -> None:
        self._withdraw, self._doing = withdraw, doing
        self.system_id = system_id
        self.name = name
        self.finished_tasks = 0
        self.failed_tasks = 0
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[SystemHandle], Any]] = []
        self._result: Any = None
        self._error: BaseException | None = None

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Args:
            timeout: Seconds; None waits for ever. Running out of time does not end the system.
        Raises:
            TimeoutError: Not complete in time; the message says what it waits for.
            Stalled, StrategyError, TaskError: It could not be brought to an end.
            CancelledError: It was withdrawn.
            The error that `gather_result` returned, and whatever the system's methods raised.
        """
        if not self._event.wait(timeout):
            raise CallTimeout(f"{self.name} is not complete after {timeout:g} s: {self.doing()}", hint="It goes on")
        if self._error is not None:
            try:
                raise self._error
            finally:
                self = None  # type: ignore[assignment]  # no cycle of traceback and handle
        return self._result

    result = get

    def pair(self, timeout: float | None = None) -> tuple[Any, BaseException | None]:
        """Wait, and return (result, error) without raising either."""
        if not self._event.wait(timeout):
            raise CallTimeout(f"{self.name} is not complete after {timeout:g} s: {self.doing()}", hint="It goes on")
        return self._result, self._error

    def done(self) -> bool:
        """Whether `get` would return at once."""
        return self._event.is_set()

    def cancel(self) -> bool:
        """Withdraw it: waiting tasks are dropped, running ones are stopped. False if it was done already."""
        if self.done():
            return False
        self._withdraw(self.system_id, CancelledError(f"{self.name} was withdrawn"))
        return True

    def doing(self) -> str:
        """In words: how far it is, and what it waits for."""
        return self._doing(self.system_id)

    def add_done_callback(self, fn: Callable[[SystemHandle], Any]) -> None:
        """Have `fn(self)` called when it is done: by the master's thread, or here and now if it is already."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(fn)
                return
        fn(self)

    def _settle(self, result: Any, error: BaseException | None) -> list[Callable[[SystemHandle], Any]]:
        with self._lock:
            if self._event.is_set():
                return []
            self._result, self._error = result, error
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        return callbacks

    def __repr__(self) -> str:
        return f"<SystemHandle {self.name} {'done' if self.done() else 'under way'}>"
