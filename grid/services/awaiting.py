"""Maps in asyncio: `await g.map(...)` gives the list, `async for` the values, in order and as they come.

No thread waits for them: the map's own thread tells the event loop that something is there.

Lives here: the two methods, and the condition that tells event loops. Elsewhere: the map (`mapping`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import CancelledError
from typing import Any


class Changed(threading.Condition):
    """A condition that event loops can watch, too."""

    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[Callable[[], None]] = []

    def notify_all(self) -> None:
        super().notify_all()
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
