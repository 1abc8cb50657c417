"""A log file that does not grow without bound: when it is full it becomes `NAME.1`, in place of an older one.

Lives here: `append` for logs with one writer, `empty` for one that several processes hold open.
Elsewhere:  what goes into them (`kernel/child.py`, `kernel/agent.py`, `grids/output.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

FULL = 64 << 20
"""Bytes of a log until it is turned; with `NAME.1` twice as much of each server is kept."""
AGENT_FULL = 8 << 20
"""The same for what an agent and its zygote say of themselves."""


def append(path: Path, data: bytes, full: int = FULL) -> None:
    """Append to a log; turned before, if it is full. A full disk, or a directory that is not there, is no error."""
    try:
        with open(path, "ab") as file:
            if file.tell() + len(data) > full:
                older = turned(path)
                os.replace(path, older)
                with open(path, "wb") as fresh:
                    fresh.write(b"[grid: what came before is in %s, and older than that is dropped]\n" % _name(older))
                    fresh.write(data)
                return
            file.write(data)
    except OSError:
        pass


def empty(log: int, path: Path, full: int = AGENT_FULL) -> None:
    """Turn a log that processes write to through the descriptor `log` or copies of it, if it is full.

    They go on writing to the same file, so its end is copied to `NAME.1` and the file is emptied. What is written
    between these two steps is lost. They must append (O_APPEND), or they would leave a hole. Errors as of `append`.
    """
    try:
        size = os.fstat(log).st_size
        if size <= full:
            return
        older = turned(path)
        with open(path, "rb") as file:
            file.seek(max(0, size - full))
            older.write_bytes(file.read(full))
        os.ftruncate(log, 0)
        os.write(log, b"[grid: what came before is in %s, and older than that is dropped]\n" % _name(older))
    except OSError:
        pass


def turned(path: Path) -> Path:
    """Where what was in a full log is."""
    return path.with_name(path.name + ".1")


def remove(path: Path) -> None:
    """Remove a log, and what was turned."""
    for each in (path, turned(path)):
        each.unlink(missing_ok=True)


def _name(path: Path) -> bytes:
    return os.fsencode(path.name)
