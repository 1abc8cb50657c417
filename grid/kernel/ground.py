"""The directories of one agent: made in one go when it begins, all of them removed when it ends.

    run_dir    of this agent alone: its log, its servers' logs
    root       where files are staged; below `run_dir`, or shared with agents of other hosts
    sockets    UNIX sockets of this agent and its servers
    store      blobs, in shared memory

Lives here: making them, proving that they can be written to, paths below the root, removing them.
Elsewhere:  where such directories may be (`wire/places`), one that was named for us (`made`), locks (`held`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from grid.errors import DiskError
from grid.kernel import held, made
from grid.kernel.lease import inherit
from grid.kernel.zygote import Zygote, remove
from grid.wire import bulk
from grid.wire.places import memory_dir, private_dir, runtime_dir, trusted

_LISTED = 5000
"""Files in a staging directory that are checked before it is removed."""
_ROOM = "Free some space there, or name another directory with temp_path"


class Ground:
    """See the module.

    Raises:
        DiskError: One of them can't be made or written to; what was made by then is removed.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self.ours: list[Path] = [Path(config["code"]["unpacked"])] if config["code"].get("unpacked") else []
        config["ours"] = self.ours  # until the agent listens to SIGTERM itself, `boot` does
        self._locks: list[int | None] = []
        self.base: Path | None = None  # the directory that was named for us
        try:
            self._make(config, f"{config['grid']}-{config['peer']}")
        except BaseException:
            self.remove()
            raise

    def _make(self, config: dict[str, Any], unique: str) -> None:
        self.base = _temp_path(config["temp_path"]) if config["temp_path"] else None
        base = self.base or runtime_dir()
        self.run_dir = self._own(base / f"run-{unique}")
        if config["shared"]:
            self.root = self._own(base / f"run-{config['grid']}-shared")
        else:
            self.root = private_dir(self.run_dir / "src")
        self._logs = private_dir(self.run_dir / "log")
        self.log_path = self.run_dir / "agent.log"
        self.log = os.open(self.log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.sockets = private_dir(private_dir(runtime_dir() / "s") / unique)
        self.blobs = memory_dir(unique)
        self.store = bulk.BlobStore(self.blobs)
        self.ours += [self.sockets, self.blobs]
        if self.store.overflow is not None:  # made before anything needs it: the lock would be a file in its place
            self._own(self.store.overflow)
        probe = self.run_dir / "probe"
        try:
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
            (self.run_dir / "host").write_text(os.uname().nodename)  # for `grid clean`, where temp_path is shared
        except OSError as exc:
            raise cant_write(f"to {self.run_dir}", exc) from exc

    def _own(self, path: Path) -> Path:
        self.ours.append(private_dir(path))
        return path

    def hold(self, _forked: Zygote) -> None:
        """Lock them, until this process ends: `grid clean` sees by it that we live.

        The zygote must be forked by then: a lock belongs to all processes that inherit its descriptor.
        """
        self._locks = [held.hold(path) for path in self.ours]

    def log_of(self, name: str) -> Path:
        """The log of a server."""
        return self._logs / f"{name.replace('/', '.')}.log"

    def below_root(self, subroot: str) -> Path:
        """A path below the staging directory. DiskError: It leads out of there."""
        path = (self.root / subroot).resolve()
        if path != self.root.resolve() and self.root.resolve() not in path.parents:
            raise DiskError(
                f"{subroot!r} leads out of the staging directory",
                host=os.uname().nodename,
                hint="Name a directory below it",
            )
        return path

    def files(self) -> list[str]:
        """Names of files below the root, relative to it; not byte code, not hidden ones. About `_LISTED` at most."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in files if name[0] != "."]
            if len(found) > _LISTED:
                break
        return found

    def drop_sockets(self, peer: int, pid: int) -> None:
        """Remove what a server that has ended had there: sockets, the file of its stacks, that of its children."""
        for left in self.sockets.glob(f"p{peer}.*"):
            left.unlink(missing_ok=True)
        remove(str(self.sockets / f"m{pid}"))

    def remove(self) -> None:
        """Remove all of them."""
        for path in [*map(str, self.ours), *inherit(self._config)]:
            remove(path)
        if self.base is not None:
            made.leave(self.base)


def cant_write(where: str, exc: OSError) -> DiskError:
    """The error of a directory of ours that can't be written to."""
    return DiskError(f"can't write {where} ({exc.strerror})", host=os.uname().nodename, hint=_ROOM)


def _temp_path(named: str) -> Path:
    """The directory of that name, made if it is not there, once nobody else can replace what is in it."""
    path = Path(os.path.expanduser(named))
    path = trusted(path, "Name a directory of yours with temp_path, or take away the right of others to write there")
    try:
        made.make(path)
    except OSError as exc:
        raise DiskError(
            f"can't make temp_path {path} ({exc.strerror})",
            host=os.uname().nodename,
            hint="Name another with temp_path",
        ) from exc
    return trusted(path, "Name a directory of yours with temp_path")  # somebody may have made it just now
