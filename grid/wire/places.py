"""Private directories: where grid keeps sockets, leases, logs and shared memory on one machine.

Lives here: their names and modes.
Elsewhere:  whom they must belong to (`trust`), what is put into them (`kernel/lease.py`, `wire/bulk.py`, `launch/`).

All of them are 0700 and owned by us, and all that leads to them is ours or root's (`trust`). A directory of that name
that belongs to somebody else, is a symbolic link, or is open to others is refused: in a shared `/tmp` anybody may
create a name before us. The mode of a directory that is there already is never changed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from grid import trust
from grid.errors import DiskError

SOCKET_PATH_BYTES = 107
"""Longest path of a UNIX socket (sun_path less its final NUL on Linux), in bytes."""


_NAME_BYTES = 48
"""Room for the longest name of a socket below the runtime directory: ssh's control sockets."""


def private_dir(path: Path, hint: str = "Remove it, or name another directory with GRID_RUNTIME_DIR") -> Path:
    """Make `path` (and its parents) if needed; return it, without symbolic links, once it is surely ours alone.

    Raises:
        DiskError: It can't be made, or somebody else could read, change or replace it.
    """
    return _translated(lambda: trust.make_private(str(path)), path, hint)


def own_place(path: Path, name: str, hint: str = "Name another directory") -> Path:
    """`path` if it is ours alone, or is made for us now; else our own directory `name` in it. See `trust.own_place`."""
    return _translated(lambda: trust.own_place(str(path), name), path, hint)


def trusted(path: Path, hint: str) -> Path:
    """`path` without symbolic links, once nobody else can replace what is in it. DiskError: somebody could."""
    return _translated(lambda: trust.resolved(str(path)), path, hint)


def _translated(find: Callable[[], str], path: Path, hint: str) -> Path:
    host = os.uname().nodename
    try:
        return Path(find())
    except trust.Untrusted as exc:
        where = "" if str(exc.filename) == str(path) else f", because of {exc.filename}"
        raise DiskError(f"{path} is not safe from other users{where}: {exc.strerror}", host=host, hint=hint) from exc
    except OSError as exc:
        raise DiskError(
            f"can't make the directory {path} ({exc.strerror or exc})",
            host=host,
            hint="Name another one with temp_path, or with GRID_RUNTIME_DIR on this machine",
        ) from exc


def runtime_dir() -> Path:
    """This user's directory for running grids on this machine: `$GRID_RUNTIME_DIR`, else `/tmp/grid-<uid>`.

    If the variable names a directory that has another purpose, such as /tmp or /scratch, ours is `grid-<uid>` in it.

    `/tmp` by name and not `$TMPDIR`: every session of the user must find the same place (`grid ps`, `grid clean`),
    and socket paths have to stay short.
    """
    own = f"grid-{os.getuid()}"
    named = os.environ.get("GRID_RUNTIME_DIR")
    if named:
        if len(os.fsencode(named)) > SOCKET_PATH_BYTES - _NAME_BYTES:
            raise DiskError(
                f"GRID_RUNTIME_DIR is too long: a path of a socket has {SOCKET_PATH_BYTES} bytes at most, "
                f"of which names there need {_NAME_BYTES}: {named}",
                host=os.uname().nodename,
                hint="Set GRID_RUNTIME_DIR to a shorter one",
            )
        return own_place(Path(named), own, "Name another directory with GRID_RUNTIME_DIR")
    base = Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
    return private_dir(base / own)


def overflow_dir(directory: Path) -> Path | None:
    """Where blobs go that a small `/dev/shm` has no room for (containers have 64 MB): a directory on disk.

    Told by the name of the first alone, so that all processes of a host look in the same place; None if that one is on
    disk itself.
    """
    if directory.parent != Path("/dev/shm"):
        return None
    return runtime_dir() / "shm" / directory.name


def memory_dir(name: str) -> Path:
    """A private directory `name` in shared memory where the machine has it, else below the runtime directory."""
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK | os.X_OK):
        return private_dir(shm / f"grid-{os.getuid()}-{name}")
    return private_dir(runtime_dir() / "shm" / name)


def store_dir(path: Path) -> Path:
    """The directory of a job server: `path`, if it is ours alone or not there yet; else `grid-jobs` in it.

    Raises:
        DiskError: It can't be made, is not safe from other users, or holds jobs already which others can read.
    """
    path = path.expanduser().absolute()
    if (path / "jobs.sqlite").exists():
        return private_dir(path, f"Jobs lie there: look whether they are yours, then `chmod 700 {path}`")
    return own_place(path, "grid-jobs")
