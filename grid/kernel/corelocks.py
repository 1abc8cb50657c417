"""Cores on which servers of any grid run alone: one file, and a lock on one byte of it for each such core.

Every grid would begin with core 0, and servers of two grids would share it while others have nothing to do. So grids
let each other know which cores they have given out. It is no more than a word: if no others are left, cores are shared.

The locks are those of open files (fcntl(2), F_OFD_SETLK): like those of devices they end with the process that has the
file open. A place that can't be trusted, or a system without them, means that nobody knows of anybody.

Lives here: `CoreLocks`.
Elsewhere:  devices, which nobody shares (`devices`), the choice (`reservations`).
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from grid.kernel.devices import fault_of_place, open_shared

_TRIES = 5
_LOCK = "hhqqi4x"
"""struct flock of Linux: type, whence, start, length, pid (0 for these locks)."""


class CoreLocks:
    """See the module. `place`: the directory of lock files."""

    def __init__(self, place: Path) -> None:
        self._place, self._path = place, place / "grid-cores"

    def others(self, cores: Iterable[int]) -> set[int]:
        """Those of the cores that somebody has given out, we among them."""
        fd = self._open()
        if fd is None:
            return set()
        try:
            return {core for core in cores if _is_locked(fd, core)}
        finally:
            os.close(fd)

    def take(self, cores: Iterable[int]) -> int | None:
        """Say that these are given out: a descriptor that says so as long as it is open. None: it can't be said."""
        wanted = list(cores)
        for _ in range(_TRIES):
            fd = self._open()
            if fd is None:
                return None
            for core in wanted:
                _lock(fd, core, 1)  # or somebody has it, and it is shared
            try:
                if os.path.samestat(os.lstat(self._path), os.fstat(fd)):
                    return fd
            except OSError:
                pass  # it was removed meanwhile
            os.close(fd)
        return None

    def tidy(self) -> None:
        """Remove the file, if it is ours and nobody has a lock there."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            info = os.fstat(fd)
            if info.st_uid == os.getuid() and _lock(fd, 0, 0) and os.path.samestat(os.lstat(self._path), info):
                os.unlink(self._path)
        except OSError:
            pass
        finally:
            os.close(fd)

    def _open(self) -> int | None:
        try:
            if not hasattr(fcntl, "F_OFD_SETLK") or fault_of_place(self._place):
                return None
            fd = open_shared(self._path)
        except OSError:
            return None
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_nlink <= 1:
            return fd
        os.close(fd)
        return None


def _lock(fd: int, start: int, length: int) -> bool:
    """Lock these bytes, all from `start` on with length 0; false: somebody has one of them."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    except OSError:
        return False
    return True


def _is_locked(fd: int, core: int) -> bool:
    asked = struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, core, 1, 0)
    try:
        found, *_ = struct.unpack(_LOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError:
        return False
    return bool(found != fcntl.F_UNLCK)
