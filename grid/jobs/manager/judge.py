"""Conditions on results and messages are tested in a thread of their own, never under the manager's lock.

    something happens (lock held) --> Judge: queue of each atom --> thread: atom.verdict(event), no lock --> lock: the
    atom changes

Each atom has its own queue, and they take turns: one whose tests are long waits for itself. What a test may cost is
limited by its expression's budget (`conditions/work.py`), and how many events wait for one atom by
`Settings.events_waiting`: of more the atom is cancelled, and says so.

Lives here: `Judge`.
Elsewhere:  what atoms say to events (`conditions/atoms.py`), who hands them over (`waiting.py`).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from typing import Any

from grid.jobs.conditions.algebra import C, F, Value
from grid.jobs.conditions.atoms import JobAtom, JobView
from grid.jobs.conditions.work import Work
from grid.jobs.host.errors import ExpressionError
from grid.jobs.host.messages import Message

logger = logging.getLogger(__name__)


class Judge:
    """See the module. `lock` is the manager's; atoms change under it."""

    def __init__(self, lock: Any, most: int) -> None:
        self._lock, self._most = lock, most
        self._news = threading.Condition()  # taken inside the manager's lock, never the other way round
        self._waiting: OrderedDict[str, tuple[JobAtom, deque[JobView | Message]]] = OrderedDict()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to test what waits."""
        self._thread = threading.Thread(target=self._run, name="jobs-judge", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; events that were not tested are tested again after a restart."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(10.0)

    def add(self, atom: JobAtom, event: JobView | Message) -> None:
        """The atom has seen this of its job. Never waits; under the manager's lock."""
        with self._news:
            _, events = self._waiting.setdefault(atom.id, (atom, deque()))
            if len(events) < self._most:
                events.append(event)
                self._news.notify()
                return
            del self._waiting[atom.id]
        atom.cancel(f"{atom}: more than {self._most} messages waited to be tested")

    def forget(self, atom: JobAtom) -> None:
        """Nobody waits for it any more."""
        with self._news:
            self._waiting.pop(atom.id, None)

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._stopping:
                    self._news.wait()
                if self._stopping:
                    return
            self.turn()

    def turn(self) -> bool:
        """Test one event of the atom whose turn it is; False: nothing waits."""
        with self._news:
            if not self._waiting:
                return False
            key, (atom, events) = next(iter(self._waiting.items()))
            event = events.popleft()
            if events:
                self._waiting.move_to_end(key)
            else:
                del self._waiting[key]
        found = verdict(atom, event)
        if found is not None:
            with self._lock:
                if atom._state is F:
                    atom.decide(*found)
        return True


def verdict(atom: JobAtom, event: JobView | Message, work: Work | None = None) -> tuple[Value, str] | None:
    """The verdict of the event on the atom; an error in its test cancels it, with the reason."""
    if atom._state is not F:
        return None
    try:
        return atom.verdict(event, work)
    except ExpressionError as exc:
        return C, f"{atom}: {exc.what}"
    except Exception as exc:
        logger.exception("the test of %s failed", atom)
        return C, f"{atom}: its test failed ({type(exc).__name__}: {str(exc)[:200]})"
