"""Files that stay on hosts: outputs of commands with `keep=True`, and files that methods returned as `RemotePath`s.

A command that has one as an input gets a copy on its own host. Where that is another host, the file goes there first:
straight over the lane where the port can be reached, else in pieces through this process and a file here.

Lives here: `KeptFiles`: which host has which file, who uses it, when it goes.
Elsewhere:  the value (`wire/remote_path.py`), where files lie on a host (`kernel/filestore.py`), ways between hosts
            (`between`), commands (`commands/running.py`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.arguments import check
from grid.commands.outcome import place_below
from grid.errors import ConnectError, GridError, StagingError
from grid.grids.between import carry_file
from grid.grids.fetching import pieces
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.stager import Stager
from grid.kernel.filestore import PLACE
from grid.staging.select import StagedFile
from grid.staging.whole import whole_file
from grid.wire.remote_path import RemotePath, Whereabouts, has_keeper


@dataclass
class _Kept:
    """A file in the stores of hosts. `homes`: who has it, with the number of its agent by then. `uses`: by commands."""

    path: RemotePath
    at: Whereabouts
    homes: dict[Home, int] = field(default_factory=dict)
    uses: int = 0
    forgotten: bool = False
    carrying: threading.Lock = field(default_factory=threading.Lock)


class KeptFiles:
    """See the module. Any thread."""

    def __init__(self, fleet: Fleet, stager: Stager, grid_id: str) -> None:
        self._fleet, self._stager, self._grid_id = fleet, stager, grid_id
        self._lock = threading.Lock()
        self._files: dict[str, _Kept] = {}  # by their names in the stores
        self._copies: dict[RemotePath, str] = {}  # of files of servers: the name of the copy in the store of that host
        self._forgotten: set[RemotePath] = set()
        has_keeper(grid_id, self)

    # -- values ----------------------------------------------------------------------------------------------------

    def note(self, home: Home, output: dict[str, Any]) -> RemotePath:
        """An output that a command left on its host, as a value."""
        facts = output["kept"], output["size"], output["changed_ns"], output["mode"], output["sha256"]
        at = Whereabouts(self._grid_id, home.number, home.host.label, "", *facts)
        path = RemotePath.found(output["name"], at)
        self._record(path)
        return path

    def host_of(self, path: RemotePath) -> str:
        """The label of its host."""
        for home in self._fleet.homes:
            if home.number == path.at.agent:
                return home.host.label
        return path.at.host

    def fetch(self, path: RemotePath, to: str | os.PathLike[str] = ".") -> Path:
        """See `RemotePath.fetch`."""
        check("to", to, str | os.PathLike)
        self._check(path)
        at = path.at
        target = place_below(Path(os.path.expanduser(to)).absolute(), path.name)
        if at.directory:
            home, directory, name = self._home_of(path), at.directory, at.file
        else:
            home, directory, name = self._source(self._record(path)), "", f"{PLACE}/{at.file}"
        try:
            self._bring(home, directory or None, name, path, target)
        except OSError as exc:
            raise StagingError(
                f"{path.name!r} can't be written to {os.fspath(target)!r} ({exc.strerror or exc})",
                hint="Make room there, or name another directory: fetch(to)",
            ) from exc
        return target

    def on(self, path: RemotePath, proxy: Any) -> str:
        """See `RemotePath.on`."""
        self._check(path)
        home: Home = proxy._server.home
        if path.at.directory and home.number == path.at.agent:
            return os.path.join(path.at.directory, path.at.file)
        at = self.stored(path)
        self.hold([at.file])
        try:
            self.have(home, [at.file])
            place: str = home.ask("place_file", at.file, path.name, at.mode)
        finally:
            self.release([at.file])
        return place

    def forget(self, path: RemotePath) -> None:
        """See `RemotePath.forget`."""
        with self._lock:
            if path.at.directory:  # the file itself stays, and may be returned once more
                name = self._copies.pop(path, None)
            else:
                name = path.at.file
                self._forgotten.add(path)
        if name is None:
            return
        kept = self._files.get(name) or self._record(path)
        with self._lock:
            kept.forgotten = True
            idle = not kept.uses
        if idle:
            self._remove(name)

    # -- outputs of commands ---------------------------------------------------------------------------------------

    def bring_output(self, home: Home, output: dict[str, Any], target: Path, go_on: Callable[[], None]) -> None:
        """Bring an output that waits on its host.

        Args:
            go_on: Called before each piece; may raise.
        Raises:
            OSError: It can't be written here. StagingError, ConnectError: It is not there any more, or nobody answers.
        """
        try:
            with whole_file(target, output["mode"]) as file:
                for piece in pieces(home, None, f"{PLACE}/{output['kept']}", output["size"], output["changed_ns"]):
                    go_on()
                    file.write(piece)
        except ConnectError as exc:
            raise ConnectError(
                f"{exc.what}, and the output {output['name']!r} was not brought",
                host=home.host.label,
                hint="Run the command again",
            ) from exc

    def drop_outputs(self, home: Home, names: Sequence[str]) -> None:
        """Remove such outputs; without waiting, and without an error where the host was lost."""
        with contextlib.suppress(GridError):
            home.ask_later("drop_files", list(names))

    # -- inputs of commands ----------------------------------------------------------------------------------------

    def stored(self, path: RemotePath) -> Whereabouts:
        """Where it is in the store of its host; a file of a server is copied there now.

        Raises:
            StagingError: It was forgotten, has changed, or is of another grid. ConnectError: Its host was lost.
        """
        self._check(path)
        if not path.at.directory:
            self._source(self._record(path))
            return path.at
        with self._lock:
            name = self._copies.get(path)
        if name is None:
            at, home = path.at, self._home_of(path)
            told = home.ask("keep_file", at.directory, at.file, at.changed_ns, timeout=_patience(home, at.size))
            if told is None:
                raise _changed(path)
            copy = RemotePath.found(
                path.name,
                at._replace(directory="", file=told["kept"], changed_ns=told["changed_ns"], sha256=told["sha256"]),
            )
            self._record(copy)
            with self._lock:
                name = self._copies.setdefault(path, told["kept"])
        return self._files[name].at

    def hold(self, names: Iterable[str]) -> None:
        """A command has these as inputs. StagingError: One of them was forgotten meanwhile."""
        names = list(names)
        with self._lock:
            chosen = [kept for name in names if (kept := self._files.get(name)) and not kept.forgotten]
            if len(chosen) < len(names):
                raise StagingError("an input of the command was forgotten meanwhile", hint="Use it before forget()")
            for kept in chosen:
                kept.uses += 1

    def release(self, names: Iterable[str]) -> None:
        """That command has ended."""
        for name in names:
            with self._lock:
                kept = self._files[name]
                kept.uses -= 1
                idle = kept.forgotten and not kept.uses
            if idle:
                self._remove(name)

    def have(self, home: Home, names: Iterable[str]) -> None:
        """Have these in the store of a host.

        Raises:
            ConnectError: A host that has one was lost. StagingError: It is not there any more.
            DiskError: There is no room for it.
        """
        for name in names:
            kept = self._files[name]
            with kept.carrying:
                if kept.homes.get(home) == home.number or self._stager.is_shared:
                    continue
                source = self._source(kept)
                if not source.ask("has_file", name):
                    raise _changed(kept.path)
                if not carry_file(source, home, kept.at):
                    self._through_here(source, home, kept)
                kept.homes[home] = home.number

    # -- the rest --------------------------------------------------------------------------------------------------

    def _check(self, path: RemotePath) -> None:
        self._fleet.grid._check_usable()
        if path.at.grid != self._grid_id:
            raise StagingError(f"{path!r} is a file of another grid", hint="Fetch it, and use In of the file here")
        if path in self._forgotten:
            raise _forgotten(path)

    def _record(self, path: RemotePath) -> _Kept:
        """Of a file in a store: also of one that an earlier client of the grid got."""
        at = path.at
        with self._lock:
            kept = self._files.get(at.file)
        if kept is None:
            home = self._home_of(path)
            with self._lock:
                kept = self._files.setdefault(at.file, _Kept(path, at, {home: at.agent}))
        return kept

    def _home_of(self, path: RemotePath) -> Home:
        for home in self._fleet.homes:
            if home.number == path.at.agent and home.up:
                return home
        raise _lost(path, self.host_of(path))

    def _source(self, kept: _Kept) -> Home:
        """A host that has it."""
        for home, number in kept.homes.items():
            if home.number == number and home.up:
                return home
        raise _lost(kept.path, self.host_of(kept.path))

    def _bring(self, home: Home, directory: str | None, name: str, path: RemotePath, target: Path) -> None:
        at = path.at
        with whole_file(target, at.mode, at.changed_ns) as file:
            for piece in pieces(home, directory, name, at.size, at.changed_ns):
                file.write(piece)

    def _through_here(self, source: Home, target: Home, kept: _Kept) -> None:
        """By a file here: large ones need no memory."""
        at, relative = kept.at, f"{PLACE}/{kept.at.file}"
        if target.local:
            self._bring(source, None, relative, kept.path, _here(target, at))
            return
        with self._stager.scratch() as scratch:
            path = _here(source, at) if source.local else Path(scratch, "file")
            if not source.local:
                self._bring(source, None, relative, kept.path, path)
            self._stager.bring(target, [StagedFile(relative, path, at.size, at.mode)], [at.sha256])

    def _remove(self, name: str) -> None:
        with self._lock:
            kept = self._files.pop(name, None)
        for home, number in () if kept is None else kept.homes.items():
            if home.number == number and home.up:
                home.staged.pop(f"{PLACE}/{name}", None)
                self.drop_outputs(home, [name])


def _here(home: Home, at: Whereabouts) -> Path:
    """Where it lies on this machine."""
    return Path(home.report["root"], PLACE, at.file)


def _patience(home: Home, size: int) -> float:
    return home.limits.control_s + size / 1e7


def _lost(path: RemotePath, host: str) -> ConnectError:
    return ConnectError(
        f"it was lost, and the file {path.name!r} with it",
        host=host,
        hint="Run again what wrote it, or fetch() earlier",
    )


def _changed(path: RemotePath) -> StagingError:
    return StagingError(
        f"the file {path.name!r} was changed or removed on host {path.host!r} since it was returned",
        hint="Give back a RemotePath once nothing writes to the file any more",
    )


def _forgotten(path: RemotePath) -> StagingError:
    return StagingError(f"the file {path.name!r} was forgotten", hint="Use it before forget()")
