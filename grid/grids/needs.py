"""What a message needs to have on a host before it goes there: modules, names of `__main__`, a Python that can read it.

Lives here: `HostNeeds` of one host; which modules are there already.
Elsewhere:  finding modules (`staging/imports.py`), sending files (`files.py`), images (`images.py`, `mainimage`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from grid.care.remedies import remedy
from grid.errors import MissingModules, VersionError
from grid.grids.differences import versions_here
from grid.grids.differences import warn as warn_of_differences
from grid.grids.images import Images, ToldImage
from grid.hosts import Host
from grid.staging.imports import carried, find_needs
from grid.staging.select import StagedFile
from grid.wire import bulk
from grid.wire.codec import CACHE_TAG, Dumped
from grid.wire.edited import edited_since, told_of
from grid.wire.mainimage import MainImage, Packed
from grid.wire.mentions import may_mention, modules_in

OUR_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_USED: Any = ("modules", "used")
"""In what a process has: modules that the names of `__main__` there use."""

Stage = Callable[[Any, list[StagedFile]], None]
"""Sends these files to a home."""


class There(Protocol):
    """The host, as far as needs know it."""

    host: Host
    report: dict[str, Any]
    python: str | None  # of an environment that came from here

    @property
    def local(self) -> bool: ...
    def store(self) -> bulk.Blobs: ...
    def forget(self, blob: str) -> None: ...
    def ask(self, method: str, *args: Any) -> Any: ...


class HostNeeds:
    """See the module. Any thread. `stage` sends the user's modules; `warn` hears of names with random generators."""

    def __init__(self, home: There, stage: Stage, warn: Callable[[set[str]], None]) -> None:
        self._home, self._stage, self._warn = home, stage, warn
        self._lock = threading.Lock()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Another agent, another directory: it is empty."""
        self._modules: set[str] = set()
        self._images = Images()

    def prepare(self, dumped: Dumped, image: dict[str, Any]) -> bytes | None:
        """Have on the host what a message needs; returns the image of `__main__` that must go with it, if one must.

        `image`: what the process there has: names of `__main__`, and editions of modules. It is brought up to date.

        Raises:
            VersionError: Code by value, and another version of Python there.
            MissingModules: Modules that are neither there nor the user's own.
        """
        self.check_code(dumped.by_value)
        modules = may_mention(dumped.data)
        if not (self._home.local or modules <= self._modules):
            modules = modules_in(dumped.data)  # these must be there, so none may be a chance of the data
        modules |= dumped.modules
        lacking = MainImage().lacking(dumped.main_names, image) if dumped.main_names else None
        if dumped.main_names:  # what the script defines may use modules that the message does not name
            modules |= image.get(_USED, frozenset())
        if not lacking:
            return self._with_edits(modules, image, None)
        told: bytes
        known = self._images.known(lacking, image)
        if known is not None:
            told, packed = known
        else:
            packed = MainImage().pack(lacking, image)
            self.check_code(packed.by_value)
            if packed.random:
                self._warn(packed.random)
            told = self._images.put(packed, self._home.store(), self._home.forget)
        image.update(packed.entries)
        image[_USED] = image.get(_USED, frozenset()) | packed.modules
        return self._with_edits(modules | packed.modules, image, told)

    def _with_edits(self, modules: set[str], image: dict[Any, Any], told: bytes | None) -> bytes | None:
        """Have modules there as they are now; a process that has older ones is told with the message."""
        fresh = edited_since(modules, image) if modules else None
        if fresh:
            self._modules.difference_update(fresh)
        self.have_modules(modules)
        if not fresh:
            return told
        word = ToldImage(told_of(fresh, told))
        word.large = getattr(told, "large", None)
        return word

    def pack_image(self, entries: Mapping[str, Any]) -> Packed:
        """An image of names of `__main__` as they were bound, if this host can use it."""
        names = {name: obj for name, obj in entries.items() if isinstance(name, str)}
        packed = MainImage({**sys.modules["__main__"].__dict__, **names}).pack(names)
        self.check_code(packed.by_value)
        return packed

    def check_code(self, by_value: Any) -> None:
        """Refuse code by value where the host's Python is of another minor version."""
        theirs, label = self._home.report.get("cache_tag"), self._home.host.label
        if by_value and theirs != CACHE_TAG:
            raise VersionError(
                f"host {label!r} runs {theirs} and this is {CACHE_TAG}: {', '.join(list(by_value)[:4])} "
                "would have to travel as byte code, which crashes there or misleads",
                hint="Move that code into a module (it is sent as source), or use the same minor version on the host: "
                f"python: names one that it has, and python_archive: uv:{OUR_PYTHON} brings one",
            )

    def have_modules(self, names: set[str]) -> None:
        """Have modules importable on the host: the user's own are sent, others must be installed there."""
        if self._home.local or names <= self._modules:
            return
        with self._lock:
            wanted = names - self._modules
            needs = find_needs(sorted(wanted))
            if needs.files:
                self._stage(self._home, needs.files)
            others = sorted(needs.installed | needs.unknown)
            lacking = self._home.ask("missing_modules", others) if others else []
            if lacking and (ours := carried(lacking))[1]:
                self._stage(self._home, ours[1])
                lacking = [name for name in lacking if name.partition(".")[0] not in ours[0]]
            if lacking:
                raise MissingModules(
                    f"it lacks {', '.join(lacking)}",
                    host=self._home.host.label,
                    modules=tuple(lacking),
                    hint=remedy(self._home.host, self._home.report, lacking),
                )
            if self._home.python is None and others:  # else all of it came from here
                here = versions_here(others)
                warn_of_differences(self._home.host.label, here, self._home.ask("versions", sorted(here)))
            self._modules |= wanted
