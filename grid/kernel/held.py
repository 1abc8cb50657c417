"""Locks that say "somebody lives here": one in each directory of a running grid, held until its process ends.

The kernel drops a lock with the process that holds it, whatever it died of, and shows it to whoever can see the file:
in another pid namespace (containers that share /tmp), and from under another runtime directory, where process ids and
command lines say nothing or something wrong.

Lives here: holding, and looking whether somebody holds; which machine and pid namespace a process id belongs to.
Elsewhere:  who holds (`agent`, `grids/watch.py`, `launch/masters.py`), what follows (`remains`, `lease`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

NAME = ".lock"
"""The file that is locked, in each directory."""


def hold(path: Path) -> int | None:
    """Lock a directory (by a file in it) or a file, until the descriptor is closed or this process ends.

    A directory must exist already: a missing path is made, as a file.

    Returns None where the file system has no locks: the file exists all the same, and says that nobody can tell.
    """
    try:
        fd = os.open(_file_of(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(fd)
            return None
        return _insist(fd)
    return fd


def _insist(fd: int) -> int | None:
    """Somebody looks at the lock just now (`is_held`), for a moment; nobody else has a reason to hold it."""
    for _ in range(100):
        time.sleep(0.01)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError:
            pass
    os.close(fd)
    return None


def is_held(path: Path) -> bool | None:
    """Whether a process holds it, or nobody can know; None if nobody ever did: there is no lock."""
    try:
        fd = os.open(_file_of(path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return True  # not ours to look at
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _file_of(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def namespace() -> str:
    """Where process ids of this process mean something: this boot of this machine, this pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
