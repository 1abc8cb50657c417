"""Where the files of kept sessions lie: a directory for each name, with the log, and a lock that its client holds.

    ~/.local/state/grid/sessions/lab/log        0600, in directories of 0700
    ~/.local/state/grid/sessions/lab/.lock      held until its client ends, whatever it dies of

`$GRID_SESSIONS` names another directory; it must outlive a restart of the machine to be of use after one.

Lives here: names, the lock, which there are, lengths of time in words.
Elsewhere:  the log (`journal`).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grid.errors import SessionError
from grid.kernel import held
from grid.wire.places import private_dir

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?\Z")
_UNITS = (86_400.0, 3600.0, 60.0, 1.0)


def span_s(keep: str | float) -> float:
    """Seconds of a length of time: a number, or text such as "12h", "1d12h", "90m", "30s".

    Raises:
        ValueError: Another form, or nothing left of it.
    """
    seconds = 0.0
    if isinstance(keep, str):
        match = _SPAN.match(keep.strip())
        parts = match.groups() if match else ()
        seconds = sum(float(part or 0) * unit for part, unit in zip(parts, _UNITS, strict=False))
    elif isinstance(keep, (int, float)) and not isinstance(keep, bool):
        seconds = float(keep)
    if not 0 < seconds < 1e9:
        raise ValueError(f"keep must be a time such as '12h', '1d12h', '90m' or a number of seconds, not {keep!r}")
    return seconds


def check_name(name: str) -> str:
    """A name that a session may have. Raises ValueError."""
    if not _NAME.match(name):
        raise ValueError(
            f"a session's name has letters, digits, '.', '_' and '-' and begins with one of the first two, not {name!r}"
        )
    return name


def sessions_dir() -> Path:
    """Where the sessions of this user lie."""
    named = os.environ.get("GRID_SESSIONS")
    if named:
        return private_dir(Path(named).expanduser(), "Name another directory with GRID_SESSIONS")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return private_dir(Path(base, "grid", "sessions").expanduser(), "Name another directory with GRID_SESSIONS")


def names() -> list[str]:
    """Of all sessions of this user on this machine, also of those whose time has passed."""
    return sorted(path.name for path in sessions_dir().iterdir() if (path / "log").exists())


class SessionPlace:
    """The directory of one session. `log`: its file."""

    def __init__(self, name: str) -> None:
        self.name = check_name(name)
        self.path = sessions_dir() / name
        self.log = self.path / "log"
        self._lock: int | None = None

    def exists(self) -> bool:
        """Whether there is such a session."""
        return self.log.exists()

    def is_used(self) -> bool:
        """Whether its client lives."""
        return bool(held.is_held(self.path))

    def used_at(self) -> float:
        """When its client was last there; wall clock."""
        return time.time() if self.is_used() else self.log.stat().st_mtime

    def take(self) -> bool:
        """Be its client from now on; False: another process is."""
        private_dir(self.path)
        self._lock = _locked(self.path)
        return self._lock is not None

    def leave(self) -> None:
        """Another may be its client."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """It has ended: nothing of it stays here."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.leave()


def _locked(path: Path) -> int | None:
    fd = held.hold(path)
    if fd is None and not held.is_held(path):
        raise SessionError(
            f"the file system of {path} has no locks, so two clients could have one session",
            hint="Name a directory on a local disk with GRID_SESSIONS",
        )
    return fd


@contextmanager
def taken(place: SessionPlace) -> Iterator[bool]:
    """Be its client for a moment, if nobody is."""
    got = place.take()
    try:
        yield got
    finally:
        place.leave()
