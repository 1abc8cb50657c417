"""Files that servers and commands of this host wrote: which there are, and their contents piece by piece.

Names are relative to the directory in which those work, and nothing that leads out of it is told or read.

Lives here: `find`, `read`. Elsewhere: who asks (`grids/fetching.py`, `commands/onhost.py`), staged files (`unpack`).
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from grid.errors import DiskError
from grid.kernel.filestore import FileStore, digest

MOST = 20_000
"""Files that one pattern may match on a host."""
_SHOWN = 8


def find(base: str, patterns: Sequence[str], leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Files that match: name -> (size, time of change in ns, permission bits). A directory means all files below it.

    `refused`: name -> why it is none of them: it leads out of the directory, or is no plain file. `empty`: patterns
    that match nothing; then `present`: some names that are there, and `there`: how many.

    Args:
        leave_out: Files that no pattern means, unless it is the very name.
    Raises:
        DiskError: There are more than `MOST`.
    """
    inside = os.path.realpath(base)
    found: dict[str, tuple[int, int, int]] = {}
    refused: dict[str, str] = {}
    empty: list[str] = []
    for pattern in patterns:
        names = [name for name in _matches(inside, pattern) if name == pattern or name not in leave_out]
        if not names:
            empty.append(pattern)
        for name in names:
            about = _about(inside, name)
            if not isinstance(about, str):
                found[name] = about
            elif len(refused) < _SHOWN:
                refused[name] = about
            if len(found) > MOST:
                raise DiskError(
                    f"{pattern!r} matches more than {MOST} files", host=os.uname().nodename, hint="Fetch them in parts"
                )
    there = sorted(set(_below(inside, "", hidden=False)).difference(leave_out)) if empty else []
    return {"files": found, "refused": refused, "empty": empty, "present": there[:_SHOWN], "there": len(there)}


def _matches(base: str, pattern: str) -> list[str]:
    """The file of that name, whatever is in it, and those that it matches as a pattern."""
    names = [pattern] if os.path.lexists(os.path.join(base, pattern)) else []
    names += sorted(glob.glob(pattern, root_dir=base, recursive=True))
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


def _about(inside: str, name: str) -> tuple[int, int, int] | str:
    """Text: why it is no file to bring."""
    path = os.path.realpath(os.path.join(inside, name))
    if not path.startswith(inside + os.sep):
        return f"leads out of its directory, to {path}"
    try:
        status = os.stat(path)
    except OSError as exc:
        return f"can't be looked at ({exc.strerror or exc})"
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    return status.st_size, status.st_mtime_ns, stat.S_IMODE(status.st_mode)


def keep(store: FileStore, base: str, name: str, changed_ns: int) -> dict[str, Any] | None:
    """Copy a file into the store: `kept`, `changed_ns`, `sha256` there. None as of `read`."""
    inside = os.path.realpath(base)
    about = _about(inside, name)
    if isinstance(about, str) or about[1] != changed_ns:
        return None
    try:
        kept = store.put(os.path.join(inside, name), copied=True)
        path = store.path(kept)
        if _about(inside, name) != about or path.stat().st_size != about[0]:  # somebody wrote to it meanwhile
            store.drop([kept])
            return None
        return {"kept": kept, "changed_ns": path.stat().st_mtime_ns, "sha256": digest(path)}
    except OSError as exc:
        raise DiskError(
            f"{name!r} can't be copied ({exc.strerror or exc})", host=os.uname().nodename, hint="Make room there"
        ) from exc


def read(base: str, name: str, offset: int, size: int, changed_ns: int) -> bytes | None:
    """A piece of a file; None if it has changed since, or leads out of the directory now."""
    inside = os.path.realpath(base)
    about = _about(inside, name)
    if isinstance(about, str) or about[1] != changed_ns:
        return None
    try:
        with Path(inside, name).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as exc:
        raise DiskError(
            f"{name!r} can't be read ({exc.strerror or exc})", host=os.uname().nodename, hint="See its permissions"
        ) from exc
