"""How many items of a map, or tasks, go into the next pack: few, to share servers out, and many, to hide the way.

The first packs hold one item, to see how long one takes. Then a pack is made to take `TARGET_S`, grows at most fourfold
over what was seen to work, and near the end (where that is known) shrinks, so that no server starts a long pack while
the others run out of work (guided self-scheduling: Polychronopoulos and Kuck, IEEE Trans. Comput. C-36, 1987).

Lives here: the rule, pure: no clock, no thread.
Elsewhere:  who sends packs (`mapping`, `tasks/schedule.py`), what a server does with one (`kernel/serve.py`).
"""

from __future__ import annotations

import math

TARGET_S = 0.05
"""Time that a pack should take. Its way costs some 0.3 ms; a cancel, or a waiting caller, waits for one pack."""
LARGEST = 20_000
"""Items in one pack, at most."""
_GROWTH = 4
_SHORT_S = 0.1
_MEMORY = 0.5
"""Weight of the past in the mean duration of an item; the latest pack has the rest."""


class Packing:
    """See the module. `take` says how many items to send next, `took` tells it what came of a pack.

    Args:
        target_s: Time that a pack should take, in seconds.
        largest: Items of a pack, at most.
        fixed: Every pack holds this number of items, whatever time they take.
        item_s: How long an item took in an earlier map of the same function, with its share of the way; None: unknown.
        tried: Items of the largest pack that came back then.
    Raises:
        ValueError: One of them is not positive.
    """

    def __init__(
        self,
        target_s: float = TARGET_S,
        largest: int = LARGEST,
        *,
        fixed: int | None = None,
        item_s: float | None = None,
        tried: int = 1,
    ) -> None:
        if target_s <= 0 or largest < 1 or (fixed is not None and fixed < 1):
            raise ValueError(
                "a pack takes more than 0 s and holds 1 item or more, "
                f"not {target_s!r} s and {largest if fixed is None else fixed!r} items"
            )
        self._target_s, self._largest, self._fixed = target_s, largest, fixed
        self._item_s = item_s
        self._tried = tried  # the largest pack that came back

    @property
    def item_s(self) -> float | None:
        """About how long an item takes, with its share of the way there and back; None before the first is back."""
        return self._item_s

    @property
    def tried(self) -> int:
        """Items of the largest pack that came back."""
        return self._tried

    def take(self, servers: int = 1, left: int | None = None, speed: float = 1.0) -> int:
        """Items of the next pack, at least 1.

        Args:
            servers: How many servers share the work.
            left: Items that are not sent yet, if that is known.
            speed: Of the server that it is for, beside the others.
        """
        if self._fixed is not None:
            return self._fixed
        if self._item_s is None:
            return 1
        fitting = self._largest if self._item_s <= 0 else int(min(self._largest, speed * self._target_s / self._item_s))
        size = min(fitting, _GROWTH * self._tried, self._largest)
        if left is not None:
            size = min(size, math.ceil(left / (2 * max(1, servers))))
        return max(1, size)

    def took(self, items: int, run_s: float, whole_s: float) -> None:
        """A pack of `items` is back: it ran for `run_s` on the server and was away for `whole_s`, both in seconds.

        Where the way costs more than the work (large items) the way counts; half of it, as two packs are under way.
        """
        each = max(run_s, whole_s / 2) / max(1, items)
        # A pack of one is mostly way: times of larger packs are worth more.
        if self._item_s is None or items > self._tried:
            self._item_s = each
        else:
            self._item_s = _MEMORY * self._item_s + (1 - _MEMORY) * each
        self._tried = max(self._tried, items)

    def ahead(self, size: int) -> int:
        """Packs of `size` items that a server should have at once: two where they are short, so that it never waits."""
        return 2 if self._item_s is not None and size * self._item_s < _SHORT_S else 1
