"""Random generators that go to many servers as they are: the user is told once, because nothing else shows it.

Lives here: the line. Elsewhere: which objects are generators, and what is done about them (`wire/randoms.py`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from grid.causes import listed

logger = logging.getLogger(__name__)

_told: set[str] = set()  # names of the script
_lock = threading.Lock()


def warn(service_id: str | None, names: Iterable[str], *, instance: bool) -> None:
    """Tell that all servers draw the same numbers; of a name of the script once only. `service_id`: None for a call."""
    with _lock:
        fresh = sorted(set(names) - _told)
        _told.update(fresh)
    what = ["the instance"] if instance else []
    if fresh:
        what.append(f"{listed(fresh)} of the script")
    if not what:
        return
    where = f"service {service_id!r}: " if service_id else ""
    word = "publish(..., reseed=True)" if service_id else "reseed=True of the grid"
    logger.warning(
        "%sall servers draw the same random numbers: %s %s a generator that comes to each of them with one state. "
        "%s gives each its own numbers, reseed=False leaves them alike without this line",
        *(where, " and ".join(what), "hold" if len(what) + len(fresh) > 2 or len(fresh) > 1 else "holds", word),
    )
