"""Staging over a grid: choose files, send what a host lacks, once per host, as one stream.

Lives here: `copy_files`, `initialise`, `create_subroot`, the report; the directory that servers work in; the probe of a
            shared directory; the user's own modules that a published instance needs.
Elsewhere:  which files (`staging/select.py`), what is missing and the archive (`staging/manifest.py`), the receiving
            end (`kernel/unpack.py`), finding modules (`staging/imports.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from grid.errors import GridError, HostError, StagingError
from grid.grids.fleet import Fleet
from grid.grids.home import Home
from grid.hosts import Host
from grid.services.kernel_server import KernelServer
from grid.services.result import NOBODY
from grid.staging.manifest import Entry, HashCache, Manifest, hash_files, missing, write_archive
from grid.staging.select import DEFAULT_EXCLUDE, Selection, StagedFile, misfits, select
from grid.wire import bulk

logger = logging.getLogger(__name__)


@dataclass
class CopyReport:
    """What one `copy_files` did.

    `files`: directory -> names of all chosen files in it. `sent`: host label -> number of files that travelled.
    `bytes`: size of all chosen files. `skipped`: host label -> files that the host had already, unchanged.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)


class Stager:
    """The files of one grid. `servers_at`: the servers of a home; `workdir`: where all servers work, if set."""

    def __init__(
        self,
        fleet: Fleet,
        servers_at: Callable[[Home], Sequence[KernelServer]],
        *,
        src_path: str | None,
        workdir: str | None,
        shared: bool,
    ) -> None:
        self._fleet, self._servers_at = fleet, servers_at
        self.src_path, self.workdir, self._shared = src_path, workdir, shared
        self._work_with_files = False  # files were staged: servers of this machine, too, work where those are
        self._hashes: HashCache = {}
        self._subroots: set[str] = set()
        self._for_all: dict[str, StagedFile] = {}  # what hosts that join later get, too
        self._late: set[Home] = set()  # hosts that joined after things were copied, and lack them yet
        self._furnishing = threading.Lock()
        self._scratches: set[str] = set()
        self._shared_token = ""
        self._sharing = threading.Lock()
        self.copied_files: CopyReport | None = None
        self.src_files: list[str] = []

    def workdir_of(self, home: Home) -> str | None:
        """Where servers of a home work; None: in its staging directory."""
        if self.workdir is not None:
            return None if self.workdir == "staging" else self.workdir
        if not home.local or self._work_with_files:
            return None
        try:
            return os.getcwd()
        except FileNotFoundError:  # somebody has removed it
            return None

    def _work_where_files_are(self) -> None:
        """Files are staged: relative names lead to them, on this machine as on all others."""
        if self._work_with_files or self.workdir is not None:
            return
        self._work_with_files = True
        for server in [server for home in self._fleet.homes if home.local for server in self._servers_at(home)]:
            if server.connected:
                server.submit("@workdir", (None,), {}, NOBODY)

    @property
    def is_shared(self) -> bool:
        """Whether all hosts have one staging directory."""
        return self._shared

    @property
    def temp_paths(self) -> dict[str, list[str]]:
        """Host label -> directories that the grid made there."""
        return {home.host.label: [home.report["run"]] for home in self._fleet.homes if home.up}

    def copy_files(
        self,
        rootdir: str | os.PathLike[str],
        filelist: str | Sequence[str],
        hosts: Host | str | Sequence[Host | str] | None = None,
        exclude: Sequence[str] = DEFAULT_EXCLUDE,
        *,
        strict: bool = False,
        recursive: bool = True,
    ) -> CopyReport:
        """Copy the files below `rootdir` that match `filelist` into the staging directory of the hosts.

        There they can be imported, and opened by their relative names: servers work in that directory, `$GRID_ROOT`,
        unless the grid was made with a `workdir`; those of a `LocalGrid` from the first copied file on.
        Files that a host has already, unchanged, are not sent again. A module that a server has imported already is
        not reloaded.

        Args:
            rootdir: Where relative names start; relative itself to `src_path`, if that was given. What begins with
                `./` is looked for in the current directory first.
            filelist: Patterns. `*.py` takes every such file of the tree; `data/*.txt` those in `data/` and below.
            hosts: Only these (a host, a label, or a list); None means all. With a shared directory one copy is made.
            exclude: Files whose relative path contains one of these strings are left out.
            strict: A pattern that matches nothing is an error, not a warning.
            recursive: False looks into the starting folders only.
        Raises:
            StagingError: Nothing usable under such a name; or hosts that could not be written, each with its reason
                (the others have the files).
        """
        self._fleet.grid.start()
        self._work_where_files_are()
        rootdir, selection = self._select(os.path.expanduser(os.fspath(rootdir)), filelist, exclude, recursive)
        if selection.empty:
            names = ", ".join(map(repr, selection.empty))
            if strict:
                raise StagingError(f"{names} matched nothing under {os.fspath(rootdir)!r}", hint="Look at the pattern")
            logger.warning("copy_files: %s matched nothing under %r", names, os.fspath(rootdir))
        report = CopyReport(warnings=list(selection.warnings))
        for file in selection.files:
            folder, name = posixpath.split(file.relative)
            report.files.setdefault(folder, []).append(name)
            report.bytes += file.size
        for warning in selection.warnings:
            logger.warning("copy_files: %s", warning)
        if hosts is None:
            self._for_all.update((file.relative, file) for file in selection.files)
        self._send(selection.files, self.chosen(hosts), report)
        self.copied_files = report
        return report

    def _select(
        self, rootdir: str, filelist: str | Sequence[str], exclude: Sequence[str], recursive: bool
    ) -> tuple[str, Selection]:
        """Below `src_path`, if that was given. `./` means the current directory, if something is found there."""
        if self.src_path is None:
            return rootdir, select(rootdir, filelist, exclude, recursive)
        places = [os.path.join(self.src_path, rootdir)]
        if rootdir.startswith(("./", "../")):
            places.insert(0, rootdir)
        for place in places[:-1]:
            try:
                selection = select(place, filelist, exclude, recursive)
            except StagingError:
                continue
            if selection.files:
                return place, selection
        return places[-1], select(places[-1], filelist, exclude, recursive)

    def initialise(self, src_path: str | os.PathLike[str], src_files: Sequence[str]) -> None:
        """Make the directories on the hosts and stage these sources; hosts that have them are skipped."""
        report = self.copy_files(src_path, list(src_files))
        chosen = {posixpath.join(folder, name) for folder, names in report.files.items() for name in names}
        self.src_files = sorted({*self.src_files, *chosen})

    def create_subroot(self, subroot: str) -> None:
        """Make a directory below the staging directory, on every host (once if it is shared); once each."""
        self._fleet.grid.start()
        self._work_where_files_are()
        if subroot in self._subroots:
            return
        for home in self.chosen(None):
            self._fleet.start(home)
            home.ask("make_directory", subroot)
        self._subroots.add(subroot)

    def joins_late(self, home: Home) -> None:
        """It lacks what was copied to all hosts."""
        self._late.add(home)

    def furnish(self, home: Home) -> None:
        """A host that joined later gets what was copied to all, before its first server."""
        with self._furnishing:
            if home not in self._late:
                return
            for subroot in sorted(self._subroots):
                home.ask("make_directory", subroot)
            if self._for_all:
                self._send(list(self._for_all.values()), [home], CopyReport())
            self._late.discard(home)

    def chosen(self, hosts: Host | str | Sequence[Host | str] | None) -> list[Home]:
        """The homes of these hosts (None: all); the first one where they share a directory.

        Raises:
            StagingError: One of them is not of this grid.
        """
        if self._shared:
            return self._fleet.homes[:1]
        if hosts is None:
            return self._fleet.homes
        wanted = [hosts] if isinstance(hosts, (Host, str)) else list(hosts)
        labels = {host.label if isinstance(host, Host) else host for host in wanted}
        chosen = [home for home in self._fleet.homes if home.host.label in labels or home.host.name in labels]
        unknown = labels - {home.host.label for home in chosen} - {home.host.name for home in chosen}
        if unknown:
            raise StagingError(
                f"not hosts of this grid: {', '.join(sorted(unknown))}",
                hint=f"It has {', '.join(home.host.label for home in self._fleet.homes)}",
            )
        return chosen

    def _send(self, files: Sequence[StagedFile], homes: Sequence[Home], report: CopyReport) -> None:
        """Send to each host what it lacks; all hosts are tried before the failures are raised."""
        manifest = hash_files(files, self._hashes)
        failures: dict[str, str] = {}
        archives: dict[tuple[str, ...], tuple[str, Manifest]] = {}
        making = threading.Lock()

        def send(home: Home, scratch: str) -> None:
            try:
                self._fleet.start(home)
                for name in [bad for tag in home.report["platform_tag"] for bad in misfits(files, tag)]:
                    report.warnings.append(f"{name} is compiled for another Python than that of {home.host.label}")
                    logger.warning("copy_files: %s", report.warnings[-1])
                lacking = tuple(missing(manifest, home.staged))
                report.skipped[home.host.label] = len(files) - len(lacking)
                report.sent[home.host.label] = len(lacking)
                if not lacking:
                    return
                with making:  # hosts that lack the same get the same archive
                    if lacking not in archives:
                        path = os.path.join(scratch, str(len(archives)))
                        chosen = set(lacking)
                        with open(path, "wb") as archive:
                            sent = write_archive([file for file in files if file.relative in chosen], archive)
                        archives[lacking] = path, sent
                path, sent = archives[lacking]
                self._unpack_on(home, path)
                home.staged.update(sent)
            except HostError as exc:
                failures[home.host.label] = exc.what
            except GridError as exc:
                failures[home.host.label] = str(exc)
            except OSError as exc:  # of ours: hosts send theirs as errors with names
                failures[home.host.label] = f"its archive can't be kept here in {scratch} ({exc.strerror or exc})"

        try:
            with self.scratch() as scratch:
                if len(homes) == 1:
                    send(homes[0], scratch)
                else:
                    with ThreadPoolExecutor(min(len(homes), self._fleet.limits.starts_at_once) or 1) as pool:
                        list(pool.map(lambda home: send(home, scratch), homes))
        except OSError as exc:
            place = tempfile.gettempdir()
            raise StagingError(
                f"no directory can be made in {place} ({exc.strerror or exc})", hint="Set TMPDIR to a place with room"
            ) from exc
        if failures:
            raise StagingError(
                f"{len(failures)} of {len(homes)} hosts could not be written",
                hint="The others have the files",
                failures=failures,
            )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A directory on this machine for archives. What Ctrl-C lets stand goes with the grid."""
        path = os.path.join(tempfile.gettempdir(), f"grid-stage-{secrets.token_hex(8)}")
        self._scratches.add(path)  # before it exists: Ctrl-C may come at any time
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            self._remove_scratch(path)

    def _remove_scratch(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)
        self._scratches.discard(path)

    def clear_up(self) -> None:
        """Remove what archives are left here; also of an upload that was cut off."""
        for path in list(self._scratches):
            self._remove_scratch(path)

    def _unpack_on(self, home: Home, archive: str) -> None:
        size = os.path.getsize(archive)
        with open(archive, "rb") as file:
            store = home.store()
            if isinstance(store, bulk.Lane):
                blob = store.write_stream(iter(lambda: file.read(1 << 20), b""), size)
            else:
                blob = store.write([memoryview(file.read())])
        home.ask("unpack", blob, "", timeout=max(600.0, self._fleet.limits.control_s))

    def stage_modules(self, home: Home, files: list[StagedFile]) -> None:
        """Send the user's own modules to one host."""
        self._send(files, [home], CopyReport())

    def contents(self, path: Path) -> Entry:
        """What a file holds: hash, size and mode. StagingError: There is no such file, or it can't be read."""
        return hash_files([StagedFile(path.name, path, 0, 0)], self._hashes)[path.name]

    def bring(self, home: Home, files: Sequence[StagedFile], digests: Sequence[str]) -> int:
        """Have files on a host under names that say their contents; returns how many had to be sent.

        Raises:
            StagingError: One has changed since `contents` told its hash, or the host could not be written.
        """
        wanted = dict(zip((file.relative for file in files), digests, strict=True))

        def lacks(relative: str) -> bool:
            return home.staged[relative].sha256 != wanted[relative] if relative in home.staged else True

        lacking = [file for file in files if lacks(file.relative)]
        if lacking:
            self._send(lacking, [home], CopyReport())
        for file in lacking:
            if lacks(file.relative):
                raise StagingError(
                    f"{str(file.source)!r} has changed since the command was given", hint="Give the command again"
                )
        return len(lacking)

    def check_shared(self, home: Home) -> None:
        """With a shared directory: does this host see what the first one wrote?"""
        if not self._shared:
            return
        with self._sharing:
            first = self._fleet.homes[0]
            if not self._shared_token:
                if not first.up:
                    first.start(self._fleet.grid._loader)
                    self._fleet.processes.add_agent(first)
                self._shared_token = secrets.token_hex(8)
                first.ask("probe", self._shared_token, True)
            if not home.ask("probe", self._shared_token, False):
                error = HostError(
                    f"it does not see what {first.host.label!r} writes into the shared directory {home.host.temp_path}",
                    host=home.host.label,
                    hint="Name a directory that all hosts share, or set shared_temp_path=False",
                )
                home.shut_down(force=True)
                raise error
