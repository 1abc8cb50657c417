"""Does units of work: one instance on each server of the grid, with the functions that it was sent.

Lives here: `UnitWorker`.
Elsewhere:  who gets which unit (`grid/jobs/rules/scheduler.py`), `handler.map` (`runner.py`).
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from grid.kernel.stop import heed

KEPT = 64
"""Functions that a worker keeps."""


def add_paths(paths: Sequence[str]) -> None:
    """The last place in which this process looks for modules."""
    sys.path.extend(path for path in paths if path not in sys.path)


class UnitStopped(BaseException):
    """Raised inside a unit whose job has ended. Not an Exception: a unit should not go on after it."""


class UnitWorker:
    """Functions by key, loaded once; a call does one item. `paths`: looked for modules on hosts that see them, too."""

    _ticket: int | None = None

    def __init__(self, paths: Sequence[str] = ()) -> None:
        self._paths = list(paths)
        self._tasks: OrderedDict[str, Callable[[Any], Any]] = OrderedDict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        add_paths(self._paths)

    def load(self, key: str, task: Callable[[Any], Any]) -> None:
        """Keep a function; the one not used for longest goes when there are too many."""
        self._tasks[key] = task
        while len(self._tasks) > KEPT:
            self._tasks.popitem(last=False)

    def register(self) -> tuple[str, int]:
        """Be ready for a request to stop; name of the machine, and process id."""
        return heed(lambda: self._ticket, lambda: UnitStopped("the job that this unit belongs to has ended"))

    def do(self, key: str, item: Any, ticket: int = 0) -> tuple[bool, Any]:
        """(True, what the function made of the item); (False, None) if the function is not here any more.

        An order that names the ticket ends it early.
        """
        task = self._tasks.get(key)
        if task is None:
            return False, None
        self._tasks.move_to_end(key)
        self._ticket = ticket
        try:
            return True, task(item)
        finally:
            self._ticket = None
