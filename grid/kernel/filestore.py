"""Files of this host that wait: outputs of commands that are to be brought, or that stay for other commands.

They lie below the staging directory, each under a name of 64 hexadecimal digits, and nobody changes them: who uses one
gets a copy. They go when the client says so, or with the grid.

Lives here: `FileStore`, copies, hashes.
Elsewhere:  who puts files there (`commands/onhost.py`), and who asks for them (`requests`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from grid.errors import GridError, StagingError

PLACE = ".commands/kept"
"""Below the staging directory."""
_NAME = re.compile(r"[0-9a-f]{64}")
_FICLONE = 0x40049409
_CHUNK = 1 << 20


class FileStore:
    """See the module. Any thread, and any process of the host. `root`: the staging directory."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.directory = Path(root, PLACE)

    def path(self, name: str) -> Path:
        """Where a file lies. GridError: Not a name that we give out, so never a path into other places."""
        if not _NAME.fullmatch(name):
            raise GridError(f"{name!r} is not the name of a file that waits", hint="Names are 64 hexadecimal digits")
        return self.directory / name

    def new(self, name: str) -> Path:
        """Where a file may be written that is to have that name; nothing is there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.path(name)
        path.unlink(missing_ok=True)
        return path

    def check(self, name: str, sha256: str) -> None:
        """StagingError: It has other contents; then it is removed."""
        if digest(self.path(name)) != sha256:
            self.drop([name])
            raise StagingError("a file was changed in its store, or on the way", hint="Run again what wrote it")

    def put(self, source: str | os.PathLike[str], *, copied: bool = False, name: str | None = None) -> str:
        """Have a file here; its name. Nobody may change it any more, unless it is to be `copied`. Raises OSError.

        One that has other names outside may be changed by those: that one is copied in any case.
        """
        name = name or secrets.token_hex(32)
        target = self.new(name)
        try:
            if copied or os.stat(source).st_nlink > 1:
                copy(source, target)
            else:
                try:
                    os.link(source, target)
                except OSError:  # a file system without such links, or a file of somebody else
                    copy(source, target)
            with contextlib.suppress(PermissionError):
                target.chmod(0o600)
        except BaseException:
            self.drop([name])
            raise
        return name

    def place(self, name: str, shown: str, mode: int) -> Path:
        """Where the file is under a name that people gave it, for reading. Raises OSError."""
        target = self._shown(name) / os.path.basename(shown)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path(name), target)
        except FileExistsError:
            pass
        except OSError:  # a file system without such links
            copy(self.path(name), target)
        target.chmod(mode & 0o555 | 0o400)
        return target

    def _shown(self, name: str) -> Path:
        return self.directory.with_name("shown") / name

    def drop(self, names: Iterable[str]) -> None:
        """Remove files; they need not exist."""
        for name in names:
            with contextlib.suppress(OSError):
                self.path(name).unlink()
            shutil.rmtree(self._shown(name), ignore_errors=True)


def copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy contents; where the file system can (btrfs, xfs), both share them until one is changed. Raises OSError."""
    with open(source, "rb") as here, open(target, "wb") as there:
        try:
            fcntl.ioctl(there.fileno(), _FICLONE, here.fileno())
            return
        except OSError:
            pass
    shutil.copyfile(source, target)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's contents. Raises OSError."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            found.update(data)
    return found.hexdigest()
