"""Wrong tokens are slowed down, per address: each further try waits longer for its answer.

A valid token is never slowed down, also from an address that tries wrong ones: others may sit behind the same one.

Lives here: `Slowing`. Pure but for the clock, which is passed in.
Elsewhere:  who waits (`guard.py`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from grid.web.door import share_of
from grid.web.limits import WebLimits


class Slowing:
    """See the module."""

    def __init__(self, limits: WebLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._tries: OrderedDict[str, tuple[float, float]] = OrderedDict()  # share -> (count, when)

    def wrong(self, address: str) -> float:
        """A token of that address was wrong: seconds to wait before the answer."""
        limits, now, share = self._limits, self._clock(), share_of(address)
        count, when = self._tries.pop(share, (0.0, now))
        count = max(0.0, count - (now - when) * limits.wrong_per_s) + 1
        self._tries[share] = count, now
        while len(self._tries) > limits.wrong_addresses:
            self._tries.popitem(last=False)
        beyond = count - limits.wrong_free
        return 0.0 if beyond <= 0 else min(limits.wrong_wait_s, 0.05 * 2.0 ** min(beyond, 30.0))
