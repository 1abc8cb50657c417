"""Thousands of commands: some are under way, the others wait to be read; runs come in order, or as they end.

Lives here: `CommandRuns` (what `g.map_commands` gives), names of outputs that two runs share.
Elsewhere:  one command (`running`), which are done already (`memo`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from grid.commands.outcome import CommandRun
from grid.commands.template import fields_of, fill
from grid.errors import CallTimeout, CommandFailed, StagingError

AHEAD = 256
"""Commands under way, or waiting for a server, at most."""

Start = Callable[[int, Mapping[str, Any]], "Future[Any]"]
"""Begins the command of that number, from 1, with these values."""


def place_of(to: str | os.PathLike[str] | None, number: int, values: Mapping[str, Any]) -> Path:
    """The directory of a run's outputs: `to` may have fields, and `{n}` is the number of the run, from 1.

    Raises:
        ValueError: A field without a value.
    """
    text = os.curdir if to is None else os.fspath(to)
    if "{" in text:
        known = {**values, "n": number}
        text = fill(["cd", text], {name: known[name] for name in fields_of(text) if name in known}).words[1]
    return Path(text).absolute()


class OutputClaims:
    """Which run of a map wrote which file here: two that write the same are an error, and not a loss."""

    def __init__(self) -> None:
        self._of: dict[Path, int] = {}
        self._lock = threading.Lock()

    def claim(self, number: int, paths: Iterable[Path]) -> None:
        """StagingError: Another run has written one of them."""
        with self._lock:
            for path in paths:
                owner = self._of.setdefault(path, number)
                if owner != number:
                    raise StagingError(
                        f"runs {owner} and {number} both write {os.fspath(path)!r}",
                        hint="Give each a directory: to='results/{n}', or one with a field of the template",
                    )


class CommandRuns:
    """The runs of many commands, as an iterator; see the module. `close`, or the end of `with`, ends what is under way.

    An item that failed raises its error from `next`; the others go on, and you may go on asking.

    Args:
        tries: How often a command that fails is run, in all.
        ordered: In the order of the items; else as they end.
        exceptions: Give errors in place of runs.
        timeout: Seconds that each `next` may wait.
    """

    def __init__(
        self,
        items: Iterable[Any],
        start: Callable[[int, Any], Future[Any]],
        *,
        tries: int = 1,
        ordered: bool = True,
        exceptions: bool = False,
        timeout: float | None = None,
        ahead: int = AHEAD,
    ) -> None:
        self._items: Iterator[tuple[int, Any]] | None = enumerate(items, 1)
        self._start, self._tries, self._ordered = start, tries, ordered
        self._exceptions, self._timeout, self._ahead = exceptions, timeout, ahead
        self._open: deque[tuple[int, Any, Future[Any]]] = deque()
        self._tried: dict[int, int] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()
        self._of: dict[Future[Any], tuple[int, Any]] = {}
        self.number = 0
        """The number of the item whose run came last, from 1."""

    def __iter__(self) -> CommandRuns:
        return self

    def __next__(self) -> CommandRun:
        while True:
            self._fill()
            number, item, future = self._next()
            self.number = number
            try:
                run: CommandRun = future.result(0)
            except CommandFailed as exc:
                if self._tried.get(number, 1) < self._tries:
                    self._tried[number] = self._tried.get(number, 1) + 1
                    self._begin(number, item, first=True)
                    continue
                if not self._exceptions:
                    raise
                return exc  # type: ignore[return-value]
            except Exception as exc:
                if not self._exceptions:
                    raise
                return exc  # type: ignore[return-value]
            return run

    def _fill(self) -> None:
        while self._items is not None and len(self._of) < self._ahead:
            try:
                number, item = next(self._items)
            except StopIteration:
                self._items = None
                return
            self._begin(number, item)

    def _begin(self, number: int, item: Any, first: bool = False) -> None:
        try:
            future = self._start(number, item)
        except Exception as exc:  # an input that does not exist, say: that item's affair
            future = Future()
            future.set_exception(exc)
        self._of[future] = number, item
        if self._ordered:
            entry = number, item, future
            self._open.appendleft(entry) if first else self._open.append(entry)
        else:
            future.add_done_callback(self._ended.put)

    def _next(self) -> tuple[int, Any, Future[Any]]:
        if not self._of:
            raise StopIteration
        if not self._ordered:
            try:
                future = self._ended.get(timeout=self._timeout)
            except Empty:
                raise self._late() from None
        else:
            future = self._open[0][2]
            with contextlib.suppress(Exception):
                future.exception(self._timeout)
            if not future.done():
                raise self._late()
            self._open.popleft()
        number, item = self._of.pop(future)
        return number, item, future

    def _late(self) -> CallTimeout:
        return CallTimeout(
            f"none of {len(self._of)} commands under way has ended within {self._timeout or 0:g} s", hint="They go on"
        )

    def close(self) -> None:
        """Withdraw what has not begun, end what runs, and read no more items."""
        self._items = None
        for future in list(self._of):
            future.cancel()
        self._of.clear()
        self._open.clear()

    def __enter__(self) -> CommandRuns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
