"""What this machine has for us: cores with their NUMA nodes, memory, devices.

Counts come from affinity, cgroups of both versions and the batch job's share; the least of them holds. Nothing in here
raises or hangs: what can't be read is not there, and a note says so if that matters.

Lives here: `find`, cores and memory.
Elsewhere:  quotas (`cores`), GPUs (`devices`), what a host's entry says instead (`resources.Said`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from grid.slots.cores import in_force, share_of_cores, usable_cores
from grid.slots.devices import ask_smi, find_devices, our_share
from grid.slots.resources import ANYWHERE, Resources, numbers_of


def find(
    root: Path = Path("/"), environ: Mapping[str, str] | None = None, smi: Callable[[], str] = ask_smi, slots: int = 1
) -> Resources:
    """What we have here.

    Args:
        root: Where /proc and /sys are.
        environ: Where a batch system says what is ours; default: that of this process.
        slots: Servers that are ours on this host, where a batch system counts by them.
    """
    environ = os.environ if environ is None else environ
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    nodes = _nodes(root)
    count, notes = min(len(affinity), usable_cores(root)), list[str]()
    share = share_of_cores(environ, slots)
    if share is not None and share < count:
        notes.append(f"the batch job has {share} of {count} cores, and nobody says which: servers are not bound to any")
        count = share
    elif count < len(affinity):
        notes.append(
            f"a quota allows {count} of {len(affinity)} cores, and not certain ones: servers are not bound to any"
        )
    cores = tuple((number, nodes.get(number, ANYWHERE)) for number in affinity[:count])
    devices = our_share(find_devices(root, smi), environ, lambda path: Path(path).read_text())
    return Resources(cores, _memory(root), devices, pinned=count == len(affinity), notes=tuple(notes))


def _nodes(root: Path) -> dict[int, int]:
    """Core -> its NUMA node."""
    found = {}
    try:
        places = list((root / "sys/devices/system/node").iterdir())
    except OSError:
        return {}
    for place in places:
        name = place.name.removeprefix("node")
        if name.isdecimal() and name != place.name:
            try:
                found.update(dict.fromkeys(numbers_of((place / "cpulist").read_text()), int(name)))
            except (OSError, ValueError):
                continue
    return found


def _memory(root: Path) -> int | None:
    """Bytes: of the machine, or as few as our cgroup and those above may have."""
    limits = []
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                limits.append(int(line.split()[1]) << 10)
    except (OSError, ValueError, IndexError):
        pass
    said = in_force(root, "memory", ("memory.max",), ("memory.limit_in_bytes",))
    # version 1 says a huge number for none
    limits += [int(text) for text in said if text.isdecimal() and int(text) < 1 << 60]
    return min(limits, default=None)
