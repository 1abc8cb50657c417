"""Slots on a host for servers that are about to start there.

Lives here: `reserve`: the question, and waiting for slots that others have.
Elsewhere:  the answer (`kernel/reservations.py`), which hosts are asked (`publishing.py`), who moves (`mover.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.slots.needs import Needs

logger = logging.getLogger(__name__)

_ASK_AGAIN_S, _SOON_S = 0.5, 0.02
_ENDS = 3
"""Times `stop_s`: by then a server that was told to end has been killed."""


class Reserved(NamedTuple):
    """What a host answers."""

    granted: dict[str, str]  # name -> its slot in words
    why: str  # others have none
    later: bool  # they may have one: somebody else has what they need


def reserve(home: Home, names: Sequence[str], needs: Needs, waits_s: float, fleet: Fleet) -> Reserved:
    """Slots for as many of these servers as the host has room for.

    Args:
        waits_s: Seconds to wait for the first slot while others have what is needed.
    Raises:
        GridError: The host can't be asked.
    """
    begun, told = time.monotonic(), ""
    granted: dict[str, str] = {}
    home.ask("resources")
    while True:
        answer = home.ask("reserve", [name for name in names if name not in granted], needs.plain())
        granted.update(answer["granted"])
        why, spent = answer["why"], time.monotonic() - begun
        # what is just ending is ours, and ends soon; what others have is waited for only until there is one slot
        if answer["soon"] and spent < _ENDS * fleet.limits.stop_s:
            pause = _SOON_S
        elif not granted and answer["later"] and spent < waits_s:
            pause = _ASK_AGAIN_S
            if why != told:
                logger.warning("host %s: waiting for room: %s", home.host.label, why)
                told = why
        else:
            return Reserved(granted, why, answer["later"])
        if fleet.halted:
            return Reserved(granted, why, answer["later"])
        time.sleep(pause)
