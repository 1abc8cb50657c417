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
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

STUCK_S = 0.1
"""A call-back that runs longer than this holds up no others."""
MOST = 64
"""Threads at most. When each of them has a call-back that stands still, the others wait for one of them."""
_IDLE_S = 1.0
"""A thread without work waits this long for more."""


class CallBacks:
    """See the module. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._due: deque[Callable[[], None]] = deque()
        self._runner: _Runner | None = None  # whose turn it is
        self._all: set[_Runner] = set()
        self._guarded = False
        self._closed = False

    def put(self, what: Callable[[], None]) -> None:
        """Have it run, after those before it."""
        with self._lock:
            self._due.append(what)
            if self._runner is None:
                self._start()
            elif self._runner.busy:
                self._have_guarded()
            else:
                self._lock.notify_all()

    def _have_guarded(self) -> None:
        """Under the lock: some are due behind one that runs."""
        if not self._guarded:
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
                if not self._due:
                    self._guarded = False
                    return
                stuck = runner is not None and runner is self._runner and runner.busy and runner.done == done
                if self._runner is None or (stuck and len(self._all) < MOST):
                    self._start()

    def next(self, runner: _Runner) -> Callable[[], None] | None:
        """What this runner does now; None: it ends."""
        with self._lock:
            if runner.busy:
                runner.busy = False
                runner.done += 1
            while self._runner is runner:
                if self._due:
                    # Under one lock with `put`: whatever is put behind it sees `busy`, or is seen here.
                    runner.busy = True
                    what = self._due.popleft()
                    if self._due:
                        self._have_guarded()
                    return what
                if self._closed or not self._lock.wait(_IDLE_S):
                    if self._due:
                        continue
                    self._runner = None
            self._all.discard(runner)
            return None

    def close(self, timeout: float) -> None:
        """No more will come: wait for those that are due, `timeout` seconds in all, but not for this thread itself."""
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        while time.monotonic() < deadline:
            with self._lock:
                runners = self._all - {threading.current_thread()}  # again: one that stood still has had successors
                if not runners and not self._due:
                    return
            for runner in runners:
                runner.join(max(0.0, deadline - time.monotonic()))
            if not runners:
                time.sleep(STUCK_S)  # what is due stands behind this thread, until the guard finds that


class _Runner(threading.Thread):
    """Runs call-backs while it is its turn."""

    def __init__(self, owner: CallBacks) -> None:
        super().__init__(name="grid-callbacks", daemon=True)
        self._owner = owner
        self.busy = False  # under the owner's lock
        self.done = 0  # how many call-backs ended

    def run(self) -> None:
        while (what := self._owner.next(self)) is not None:
            try:
                what()
            except BaseException:  # also `sys.exit()`, which ends a call-back and not the thread for the others
                logger.exception("a call-back failed")
