"""Processes that servers started and left: ended with their server, also where they made a session of their own.

A server's process group ends with it. A child that leads a session (`start_new_session=True`, as MPI launchers,
notebooks and daemons do) is in no group of ours. Linux gives such orphans to the nearest process that asked for them
(PR_SET_CHILD_SUBREAPER): here that is the zygote, and the agent should the zygote be killed. Whose they were is told by
the variable GRID_SERVER that they inherited; those without it are ended with the grid.

They get SIGTERM, and SIGKILL `GRACE_S` later: one of them may be the agent of a grid within a grid, which clears up.
Elsewhere than on Linux only groups are ended.

Lives here: asking for orphans, finding them, ending them.
Elsewhere:  when (`zygote`, `agent`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 2.0
_LOOK_S = 0.01
_AGAIN_S = 0.5
"""What a server left is looked for a second time after this: Linux may leave a child out of the list while a sibling
ends (proc(5), /proc/pid/task/tid/children), and with a server its whole process group does."""


def adopt() -> None:
    """Be the parent of all orphans below this process; where the system knows no such thing nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Orphans:
    """The adopted children of this process. One thread.

    Args:
        children: Lists them, those that have ended and were not reaped as well.
    """

    def __init__(self, children: Callable[[], list[int]] | None = None) -> None:
        self._children = children or _children
        self._doomed: dict[int, float] = {}  # when to kill
        self._again: list[tuple[float, set[bytes], Container[int]]] = []  # when to look for them a second time

    def end_of(self, names: Iterable[str], servers: Container[int]) -> None:
        """Begin to end what some servers left. `servers`: children of ours that are servers, and alive."""
        wanted = {f"GRID_SERVER={name}".encode() for name in names}
        self._end_those_of(wanted, servers)
        self._again.append((time.monotonic() + _AGAIN_S, wanted, servers))

    def _end_those_of(self, wanted: set[bytes], servers: Container[int]) -> None:
        for pid in self._children():
            if pid not in servers and pid not in self._doomed and wanted & _variables(pid):
                self._doom(pid)

    def tend(self) -> float | None:
        """Kill those whose time has ended; seconds until this is needed again, None if nothing is to be done."""
        now = time.monotonic()
        while self._again and now >= self._again[0][0]:
            self._end_those_of(*self._again.pop(0)[1:])
        for pid, at in list(self._doomed.items()):
            if not os.path.exists(f"/proc/{pid}"):
                del self._doomed[pid]
            elif now >= at:
                _signal(pid, signal.SIGKILL)
                self._doomed[pid] = now + GRACE_S
        until = [*self._doomed.values(), *(at for at, _, _ in self._again[:1])]
        return max(0.0, min(until) - now) if until else None

    def end_all(self) -> None:
        """End every child of this process and what they leave in turn; takes `GRACE_S` at most, and a moment."""
        for pid in self._children():
            if pid not in self._doomed:
                self._doom(pid)
        deadline = time.monotonic() + GRACE_S
        while reaped() or self._children():
            late = time.monotonic() > deadline
            for pid in self._children():
                if late:
                    _signal(pid, signal.SIGKILL)
                elif pid not in self._doomed:
                    self._doom(pid)
            if time.monotonic() > deadline + GRACE_S:
                return  # it is stuck in the system, and dies when that lets it go
            time.sleep(_LOOK_S)

    def _doom(self, pid: int) -> None:
        self._doomed[pid] = time.monotonic() + GRACE_S
        _signal(pid, signal.SIGTERM)


def reaped() -> bool:
    """Take note of one child that has ended; whether there was one."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _signal(pid: int, which: int) -> None:
    """To its group if it leads one, else to itself: never to a group that others are in."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, which)
        else:
            os.kill(pid, which)


def _children() -> list[int]:
    """Of this process, also those that have ended and were not reaped."""
    found: list[int] = []
    try:
        for task in os.listdir("/proc/self/task"):
            found += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
    except FileNotFoundError:
        found = list(_by_parent())
    except OSError:
        pass
    return found


def _by_parent() -> Iterator[int]:
    """The same where the kernel keeps no list of children."""
    us = os.getpid()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                    if int(fields[1]) == us:
                        yield int(name)


def _variables(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
