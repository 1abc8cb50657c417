"""Maps in asyncio: `await g.map(...)` gives the list, `async for` the values, in order and as they come.

No thread waits for them: the map's own thread tells the event loop that something is there.

Lives here: the two methods, and the condition that tells event loops. Elsewhere: the map (`mapping`).
"""

from __future__ import annotations

import _thread
import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import CancelledError
from typing import Any


class Changed(_thread.RLock):  # type: ignore[misc]  # it is final in typeshed alone
    """A condition that event loops can watch, too, and that an exception of the user's never leaves locked.

    `with` on a `threading.Condition` runs Python code, in which a signal's handler may raise after the lock was taken
    and before anybody is bound to give it back. Here `with` calls the lock itself.
    """

    def __init__(self) -> None:
        self.watchers: list[Callable[[], None]] = []
        self._waiting: list[Any] = []

    def wait(self, timeout: float | None = None) -> bool:
        """With the lock held: until something has changed; False after `timeout` seconds."""
        bell = threading.Lock()
        bell.acquire()
        self._waiting.append(bell)
        try:
            self.release()
            return bell.acquire(True, -1 if timeout is None else max(0.0, timeout))
        finally:
            self.acquire()
            if bell in self._waiting:
                self._waiting.remove(bell)

    def wait_for(self, truth: Callable[[], Any], timeout: float | None = None) -> Any:
        """With the lock held: until `truth()`; what it says in the end, or after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (said := truth()):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.wait(remaining)
        return said

    def notify_all(self) -> None:
        """With the lock held: something has changed."""
        waiting, self._waiting = self._waiting, []
        for bell in waiting:
            bell.release()
        for watcher in list(self.watchers):
            watcher()


class Awaitable(AsyncIterator[Any]):
    """Base of what waits for `self._mapping` by `next` and `get`, and knows with `_is_ready` whether `next` waits."""

    _mapping: Any

    def _is_ready(self) -> bool:
        raise NotImplementedError

    async def _until(self, ready: Callable[[], bool]) -> None:
        changed: Changed = self._mapping.changed
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:
                pass  # the loop has ended

        with changed:
            changed.watchers.append(tell)
        try:
            while True:
                with changed:
                    if ready():
                        return
                    event.clear()
                await event.wait()
        finally:
            with changed:
                changed.watchers.remove(tell)

    def __aiter__(self) -> Awaitable:
        return self

    async def __anext__(self) -> Any:
        await self._until(self._is_ready)
        try:
            return next(self)  # type: ignore[call-overload]
        except StopIteration:
            raise StopAsyncIteration from None

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self._everything().__await__()

    async def _everything(self) -> list[Any]:
        kept: list[Any] = []
        failed: BaseException | None = None
        while True:
            try:
                kept.append(await self.__anext__())
            except StopAsyncIteration:
                break
            except (asyncio.CancelledError, CancelledError):
                raise
            except BaseException as exc:
                failed = failed or exc
                if self._mapping.failure is not None:
                    break
        if failed is not None:
            raise failed
        return kept
