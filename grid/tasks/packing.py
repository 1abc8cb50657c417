"""How many short tasks travel in one call: as many as take about `pack_s`, learnt from what came back.

The first packs hold one task, to see how long one takes; then they grow at most fourfold over what was seen to work,
and shrink where the end is in sight, so that no worker has a long pack while others run out of work (guided
self-scheduling: Polychronopoulos and Kuck, IEEE Trans. Comput. C-36, 1987).

Lives here: the rule, pure. Elsewhere: who sends packs (`scheduler`).
"""

from __future__ import annotations

import math

SHORT_S = 0.1
"""A worker has a second pack waiting where the first is shorter than this, so that it need not wait for us."""
_GROWTH = 4


class Packing:
    """One for each system. `take` says how many tasks to send next, `took` tells it what came of a pack."""

    def __init__(self, target_s: float, largest: int) -> None:
        self._target_s, self._largest = target_s, largest
        self.task_s: float | None = None
        """About how long a task takes, in seconds; None before the first is back."""
        self._tried = 1

    def take(self, speed: float = 1.0, left: int | None = None, workers: int = 1) -> int:
        """Tasks of the next pack, at least 1.

        Args:
            speed: Of the slave that it is for, beside the others.
            left: Tasks that are not sent yet, if that is known. workers: How many share them.
        """
        if self.task_s is None:
            return 1
        fitting = self._largest if self.task_s <= 0 else min(self._largest, int(speed * self._target_s / self.task_s))
        size = min(fitting, _GROWTH * self._tried)
        if left is not None:
            size = min(size, math.ceil(left / (2 * max(1, workers))))
        return max(1, size)

    def took(self, tasks: int, seconds: float) -> None:
        """A pack of `tasks` ran for `seconds` on its worker."""
        each = seconds / tasks
        if self.task_s is None or tasks > self._tried:
            self.task_s = each  # a pack of one is mostly way: what larger packs tell is worth more
        else:
            self.task_s += 0.3 * (each - self.task_s)
        self._tried = max(self._tried, tasks)

    @property
    def ahead(self) -> int:
        """Packs that a worker should have at once."""
        if self.task_s is None:
            return 1
        return 2 if self.task_s * self.take() < SHORT_S else 1
