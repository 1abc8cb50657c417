"""A file on a host of a grid, as a value: what a command left there, or what a method of a published object wrote.

    class Model:
        def relax(self, steps):
            ...
            return RemotePath("relaxed.pdb")          # a file of the directory in which the server works

    path = proxy.relax(100).get()
    path.fetch("results")                             # here
    g.command("score {pose}", pose=In(path)).get()    # or on to a command, from host to host where there is a way

Lives here: `RemotePath`, `Whereabouts`; what this process is.
Elsewhere:  who brings such files, and has them on other hosts (`grids/keptfiles.py`); where they lie
            (`kernel/filestore.py`).
"""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from grid.errors import SerialisationError, StagingError


class Whereabouts(NamedTuple):
    """Where a file is, and in which state it was then.

    `agent`: the number of the agent of its host. `host`: what that is called, as far as it was known. `directory`: the
    one below which `file` is; empty for a file that waits in the store of that host. `sha256`: empty if not known yet.
    """

    grid: str
    agent: int
    host: str
    directory: str
    file: str
    size: int
    changed_ns: int
    mode: int
    sha256: str


class KnowsFiles(Protocol):
    """The part of a grid that knows its files."""

    def fetch(self, path: RemotePath, to: str | os.PathLike[str]) -> Path:
        """Bring it."""

    def forget(self, path: RemotePath) -> None:
        """Nobody needs it any more."""

    def on(self, path: RemotePath, proxy: Any) -> str:
        """Have it on the host of a server."""

    def host_of(self, path: RemotePath) -> str:
        """The label of its host."""


_keepers: weakref.WeakValueDictionary[str, KnowsFiles] = weakref.WeakValueDictionary()
_server: list[tuple[str, int]] = []


def has_keeper(grid: str, keeper: KnowsFiles) -> None:
    """This process is the client of that grid."""
    _keepers[grid] = keeper


def is_server(grid: str, agent: int) -> None:
    """This process is a server of that grid, below that agent."""
    _server[:] = [(grid, agent)]


class RemotePath:
    """See the module. Made on a server, and given back by a method; or by `g.command(..., keep=True)`.

    It is a plain value: it may be compared, kept, pickled. The file stays till the grid ends, or till `forget`.

    Args:
        name: Of a file below the directory in which the server works.
    Raises:
        ValueError: A name that leads out of there.
    """

    __slots__ = ("_at", "name")

    def __init__(self, name: str | os.PathLike[str]) -> None:
        text = os.fspath(name)
        if not isinstance(text, str):
            raise TypeError(f"a name is text, not {type(text).__name__}")
        if not text or "\0" in text or text.startswith("/") or ".." in text.split("/"):
            raise ValueError(
                f"{text!r} is no file below the directory in which a server works: name it relative to that"
            )
        self.name = os.path.normpath(text)
        self._at: Whereabouts | None = None

    @classmethod
    def found(cls, name: str, at: Whereabouts) -> RemotePath:
        """One whose whereabouts are known."""
        path = cls(name)
        path._at = Whereabouts(*at)
        return path

    @property
    def at(self) -> Whereabouts:
        """Where it is. StagingError: It was made here, and not on a server."""
        if self._at is None:
            raise StagingError(
                f"{self!r} names no file of a host: it was made here",
                hint="Have a method of a published object return it, or use In(path) for a file of this machine",
            )
        return self._at

    @property
    def host(self) -> str:
        """The label of its host."""
        at = self.at
        keeper = _keepers.get(at.grid)
        return at.host if keeper is None else keeper.host_of(self)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.at.size

    def fetch(self, to: str | os.PathLike[str] = ".") -> Path:
        """Bring the file here, in pieces; it appears whole or not at all.

        Args:
            to: The directory in which it gets its name.
        Raises:
            StagingError: It has changed since or was removed, it was forgotten, or it can't be written here.
            ConnectError: Its host was lost. GridStopped: The grid has ended.
        """
        return self.keeper().fetch(self, to)

    def on(self, proxy: Any) -> str:
        """Have the file on the host of an acquired server, and say its whole name there, to be given to its methods.

            score = scorer.score(path.on(scorer))

        It goes straight from host to host where there is a way. It is there to be read, till the grid ends or `forget`.

        Raises:
            As `fetch`; DiskError: There is no room for it.
        """
        return self.keeper().on(self, proxy)

    def forget(self) -> None:
        """Remove what a command left, on all hosts, once the commands that have it as an input have ended.

        A file that a method named stays where it is; only copies of it for commands go.
        """
        self.keeper().forget(self)

    def keeper(self) -> KnowsFiles:
        """The part of its grid that knows it. StagingError: This process is not the client of that grid."""
        keeper = _keepers.get(self.at.grid)
        if keeper is None:
            raise StagingError(
                f"{self!r} is a file of a grid that has ended, or is not of this process",
                hint="Use it in the script that has the grid, before its end",
            )
        return keeper

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemotePath):
            return NotImplemented
        return (self.name, self._at) == (other.name, other._at)

    def __hash__(self) -> int:
        return hash((self.name, self._at))

    def __repr__(self) -> str:
        where = f", on {self._at.host}" if self._at is not None else ""
        return f"<RemotePath {self.name!r}{where}>"

    def __reduce__(self) -> tuple[Any, ...]:
        at = self._at
        if at is None and _server:
            at = _looked_up(self.name)
        return (RemotePath, (self.name,)) if at is None else (RemotePath.found, (self.name, tuple(at)))


def _looked_up(name: str) -> Whereabouts:
    """Of a file below the directory in which this server works. SerialisationError: It is none."""
    inside = os.path.realpath(os.getcwd())
    path = os.path.realpath(os.path.join(inside, name))
    grid, agent = _server[0]
    why = ""
    try:
        status = os.stat(path)
        if not path.startswith(inside + os.sep):
            why = f"leads out of the directory in which the server works, to {path}"
        elif not stat.S_ISREG(status.st_mode):
            why = "is no plain file"
    except OSError as exc:
        why = f"can't be looked at ({exc.strerror or exc})"
    if why:
        raise SerialisationError(
            f"RemotePath({name!r}) can't travel: the file {why}", hint=f"Return plain files below {inside}"
        )
    mode = stat.S_IMODE(status.st_mode)
    return Whereabouts(grid, agent, os.uname().nodename, inside, name, status.st_size, status.st_mtime_ns, mode, "")
