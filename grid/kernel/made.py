"""A directory that was named for us (`temp_path`) and did not exist: its maker leaves a mark, the last user removes it.

Several runs, of several hosts even, may share it: so the note is a file in it, and whoever finds nothing else beside
the note removes the directory, and those parents that were made for it. Only empty ones: what others put there stays.

Lives here: making, leaving.
Elsewhere:  whether it is safe from others (`wire/places`), who leaves (`agent`, `zygote`, `remains`).
"""

from __future__ import annotations

import os
from pathlib import Path

NOTE = ".made-by-grid"
"""Holds how many directories were made, this one and parents of it."""


def make(path: Path) -> None:
    """Make a directory with its parents, unless it exists. Raises OSError."""
    missing = 0
    for each in (path, *path.parents):
        if each.exists():
            break
        missing += 1
    path.mkdir(parents=True, exist_ok=True)
    if missing:
        (path / NOTE).write_text(str(missing))


def leave(path: Path) -> None:
    """Remove a directory that was made by `make`, once nothing is in it any more."""
    note = path / NOTE
    try:
        if os.listdir(path) != [NOTE]:
            return
        missing = note.read_text()
        note.unlink()
    except OSError:
        return  # another one leaves just now
    try:
        path.rmdir()
    except OSError:  # another one came just now
        try:
            note.write_text(missing)
        except OSError:
            pass
        return
    for parent in list(path.parents)[: int(missing) - 1] if missing.isdigit() else ():
        try:
            parent.rmdir()
        except OSError:
            return
