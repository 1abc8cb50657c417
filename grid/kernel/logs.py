"""A log file that does not grow without bound: when it is full it becomes `NAME.1`, in place of an older one.

Lives here: `Log`, `append`. Elsewhere: what goes into it (`kernel/agent.py`, `grids/output.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

FULL = 64 << 20
"""Bytes of a log until it is turned; with `NAME.1` twice as much of each server is kept."""


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


def turned(path: Path) -> Path:
    """Where what was in a full log is."""
    return path.with_name(path.name + ".1")


def remove(path: Path) -> None:
    """Remove a log, and what was turned."""
    for each in (path, turned(path)):
        each.unlink(missing_ok=True)


def _name(path: Path) -> bytes:
    return os.fsencode(path.name)
