"""Generators that run in a server, a step for each call of the client's stream.

Lives here: `Generators` of one server: open, step, shut. Elsewhere: the client's end (`services/stream.py`), calls
(`serve.py`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from grid.errors import GridError

STEP_S = 0.0005
"""Values that come faster than this share a reply."""

_REMEMBERED = 1000
"""Streams that have ended: the client may have asked for more before it heard so."""


class Generators:
    """See the module. Only the thread that runs calls uses it."""

    def __init__(self) -> None:
        self._open: dict[str, Iterator[Any]] = {}
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)
        self._last = ""

    def begin(self, key: str, method: str, made: Any) -> None:
        """A method has returned what a stream iterates over.

        Raises:
            TypeError: That can't be done.
        """
        if hasattr(made, "__aiter__"):
            raise TypeError(
                f"{method!r} is an asynchronous generator: a stream takes one that is `def`, not `async def`"
            )
        if not hasattr(made, "__iter__"):
            raise TypeError(f"{method!r} gives {type(made).__name__}, and a stream needs what can be iterated over")
        self._open[key] = iter(made)

    def never(self, key: str) -> None:
        """There is nothing to iterate over: the call failed."""
        self._ended.append(key)

    def step(self, key: str, most: int) -> tuple[list[Any], bool, Any]:
        """The next values of a stream: those that come within `STEP_S`, at least one and `most` at most.

        Returns:
            The values, whether that was the end, and what the generator returned then.
        Raises:
            GridError: There is no such stream here.
            Any exception of the generator, which has ended with that. Values before it go first.
        """
        running = self._open.get(key)
        values: list[Any] = []
        if running is None:
            if key in self._ended:
                return values, True, None
            raise GridError(
                "the stream is not here: it ended with the process in which it ran, or never began",
                hint="A server that moves to another host takes its instance along, and no generators: call it again",
            )
        self._last = key
        deadline = time.perf_counter() + STEP_S
        try:
            while True:
                values.append(next(running))
                if len(values) >= most or time.perf_counter() > deadline:
                    return values, False, None
        except StopIteration as end:
            self._forget(key)
            return values, True, end.value
        except Exception as exc:
            self._forget(key)
            if not values:
                raise
            self._open[key] = _raising(exc)
            return values, False, None

    def cut(self, values: list[Any], fits: Callable[[Any], object]) -> tuple[list[Any], bool, Any]:
        """Of the values that were given last those before the first that can't travel; its error comes next."""
        for at, value in enumerate(values):
            try:
                fits(value)
            except Exception as exc:
                _close(self._forget(self._last))
                if not at:
                    raise
                self._open[self._last] = _raising(exc)
                return values[:at], False, None
        raise AssertionError("all of them travel")

    def shut(self, key: str) -> None:
        """No more values are wanted: the generator's `finally` runs."""
        _close(self._forget(key))

    def _forget(self, key: str) -> Iterator[Any] | None:
        self._ended.append(key)
        return self._open.pop(key, None)


def _raising(exc: Exception) -> Iterator[Any]:
    raise exc
    yield


def _close(running: Iterator[Any] | None) -> None:
    close = getattr(running, "close", None)
    if close is not None:
        close()
