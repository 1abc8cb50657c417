"""Directories that nobody else can put anything into, or take away: the rule of sshd for `~/.ssh` (StrictModes).

A directory is as safe as all its parents: a user who may write in a parent can rename its contents, and put something
else in their place. So each parent, up to the root, belongs to us or to root, and nobody else may write in it, unless
it is sticky (like /tmp), where only owners can rename. A group without another member than us counts as us.

Symbolic links are resolved once; grid checks, and uses, the path without them.

Lives here: the rule. It needs nothing but `os`, because `kernel/boot.py` sends this text ahead of everything else.
Elsewhere:  which directories there are (`wire/places.py`), who may write a file that is found (`hosts/inventory.py`).
"""

from __future__ import annotations

import errno
import os
import stat


class Untrusted(OSError):
    """Somebody else could read, change or replace it; `strerror` says who, `filename` where."""

    def __init__(self, path: str, why: str) -> None:
        OSError.__init__(self, errno.EPERM, why, path)


def resolved(path: str) -> str:
    """The path without symbolic links, once nobody else can change what it leads to; it need not exist.

    Raises:
        Untrusted: Somebody else can.
        OSError: It can't be examined.
    """
    path = os.path.realpath(os.path.abspath(path))
    parent = path
    while True:
        try:
            info = os.lstat(parent)
        except FileNotFoundError:
            pass
        else:
            why = fault(info, sticky_will_do=True)
            if why:
                raise Untrusted(parent, why)
        if parent == os.path.dirname(parent):
            return path
        parent = os.path.dirname(parent)


def fault(info: os.stat_result, *, sticky_will_do: bool = False) -> str:
    """Who else could change a file or directory, in words; empty if nobody else can."""
    if info.st_uid not in (os.getuid(), 0) and not _is_root_seen_from_inside(info.st_uid):
        return f"it belongs to user {info.st_uid}, and we are {os.getuid()}"
    if sticky_will_do and stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX:
        return ""
    if info.st_mode & stat.S_IWOTH:
        return f"everybody may write there (mode {stat.S_IMODE(info.st_mode):o})"
    if info.st_mode & stat.S_IWGRP and not _is_ours_alone(info.st_gid):
        return f"group {info.st_gid} may write there (mode {stat.S_IMODE(info.st_mode):o})"
    return ""


def make_private(path: str) -> str:
    """Make a directory for us alone, with its parents, unless it exists already; returns its path without links.

    Raises:
        Untrusted: It exists, and others can read or change it, or a parent of it. Its mode is not changed: others may
            have put something into it, and the user may have opened it to them for a reason.
        OSError: It can't be made.
    """
    if os.path.islink(path):
        raise Untrusted(path, "it is a symbolic link")
    path = resolved(path)
    _make(path)
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise Untrusted(path, f"not a directory of ours (owner {info.st_uid}, we are {os.getuid()})")
    if info.st_mode & 0o077:
        raise Untrusted(path, f"others may read or change it (mode {stat.S_IMODE(info.st_mode):o})")
    return path


def is_private(path: str) -> bool:
    """Whether it is a directory of ours that nobody else may read or change."""
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077


def own_place(path: str, name: str) -> str:
    """The directory `path` if it is ours alone, or is made for us now; else our own directory `name` in it.

    So a directory of the user's with another purpose keeps its mode. Always the same, once it exists.
    """
    below = os.path.join(path, name)
    if is_private(below) or (os.path.isdir(path) and not is_private(path)):
        return make_private(below)
    return make_private(path)


def _make(path: str) -> None:
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        try:
            os.mkdir(each, 0o700)
        except FileExistsError:  # another process of ours, or somebody else, was first
            if not os.path.isdir(each) or os.path.islink(each):
                raise
            why = fault(os.lstat(each), sticky_will_do=True)
            if why:
                raise Untrusted(each, why) from None


def _is_root_seen_from_inside(uid: int) -> bool:
    """Whether it is the number under which a user namespace (rootless containers) shows root."""
    try:
        with open("/proc/self/uid_map") as lines:
            mapped = [tuple(map(int, line.split())) for line in lines]
        with open("/proc/sys/kernel/overflowuid") as line:
            overflow = int(line.read())
    except (OSError, ValueError):
        return False
    return uid == overflow and not any(inside <= 0 < inside + count for inside, _, count in mapped)


def _is_ours_alone(gid: int) -> bool:
    """Whether a group is the private one of ours: with our name, and without other members."""
    try:
        import grp
        import pwd

        name = pwd.getpwuid(os.getuid())
        group = grp.getgrgid(gid)
    except (ImportError, KeyError, OSError):
        return False
    return gid == name.pw_gid and group.gr_name == name.pw_name and set(group.gr_mem) <= {name.pw_name}
