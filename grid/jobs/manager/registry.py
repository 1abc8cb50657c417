"""Which services a server has, and in which versions. Nothing is ever imported because a client names it.

Lives here: `ServiceRegistry`.
Elsewhere:  what a service is (`host/service.py`).
"""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

from grid.arguments import check
from grid.jobs.host.errors import RequestError, UnknownJobService
from grid.jobs.host.plain import from_plain, to_plain
from grid.jobs.host.request import check_plain
from grid.jobs.host.service import Service
from grid.slots.needs import Needs


class _Source:
    """The file of a module, as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = self._seen = _stamp(path)
        self._digest = _digest(path)
        self._changed = False

    @classmethod
    def of(cls, service: type[Service]) -> _Source | None:
        """Of the module that defines a service; None for code that no host reads from a file of ours."""
        module = sys.modules.get(service.__module__)
        name = getattr(module, "__file__", None)
        if service.__module__ in ("__main__", "__mp_main__") or not name or not name.endswith(".py"):
            return None
        try:
            return cls(Path(name))
        except OSError:
            return None

    def has_changed(self) -> bool:
        """Whether its contents differ; a file that was only touched does not count."""
        try:
            stamp = _stamp(self.path)
            if stamp != self._seen:
                self._changed = stamp != self._stamp and _digest(self.path) != self._digest
                self._seen = stamp
        except OSError:
            return False  # removed, or being replaced: what is loaded is all there is
        return self._changed


def _stamp(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_mtime_ns, info.st_size


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ServiceRegistry:
    """Services by name and version. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._classes: dict[str, dict[str, type[Service]]] = {}
        self._sources: dict[type[Service], _Source] = {}

    def add(self, cls: type[Service]) -> type[Service]:
        """Make a service available; the same name and version again replaces it (a class that was defined anew)."""
        if not (isinstance(cls, type) and issubclass(cls, Service)):
            raise RequestError(f"{cls!r} is no service class", hint="Derive it from grid.jobs.Service")
        if cls.version is None:
            raise AttributeError(f"the service class {cls.__qualname__} has no version: set one, e.g. version = '1'")
        check(f"needs of {cls.__qualname__}", cls.needs, Needs | None)
        source = _Source.of(cls)
        with self._lock:
            self._classes.setdefault(cls.name(), {})[str(cls.version)] = cls
            if source is not None and cls not in self._sources:
                self._sources[cls] = source
        return cls

    def edited(self, cls: type[Service]) -> str:
        """The file of a service, if it is not as it was when the service was registered; else nothing.

        Hosts would run the new code, under a version that stands for the old one.
        """
        source = self._sources.get(cls)
        return str(source.path) if source is not None and source.has_changed() else ""

    def classes(self, name: str) -> list[type[Service]]:
        """Those of that name."""
        with self._lock:
            return list(self._classes.get(name, {}).values())

    def services(self) -> dict[str, list[str]]:
        """Name -> versions."""
        with self._lock:
            return {name: sorted(versions) for name, versions in sorted(self._classes.items())}

    def find(self, name: str, version: str) -> type[Service]:
        """The class that takes requests of that version.

        Raises:
            UnknownJobService: No such service, or none for that version; the message names both versions.
        """
        with self._lock:
            versions = dict(self._classes.get(name, {}))
        if version in versions:
            return versions[version]
        for cls in versions.values():
            if cls.accepts(version):
                return cls
        known = self.services()
        if not versions:
            near = ", ".join(known) or "none at all"
            raise UnknownJobService(
                f"this server has no service {name!r}", hint=f"It has {near}; register it there", available=known
            )
        raise UnknownJobService(
            f"the request is for version {version} of {name}, and this server has {', '.join(sorted(versions))}",
            hint="Use a request of a version that is there",
            available=known,
        )

    def fit(self, plain: dict[str, Any]) -> tuple[type[Service], dict[str, Any]]:
        """The class for a saved request, and the request as that class has it: brought up to date if it can be."""
        check_plain(plain)
        name, version = plain["service"], plain["version"]
        try:
            return self.find(name, version), plain
        except UnknownJobService:
            with self._lock:
                candidates = sorted(self._classes.get(name, {}).items(), reverse=True)
            for newer, cls in candidates:
                data = cls.upgrade(version, from_plain(plain["data"]))
                if data is not None:
                    return cls, {**plain, "version": newer, "data": {k: to_plain(v, k) for k, v in data.items()}}
            raise
