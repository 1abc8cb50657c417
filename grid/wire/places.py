"""Private directories: where grid keeps sockets, leases, logs and shared memory on one machine.

Lives here: their names, their modes, the check that nobody else owns or planted them.
Elsewhere:  what is put into them (`kernel/lease.py`, `wire/bulk.py`, `launch/`).

All of them are 0700 and owned by us. A directory of that name that belongs to somebody else, is a symbolic link, or is
open to others is refused: in a shared `/tmp` anybody may create a name before us.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from grid.errors import DiskError

SOCKET_PATH_BYTES = 107
"""Longest path of a UNIX socket (sun_path less its final NUL on Linux), in bytes."""


def private_dir(path: Path) -> Path:
    """Make `path` (and its parents) if needed; return it once it is surely ours alone.

    Raises:
        DiskError: It can't be made, or somebody else could read or replace it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = os.lstat(path)
    except OSError as exc:
        raise DiskError(
            f"can't make the directory {path} ({exc.strerror or exc})",
            host=os.uname().nodename,
            hint="Name another one with temp_path, or with GRID_RUNTIME_DIR on this machine",
        ) from exc
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise DiskError(
            f"{path} is not a directory of ours (owner {info.st_uid}, we are {os.getuid()})",
            host=os.uname().nodename,
            hint="Remove it, or name another directory with GRID_RUNTIME_DIR",
        )
    if info.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path


def runtime_dir() -> Path:
    """This user's directory for running grids on this machine: `$GRID_RUNTIME_DIR`, else `/tmp/grid-<uid>`.

    `/tmp` by name and not `$TMPDIR`: every session of the user must find the same place (`grid ps`, `grid clean`),
    and socket paths have to stay short.
    """
    named = os.environ.get("GRID_RUNTIME_DIR")
    if named:
        return private_dir(Path(named))
    base = Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
    return private_dir(base / f"grid-{os.getuid()}")


def memory_dir(name: str) -> Path:
    """A private directory `name` in shared memory where the machine has it, else below the runtime directory."""
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK | os.X_OK):
        return private_dir(shm / f"grid-{os.getuid()}-{name}")
    return private_dir(runtime_dir() / "shm" / name)
