"""Files that servers wrote, brought here: `g.fetch_files`, the way back of `copy_files`.

Each comes in pieces, so that neither side ever has a whole file in memory, and is a file of its name here once it is
whole. Its time of change comes along: a file that is here unchanged is not brought again.

Lives here: `FileFetcher`. Elsewhere: which files there are (`kernel/produce.py`), outputs of commands (`commands/`).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from grid.arguments import check
from grid.errors import GridError, StagingError
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.grids.stager import Stager
from grid.hosts import Host
from grid.staging.whole import whole_file

PIECE = 8 << 20
"""Bytes of a file that travel at once."""
_AHEAD = 2
"""Pieces of one file that are asked for at once: one travels while the other is written."""
_AT_ONCE = 8
"""Hosts that send at once."""


class FileFetcher:
    """See the module."""

    def __init__(self, fleet: Fleet, stager: Stager) -> None:
        self._fleet, self._stager = fleet, stager

    def fetch_files(
        self,
        pattern: str | Sequence[str],
        to: str | os.PathLike[str] = ".",
        hosts: Host | str | Sequence[Host | str] | None = None,
    ) -> dict[str, list[Path]]:
        """Bring files that servers wrote.

        Args:
            pattern: Which: names and patterns (`*.dcd`, `run/**/*.log`), or several, relative to the directory in which
                servers work. A directory means all files below it.
            to: The directory here in which each host gets one of its own, as hosts may have files of the same name.
            hosts: Only these (a host, a label, or a list); None means all.
        Returns:
            For each host's label its files, as they lie here.
        Raises:
            StagingError: A pattern matches nothing on any host; a name leads out of the servers' directory; a file
                changed while it was read; a host does not answer, or nothing can be written here. `failures` names the
                hosts. The other files are here.
        """
        check("pattern", pattern, str | Sequence)
        check("to", to, str | os.PathLike)
        patterns = [pattern] if isinstance(pattern, str) else list(pattern)
        for each in patterns:
            check("pattern", each, str)
            if not each or each.startswith("/") or ".." in each.split("/"):
                raise ValueError(f"a pattern is relative to the directory in which servers work, not {each!r}")
        self._fleet.grid.start()
        homes = [home for home in self._stager.chosen(hosts) if home.up]
        failures: dict[str, str] = {}
        with ThreadPoolExecutor(min(_AT_ONCE, len(homes) or 1), thread_name_prefix="grid-fetch") as pool:
            told = dict(zip(homes, pool.map(lambda home: self._find(home, patterns, failures), homes), strict=True))
            self._check_matched(patterns, {home: each for home, each in told.items() if each is not None})
            work = [(home, each["files"]) for home, each in told.items() if each is not None]
            place = Path(os.path.expanduser(to))
            brought = list(pool.map(lambda each: self._bring(each[0], each[1], place, failures), work))
        if failures:
            raise StagingError("files were not brought", hint="The others are here", failures=failures)
        return {home.host.label: files for (home, _), files in zip(work, brought, strict=True) if files}

    def _find(self, home: Home, patterns: list[str], failures: dict[str, str]) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = home.ask("find_files", self._stager.workdir_of(home), patterns)
        except GridError as exc:
            failures[home.host.label] = exc.what
            return None
        if found["refused"]:
            names = "; ".join(f"{name!r} {why}" for name, why in found["refused"].items())
            failures[home.host.label] = f"not plain files of the servers' directory: {names}"
        return found

    def _check_matched(self, patterns: Sequence[str], told: dict[Home, dict[str, Any]]) -> None:
        empty = [each for each in patterns if told and all(each in found["empty"] for found in told.values())]
        if empty:
            there = {
                home.host.label: f"there is {', '.join(map(repr, found['present'])) or 'no file'}"
                for home, found in told.items()
            }
            names = ", ".join(map(repr, empty))
            raise StagingError(f"{names} matches no file of servers", hint="Look at the pattern", failures=there)

    def _bring(
        self, home: Home, files: dict[str, tuple[int, int, int]], place: Path, failures: dict[str, str]
    ) -> list[Path]:
        """The files of one host; the first one that fails ends that."""
        brought = []
        folder = place / re.sub(r"[/\0]", "_", home.host.label)
        for name, about in sorted(files.items()):
            try:
                brought.append(self._bring_one(home, name, about, folder))
            except (GridError, OSError) as exc:
                what = exc.what if isinstance(exc, GridError) else f"{name!r}: {exc.strerror or exc}"
                failures[home.host.label] = what
                break
        return brought

    def _bring_one(self, home: Home, name: str, about: tuple[int, int, int], folder: Path) -> Path:
        size, changed_ns, mode = about
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise StagingError(f"the name {name!r} leads out of {os.fspath(folder)!r}", hint="Don't trust this host")
        path = folder / posixpath.normpath(name)
        with contextlib.suppress(OSError):
            here = path.stat()
            if (here.st_size, here.st_mtime_ns) == (size, changed_ns):
                return path
        with whole_file(path, mode, changed_ns) as file:
            for piece in pieces(home, self._stager.workdir_of(home), name, size, changed_ns):
                file.write(piece)
        return path


def pieces(home: Home, directory: str | None, name: str, size: int, changed_ns: int) -> Iterator[bytes]:
    """The contents of a file on a host in order, the next piece under way while one is used.

    Args:
        directory: The file's name is relative to this one; None means the staging directory.
    Raises:
        StagingError: It has changed, or is not there any more. ConnectError: The host does not answer.
    """
    asked: list[tuple[int, Callable[[], Any]]] = []
    offset = 0
    while offset < size or asked:
        while offset < size and len(asked) < _AHEAD:
            length = min(PIECE, size - offset)
            asked.append((length, home.ask_later("read_file", directory, name, offset, length, changed_ns)))
            offset += length
        length, answer = asked.pop(0)
        piece = answer()
        if piece is None or len(piece) != length:
            raise StagingError(f"{name!r} changed while it was read", hint="Fetch it when nobody writes to it")
        yield piece
