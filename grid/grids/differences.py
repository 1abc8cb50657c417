"""Packages of other versions on a host than here, where no environment travels: told once, as nothing else shows it.

Lives here: which packages bring the modules that a message needs, and the line.
Elsewhere:  environments, in which nothing differs (`packages.py`), modules that a host lacks (`needs.py`).
"""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache

from grid.causes import listed

logger = logging.getLogger(__name__)

_told: set[tuple[str, str]] = set()  # project, version there
_lock = threading.Lock()


def versions_here(modules: Iterable[str]) -> dict[str, str]:
    """The packages that bring these top-level modules here, with their versions; what no package brings is left out."""
    found = {}
    for module in modules:
        for project in (module, *_projects().get(module, ())[:1]) if not _version(module) else (module,):
            if version := _version(project):
                found[project] = version
    return found


@lru_cache(maxsize=1)
def _projects() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _version(project: str) -> str:
    try:
        return importlib.metadata.version(project)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""


def warn(host: str, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Tell which of these differ; what was told of another host already is left out."""
    with _lock:
        differing = {name: there[name] for name in sorted(here) if there.get(name, here[name]) != here[name]}
        fresh = {name: version for name, version in differing.items() if (name, version) not in _told}
        _told.update(fresh.items())
    if not fresh:
        return
    logger.warning(
        "host %r has %s. Results may differ; environment='here' (or environment: here in the hosts file) brings yours",
        host,
        listed([f"{name} {version} (here {here[name]})" for name, version in fresh.items()]),
    )
