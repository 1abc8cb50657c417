"""Room for open files: hundreds of servers need some thousand descriptors, and many systems begin with 1,024.

Lives here: the soft limit and how much of it is left.
Elsewhere:  what is said where there is no room (`agent`, `grids/grid.py`).
"""

from __future__ import annotations

import os

try:
    import resource
except ImportError:  # no such limits there
    resource = None  # type: ignore[assignment]

SPARE = 48
"""Descriptors that are kept for what must always work: logs, look-ups, the end of it all."""


def raise_limit() -> None:
    """The soft limit of this process becomes the hard one; a system that refuses that leaves it as it is."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass


def make_room(count: int) -> None:
    """Raise the limit if it may not do for `count` more descriptors: a user's own process is left alone otherwise."""
    if left() < count:
        raise_limit()


def left() -> int:
    """How many more descriptors this process may open, those that are kept in reserve not counted."""
    if resource is None:
        return 1 << 30
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 30
    for place in ("/proc/self/fd", "/dev/fd"):
        try:
            return soft - len(os.listdir(place)) - SPARE
        except OSError:
            continue
    return 1 << 30


def limit() -> str:
    """For messages: `ulimit -n is 1024`."""
    return "" if resource is None else f"ulimit -n is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
