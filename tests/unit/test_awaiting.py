"""A condition that event loops can watch, and that an exception never leaves locked."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from grid.services.awaiting import Awaitable, Changed


@pytest.mark.row("G45")
def test_waiting_ends_with_a_change_or_with_patience() -> None:
    changed, seen = Changed(), list[bool]()
    with changed:
        assert not changed.wait(0.0) and not changed.wait_for(lambda: False, 0.0)

    def wait() -> None:
        with changed:
            seen.append(changed.wait_for(lambda: value, 20))

    value: list[int] = []
    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    with changed:
        value.append(1)
        changed.notify_all()
    for thread in threads:
        thread.join(20)
    assert len(seen) == 3 and all(seen)


@pytest.mark.row("U02")
def test_a_wait_that_is_torn_off_leaves_nobody_behind() -> None:
    changed = Changed()
    with pytest.raises(KeyboardInterrupt), changed:
        changed.watchers.append(_raise)
        try:
            changed.notify_all()
        finally:
            changed.watchers.clear()
    free = threading.Thread(target=lambda: changed.acquire() and changed.release())
    free.start()
    free.join(20)
    assert not free.is_alive(), "the lock is held"


def _raise() -> None:
    raise KeyboardInterrupt


class Source(Awaitable):
    def __init__(self, values: list[Any]) -> None:
        self.changed, self.failure, self.values = Changed(), None, values
        self._mapping = self

    def _is_ready(self) -> bool:
        return True

    def __next__(self) -> Any:
        if not self.values:
            raise StopIteration
        value = self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        return value


@pytest.mark.row("G45")
def test_await_gives_all_or_the_first_error_after_all() -> None:
    async def run(values: list[Any]) -> Any:
        return await Source(values)

    async def each(values: list[Any]) -> list[Any]:
        return [value async for value in Source(values)]

    assert asyncio.run(run([1, 2, 3])) == [1, 2, 3] == asyncio.run(each([1, 2, 3]))
    values: list[Any] = [1, ValueError("first"), OSError("second"), 4]
    with pytest.raises(ValueError, match="first"):
        asyncio.run(run(values))
    assert values == [], "the others were waited for"
