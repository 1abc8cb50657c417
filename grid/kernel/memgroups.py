"""Memory groups of servers: the kernel keeps the limit, and kills a server that wants more.

One group for this agent, with one in it for each server that has a limit. They are removed with their servers; those
that a killed agent left go when the next agent of this user looks. Where none can be made, the agent's own looks at
memory (`memory`) are all there is; they go on in any case.

Lives here: `MemoryGroups`. Elsewhere: where groups may be made (`grid/slots/groups.py`), limits (`slots`), joining one
            (`born`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from grid.slots.groups import Place, find_place

_FILES = {
    1: {"limit": ("memory.limit_in_bytes",), "peak": "memory.max_usage_in_bytes", "kills": "memory.oom_control"},
    2: {"limit": ("memory.max",), "peak": "memory.peak", "kills": "memory.events"},
}


class GroupEnd(NamedTuple):
    """What the kernel says of a server's group."""

    peak: int  # bytes, 0 where it does not say
    kills: int  # processes that it killed there because of the limit


class MemoryGroups:
    """See the module. `root`: where /proc and /sys are."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._place: Place | None = None
        self._base: Path | None = None
        self._groups: dict[str, Path] = {}
        self.why = ""
        """Why there are no groups; "" while there are, or nobody has asked."""

    def make(self, name: str, limit: int) -> str:
        """The group of a server that starts; "": there is none."""
        if self.why:
            return ""
        try:
            base = self._base or self._begin()
            assert self._place is not None
            base.mkdir(exist_ok=True)
            if self._place.version == 2:
                (base / "cgroup.subtree_control").write_text("+memory")
            group = base / name.replace("/", ".")
            group.mkdir(exist_ok=True)
            self._groups[name] = group
            (group / str(_FILES[self._place.version]["limit"][0])).write_text(str(limit))
        except OSError as exc:
            self.remove(name)
            self.why = f"no memory cgroup can be made ({exc})"
            return ""
        for more, text in (
            ("memory.swap.max", "0"),
            ("memory.memsw.limit_in_bytes", str(limit)),
            ("memory.oom.group", "1"),
        ):
            if (group / more).exists():  # what it swaps out is memory, too; and none of its processes survives it
                with contextlib.suppress(OSError):
                    (group / more).write_text(text)
        return str(group)

    def _begin(self) -> Path:
        self._place, why = find_place(self._root)
        if self._place is None:
            raise OSError(why)
        ours = f"grid-{os.getuid()}-"
        for left in self._place.path.glob(f"{ours}*"):
            _remove(left)  # does nothing where somebody lives there
        self._base = self._place.path / f"{ours}{os.getpid()}"
        return self._base

    def end(self, name: str) -> GroupEnd | None:
        """What became of a server whose processes have ended; None: it had no group."""
        group = self._groups.get(name)
        if group is None or self._place is None:
            return None
        files = _FILES[self._place.version]
        kills = 0
        for line in _read(group / str(files["kills"])).splitlines():
            word, _, number = line.partition(" ")
            if word == "oom_kill" and number.isdecimal():
                kills = int(number)
        peak = _read(group / str(files["peak"])).strip()
        return GroupEnd(int(peak) if peak.isdecimal() else 0, kills)

    def remove(self, name: str) -> None:
        """A server has ended."""
        group = self._groups.pop(name, None)
        if group is not None:
            with contextlib.suppress(OSError):
                group.rmdir()  # else a process of it is just dying, and `remove_all` comes

    def remove_all(self) -> None:
        """The agent ends, and all servers have."""
        self._groups.clear()
        if self._base is not None:
            _remove(self._base)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _remove(base: Path) -> None:
    """A group with those in it, as far as nobody lives there."""
    with contextlib.suppress(OSError):
        for group in [each for each in base.iterdir() if each.is_dir()]:
            with contextlib.suppress(OSError):
                group.rmdir()
        base.rmdir()
