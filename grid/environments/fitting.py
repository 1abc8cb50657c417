"""Which wheel of a distribution goes to a host, and the name of the environment that comes of all of them.

Lives here: `PinnedPackage` (a distribution of one version, with the wheels that exist), `Offered` (one of those),
            `choose`, `name_of`.
Elsewhere:  where they come from (`wanted.py`, `locks.py`), getting them (`fetching.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from grid.environments.target import Target
from grid.errors import PackagesError

FORMAT = 1
"""Of environments on hosts: another number makes all of them anew."""
_SHOWN = 8


@dataclass(frozen=True)
class Offered:
    """A wheel that exists somewhere. `sha256` is empty where nobody has said it."""

    filename: str
    sha256: str = ""
    url: str = ""  # http(s):, file:, or a path of this machine


@dataclass(frozen=True)
class PinnedPackage:
    """A distribution of one version. `source`: what pip makes a wheel of where there is none, as a requirement."""

    name: str
    version: str
    wheels: tuple[Offered, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Wheel:
    """A wheel that is here."""

    filename: str
    sha256: str
    size: int

    @property
    def project(self) -> str:
        """The name of its project, as indexes compare it."""
        return project_of(self.filename)

    @property
    def version(self) -> str:
        """As the file's name has it."""
        return self.filename.split("-")[1]


def project_of(filename: str) -> str:
    """The project of a wheel's file name, as indexes compare it."""
    return str(canonicalize_name(filename.split("-")[0]))


def rank_of(filename: str, target: Target) -> int | None:
    """How well a wheel fits there: 0 is best; None if it does not, or the name is no wheel's."""
    try:
        *_, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    return min((target.tags[tag] for tag in tags if tag in target.tags), default=None)


def choose(pinned: PinnedPackage, target: Target) -> Offered:
    """The wheel that fits best; of two that fit alike the one with the higher build number.

    Raises:
        PackagesError: None fits; names package, version, the tags that exist.
    """
    fitting = []
    for offered in pinned.wheels:
        rank = rank_of(offered.filename, target)
        if rank is not None:
            build = parse_wheel_filename(offered.filename)[2]
            fitting.append((rank, tuple(-part if isinstance(part, int) else part for part in build), offered))
    if fitting:
        return min(fitting, key=lambda each: each[:2])[2]
    raise no_wheel(pinned.name, pinned.version, target, (offered.filename for offered in pinned.wheels))


def no_wheel(name: str, version: str, target: Target, filenames: Iterable[str]) -> PackagesError:
    """The error of a package that has no wheel for a host."""
    exist = list(dict.fromkeys("-".join(one.removesuffix(".whl").split("-")[-3:]) for one in filenames))
    more = f" and {len(exist) - _SHOWN} more" if len(exist) > _SHOWN else ""
    told = f"there are wheels for {', '.join(exist[:_SHOWN])}{more}" if exist else "there are no wheels of it"
    return PackagesError(
        f"no wheel of {name} {version} fits {target}; {told}",
        hint="Choose a version that has one, or a host's Python (python:) that one fits; or build it there or on a "
        f"machine like it (`pip wheel {name}=={version}`), and lead pip there by find-links",
        package=name,
        version=version,
        tags=tuple(exist),
    )


def name_of(wheels: Iterable[Wheel], about_base: str) -> str:
    """The hash that names an environment: of the wheels in it, by content, and the interpreter that it stands on.

    Args:
        about_base: Version and path of that interpreter on the host.
    """
    content = sorted((wheel.project, wheel.filename, wheel.sha256) for wheel in wheels)
    return hashlib.sha256(json.dumps([FORMAT, about_base, content]).encode()).hexdigest()[:16]
