"""Remains of results: values that wait on their hosts, errors that nobody asked for, blobs to remove there.

A destructor may run in any thread and under any lock. So it only queues what is to be done, and the watch does it.

Lives here: the queue, the end of it all. Elsewhere: who queues (`result`, `remote_value`, `untold`, `compat/crew`).
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

logger = logging.getLogger(__name__)


class _Value(Protocol):
    def bring_here(self) -> None: ...


class _Error(Protocol):
    def tell(self) -> None: ...


class Waste:
    """See the module. One for each grid."""

    def __init__(self) -> None:
        self._words: SimpleQueue[Callable[[], bool]] = SimpleQueue()
        self.untold: weakref.WeakSet[_Error] = weakref.WeakSet()
        """Errors that nobody has asked for."""
        self.unfetched: weakref.WeakSet[_Value] = weakref.WeakSet()
        """Results whose values wait on their hosts."""

    def put(self, remove: Callable[[], bool]) -> None:
        """Have it called by the watch, and again later where it answers False. From any thread, under any lock."""
        self._words.put(remove)

    def take_out(self) -> None:
        """Do what destructors have left word of."""
        later = []
        while not self._words.empty():
            remove = self._words.get()
            if not remove():
                later.append(remove)
        for remove in later:
            self._words.put(remove)

    def fetch(self, seconds: float) -> None:
        """Have large values here that wait on their hosts, while those are up; takes `seconds` at most."""
        deadline = time.monotonic() + seconds
        for result in list(self.unfetched):
            if time.monotonic() > deadline:
                logger.warning("not all large results could be fetched within %g s at the end", seconds)
                return
            try:
                result.bring_here()
            except Exception as exc:  # its caller will hear why
                logger.debug("%r could not be fetched at the end: %s", result, exc)

    def tell(self) -> None:
        """The grid has ended: name the errors that nobody has asked for."""
        for error in list(self.untold):
            error.tell()
        self.take_out()
