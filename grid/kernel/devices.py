"""Devices that grids lease from each other: one lock file for each, which all users of a host see.

The lock is one of flock(2) on an open file that the server's process holds. The kernel drops it when the last process
that has the file open has ended, however it ended, so nothing has to be cleaned up, and nobody has to be asked. Who has
it stands in the file, for those who find it locked; only while it is locked does that mean anything.

All users may write the file (mode 666), because whoever comes next has to lock it and to put his name there. What is in
it is no more than words to show. A user who locks or removes files of others can spoil their leases, as a user who
simply uses a device can; so the directory must be one where only owners remove files (sticky, of root), the file no
link and no pipe, and what is wrong with it is told with the name of its owner.

Lives here: `Leases` of one agent.
Elsewhere:  who gets which device (`slots`), the process that holds the file (`born`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from grid.slots.resources import Device

_SHOWN = 300
_TRIES = 5


class Leases:
    """See the module.

    Args:
        place: The directory of lock files.
        who: Words for other users: who this is.
    """

    def __init__(self, place: Path, who: str) -> None:
        self._place, self._who = place, who

    def take(self, device: Device) -> int | str:
        """Take a device: a descriptor that holds it as long as it is open; or why it is not to be had."""
        path = self._path(device)
        try:
            fault = fault_of_place(self._place)
            if fault:
                return f"can't be locked: {self._place} {fault}"
            for _ in range(_TRIES):
                fd = open_shared(path)
                try:
                    taken = self._lock(fd, path)
                except BaseException:
                    os.close(fd)
                    raise
                if taken is True:
                    return fd
                os.close(fd)
                if isinstance(taken, str):
                    return taken
            return f"can't be locked: {path} is replaced all the time"
        except OSError as exc:
            return f"can't be locked: {path} {_trouble(path, exc)}"

    def _lock(self, fd: int, path: Path) -> bool | str:
        """Whether the file is locked by us now; false: it was removed meanwhile, and another may be there."""
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
            return f"can't be locked: {path} is no plain file of its own (it belongs to {user_name(info.st_uid)})"
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"is used by {_words(fd) or 'somebody who does not say his name'}"
        try:
            if not os.path.samestat(os.lstat(path), info):
                return False
        except FileNotFoundError:
            return False
        from grid.kernel.born import say_who  # the probe has no such module, and takes nothing

        say_who(fd, self._who)
        return True

    def tidy(self, devices: Iterable[Device]) -> None:
        """Remove the files of devices that nobody holds, as far as they are ours."""
        for device in devices:
            path = self._path(device)
            try:
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                info = os.fstat(fd)
                if info.st_uid == os.getuid() and os.path.samestat(os.lstat(path), info):
                    os.unlink(path)  # under the lock: whoever opened it meanwhile sees that, and makes another
            except OSError:
                pass  # the next one has it
            finally:
                os.close(fd)

    def _path(self, device: Device) -> Path:
        return self._place / f"grid-device-{device.kind}-{re.sub(r'[^A-Za-z0-9._-]', '_', device.id)}"


def holder(place: Path, device: Device) -> str:
    """Who holds a device, in words; "" if nobody does, or nobody can tell. Takes nothing."""
    path = Leases(place, "")._path(device)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _words(fd) or "somebody who does not say his name"
    except OSError:
        pass
    finally:
        os.close(fd)
    return ""


def open_shared(path: Path) -> int:
    """A file for the locks of all users, made if need be; follows no link, waits for no pipe. Raises OSError."""
    how = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, how)  # not with O_CREAT: Linux refuses that for a file of others (fs.protected_regular)
    except FileNotFoundError:
        pass
    try:
        fd = os.open(path, how | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, how)  # another one made it just now
    os.fchmod(fd, 0o666)  # whatever our umask says
    return fd


def fault_of_place(place: Path) -> str:
    """What makes a directory unfit for locks of several users; "" for nothing."""
    info = os.lstat(place)
    if stat.S_ISLNK(info.st_mode):
        return f"is a link (it belongs to {user_name(info.st_uid)})"
    if info.st_uid not in (0, os.getuid()):
        return f"belongs to {user_name(info.st_uid)}, who could remove the locks of others"
    if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        return "is not sticky, so that everybody could remove the locks of others"
    return ""


def _trouble(path: Path, exc: OSError) -> str:
    try:
        owner = f" (it belongs to {user_name(os.lstat(path).st_uid)})"
    except OSError:
        owner = ""
    if exc.errno == errno.ELOOP:
        return f"is a link{owner}"
    return f"can't be opened: {exc.strerror}{owner}"


def _words(fd: int) -> str:
    try:
        text = os.pread(fd, _SHOWN, 0).decode(errors="replace")
    except OSError:
        return ""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def user_name(uid: int) -> str:
    """The name of an account, as far as this host knows it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
