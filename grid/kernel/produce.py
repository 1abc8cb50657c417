"""Files that servers of this host wrote, for the client to fetch: which there are, and their contents piece by piece.

Names are relative to the directory in which servers work, and nothing that leads out of it is told or read.

Lives here: `find`, `read`. Elsewhere: who asks (`grids/fetching.py`), staged files (`unpack`).
"""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path
from typing import Any

from grid.errors import DiskError

MOST = 20_000
"""Files that one pattern may match on a host."""
_SHOWN = 8


def find(base: str, patterns: list[str]) -> dict[str, Any]:
    """Files that match: name -> (size, time of change in ns, permission bits). A directory means all files below it.

    `empty`: patterns that match nothing; `present`: some names that are there, then; `refused`: names that lead out of
    the directory, or are no plain files.
    """
    inside = os.path.realpath(base)
    found: dict[str, tuple[int, int, int]] = {}
    refused: list[str] = []
    empty: list[str] = []
    for pattern in patterns:
        names = list(_matches(inside, pattern))
        if not names:
            empty.append(pattern)
        for name in names:
            about = _about(inside, name)
            if about is None:
                refused.append(name)
            else:
                found[name] = about
            if len(found) > MOST:
                raise DiskError(
                    f"{pattern!r} matches more than {MOST} files", host=os.uname().nodename, hint="Fetch them in parts"
                )
    present = sorted(_below(inside, "", hidden=False))[:_SHOWN] if empty else []
    return {"files": found, "refused": refused[:_SHOWN], "empty": empty, "present": present}


def _matches(base: str, pattern: str) -> list[str]:
    if os.path.lexists(os.path.join(base, pattern)):  # a name, whatever is in it
        names = [pattern]
    else:
        names = sorted(glob.glob(pattern, root_dir=base, recursive=True))
    return list(dict.fromkeys(os.path.normpath(file) for name in names for file in _below(base, name)))


def _below(base: str, name: str, *, hidden: bool = True) -> list[str]:
    """The name, or the files below it where it is a directory (not a link to one)."""
    path = os.path.join(base, name)
    if os.path.islink(path) or not os.path.isdir(path):
        return [name]
    found = []
    for folder, folders, files in os.walk(path):
        if not hidden:
            folders[:] = [each for each in folders if each[0] not in "._"]
        found += [os.path.relpath(os.path.join(folder, file), base) for file in files if hidden or file[0] != "."]
        if len(found) > MOST:
            break
    return found


def _about(inside: str, name: str) -> tuple[int, int, int] | None:
    """None: it leads out of the directory, or is no plain file, or has just gone."""
    path = os.path.realpath(os.path.join(inside, name))
    if not path.startswith(inside + os.sep):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode)


def read(base: str, name: str, offset: int, size: int, changed_ns: int) -> bytes | None:
    """A piece of a file; None if it has changed since, or leads out of the directory now."""
    inside = os.path.realpath(base)
    about = _about(inside, name)
    if about is None or about[1] != changed_ns:
        return None
    try:
        with Path(inside, name).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as exc:
        raise DiskError(
            f"{name!r} can't be read ({exc.strerror or exc})", host=os.uname().nodename, hint="See its permissions"
        ) from exc
