"""Call-backs of the user's: in a thread of their own, so that they may wait, publish, acquire and terminate.

The grid's thread takes in news and tells of losses; a call-back that waited there for a result would wait for itself.
The thread is made with the first call-back. They run one after another, in the order in which their results came. One
that stands still for `STUCK_S` while others are due loses its turn: another thread goes on with those. A thread without
work ends.

Lives here: `CallBacks`. Elsewhere: what a result is (`services/result.py`), the grid's own thread (`link`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

logger = logging.getLogger(__name__)

STUCK_S = 0.1
"""A call-back that runs longer than this holds up no others."""
MOST = 64
"""Threads at most; with so many call-backs that stand still the others wait for one of them."""
_IDLE_S = 1.0
"""A thread without work waits this long for more."""


class CallBacks:
    """See the module. Thread-safe."""

    def __init__(self) -> None:
        self._due: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._runner: _Runner | None = None  # whose turn it is
        self._all: set[_Runner] = set()
        self._guarded = False

    def put(self, what: Callable[[], None]) -> None:
        """Have it run, after those before it."""
        self._due.put(what)
        runner = self._runner
        if runner is not None and (not runner.busy or self._guarded):
            return
        with self._lock:
            if self._runner is None:
                self._start()
            elif not self._guarded:
                self._guarded = True
                threading.Thread(target=self._guard, name="grid-callbacks-guard", daemon=True).start()

    def _start(self) -> None:
        runner = self._runner = _Runner(self)
        self._all.add(runner)
        runner.start()

    def _guard(self) -> None:
        """Thread, while others are due behind a call-back: one that stands still loses its turn."""
        while True:
            runner = self._runner
            done = None if runner is None else runner.done
            time.sleep(STUCK_S)
            with self._lock:
                if self._due.empty():
                    self._guarded = False
                    return
                stuck = runner is not None and runner is self._runner and runner.busy and runner.done == done
                if self._runner is None or (stuck and len(self._all) < MOST):
                    self._start()

    def next(self, runner: _Runner) -> Callable[[], None] | None:
        """What this runner does now; None: it ends."""
        while self._runner is runner:
            try:
                what = self._due.get(timeout=_IDLE_S)
            except Empty:
                what = None
            if what is not None:
                return what
            with self._lock:
                self._runner = None  # before we look, so that whoever puts one now either is seen or sees that
                if self._due.empty():
                    break
                self._runner = runner
        return None

    def ended(self, runner: _Runner) -> None:
        """A runner is through."""
        with self._lock:
            self._all.discard(runner)

    def close(self, timeout: float) -> None:
        """No more will come: wait for those that are due, for so many seconds in all, but not for ourselves."""
        self._due.put(None)
        deadline = time.monotonic() + timeout
        with self._lock:
            runners = list(self._all)
        for runner in runners:
            if runner is not threading.current_thread():
                runner.join(max(0.0, deadline - time.monotonic()))


class _Runner(threading.Thread):
    """Runs call-backs while it is its turn."""

    def __init__(self, owner: CallBacks) -> None:
        super().__init__(name="grid-callbacks", daemon=True)
        self._owner = owner
        self.busy = False
        self.done = 0  # so many call-backs

    def run(self) -> None:
        while (what := self._owner.next(self)) is not None:
            self.busy = True
            try:
                what()
            except Exception:
                logger.exception("a call-back failed")
            self.busy = False
            self.done += 1
        self._owner.ended(self)
