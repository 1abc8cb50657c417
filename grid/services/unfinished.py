"""Calls that run although nobody waits for them: what executors have been given, and its end.

A script may submit its last calls and come to its end, as with the executors of the standard library. So they are
finished before the grid ends; a grid that is ended by `terminate`, or by an error, says what it drops.

Lives here: who has such calls, waiting for them with a word now and then, the word about what is dropped.
Elsewhere:  the calls (`compat/work.py`), when a grid ends (`grids/abstract.py`).
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable
from typing import Protocol

logger = logging.getLogger(__name__)

_TELL_S = 10.0
"""A wait for such calls is reported after this time, and then again."""


class Source(Protocol):
    """Somebody with calls that are to be finished."""

    def left(self) -> list[str]:
        """Unfinished work: a name for each call, or for each map."""

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left; False after `timeout` seconds."""


class Unfinished:
    """See the module. Sources live as long as their threads do, and need not be taken off."""

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()

    def add(self, source: Source) -> None:
        """`source` has calls, or will have."""
        self._sources.add(source)

    def finish(self) -> None:
        """Wait until all are done; Ctrl-C ends that. They fail when their servers are lost, so this ends."""
        wait_for(self._sources, "calls that nobody waited for are finished first: %s", _TELL_S)

    def say_dropped(self) -> None:
        """The grid ends now: name what has not been done."""
        left = _left(self._sources)
        if left:
            logger.warning(
                "the grid ends, and %d calls that nobody waited for are dropped: %s. Wait for their futures, or "
                "shut the executor down before",
                len(left),
                _named(left),
            )


def wait_for(sources: Iterable[Source], word: str, first_s: float) -> None:
    """Wait until nothing is left; `word` says after `first_s` seconds, and now and then, what is waited for."""
    waited = list(sources)
    tell_at = time.monotonic() + first_s
    for source in waited:
        while not source.join(0.5):
            if time.monotonic() >= tell_at:
                tell_at = time.monotonic() + _TELL_S
                logger.warning(word, _named(_left(waited)))


def _left(sources: Iterable[Source]) -> list[str]:
    return [name for source in list(sources) for name in source.left()]


def _named(names: list[str]) -> str:
    shown = ", ".join(dict.fromkeys(names[:200]))
    return shown if len(shown) < 300 else shown[:300] + " ..."
