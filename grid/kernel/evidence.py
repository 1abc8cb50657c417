"""The evidence that a host has about the death of a process.

Lives here: the kernel's count of processes that it killed for lack of memory.
Elsewhere:  who asks, and what is made of it (`agent`, `grids/grid.py`).
"""

from __future__ import annotations


def oom_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory since it booted, in cgroups or at large.

    Linux counts them in /proc/vmstat, `oom_kill` (since 4.13); None where that is not to be had.
    """
    try:
        with open("/proc/vmstat") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None
