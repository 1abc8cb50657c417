"""Where the kernel lets us make memory groups (cgroups) below our own, so that it keeps limits itself.

Version 2: a group that is ours, or one above it that is ours too, and that has handed the controller `memory` down.
Version 1: our own group of that controller, if we may write there. Groups of systemd's tree belong to systemd unless
they were given to our user, so root makes none there.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst (Delegation, No Internal Process Constraint) and
cgroup-v1/memory.rst; systemd, docs/CGROUP_DELEGATION.md.

Lives here: `find_place`: looking. Elsewhere: making and removing groups (`kernel/memgroups.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """A group in which we may make others; `version` of cgroups."""

    path: Path
    version: int


def find_place(root: Path) -> tuple[Place | None, str]:
    """Where memory groups can be made, and in words why nowhere; never raises. `root`: where /proc and /sys are."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None, "this system has no cgroups"
    for line in sorted(lines):  # version 2 is line 0
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        parts = [part for part in own.split("/") if part and part != ".."]
        if not controllers:
            for top in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
                for place in _upwards(top, parts):
                    if "memory" in _words(place / "cgroup.subtree_control") and _is_ours(place):
                        return Place(place, 2), ""
        elif "memory" in controllers.split(","):
            place = root.joinpath("sys/fs/cgroup", controllers, *parts)
            if (place / "memory.limit_in_bytes").exists() and _is_ours(place):
                return Place(place, 1), ""
    return None, "no memory cgroup is delegated to us"


def _upwards(top: Path, parts: list[str]) -> Iterator[Path]:
    """Our own group, and those above it as long as they are ours."""
    for end in range(len(parts), -1, -1):
        place = top.joinpath(*parts[:end])
        if not _is_ours(place):
            return
        yield place


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _is_ours(place: Path) -> bool:
    """Whether we may make groups there, and move our processes into them."""
    try:
        owner = place.stat().st_uid
    except OSError:
        return False
    if owner != os.getuid() or (owner == 0 and place.name.endswith((".slice", ".scope", ".service"))):
        return False
    return os.access(place, os.W_OK) and os.access(place / "cgroup.procs", os.W_OK)
