"""How much memory a server has taken, and when to look again: a server that takes more than it may is ended.

A cgroup does it in the kernel (`memgroups`), but one that a user may make below his own session is rare: systemd
delegates none to sessions of ssh, and batch systems none to their jobs. RLIMIT_AS and RLIMIT_DATA count what was
reserved, and GPU libraries reserve a hundred times what they use. So the agent looks: at anonymous memory (what a
server has in common with others on the host, libraries and published instances, is not its own), of the server and all
that it started.

Lives here: looking, and how often. Elsewhere: who has which limit (`slots`), the end (`children`).
"""

from __future__ import annotations

_GROWS = 2 << 30
"""Bytes by which a process may grow in a second: touching new pages takes a core about that long."""
_OFTEN_S, _SELDOM_S = 0.05, 0.5
_PROCESSES = 1000


def taken(pid: int) -> int:
    """Bytes of anonymous memory that a process and its descendants have; 0 if it has ended."""
    total, todo = 0, [pid]
    for _ in range(_PROCESSES):
        if not todo:
            break
        each = todo.pop()
        total += _anonymous(each)
        todo += _children(each)
    return total


def look_again_s(used: int, limit: int) -> float:
    """Seconds after which to look again: sooner, the less is left."""
    return min(_SELDOM_S, max(_OFTEN_S, (limit - used) / _GROWS))


def _anonymous(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        return []
