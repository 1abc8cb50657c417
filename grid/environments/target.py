"""What a host's Python is, as far as it decides which wheels run there.

Lives here: `Target`, its tags, best first, and its answers to markers of requirements.
Elsewhere:  asking the host (`kernel/environments.py`), the choice of a wheel (`fitting.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms

from grid.environments.platforms import platform_tags

_LEFT_OUT = ("platform_release", "platform_version")
"""Markers that differ with each update of a kernel: an environment would be made anew for nothing."""


@dataclass(frozen=True)
class Target:
    """A Python on a host. Two that are alike in this take the same wheels."""

    version: tuple[int, ...]  # (3, 12, 1)
    cache_tag: str  # cpython-312
    platform: str  # of `sysconfig.get_platform()`: linux-x86_64
    libc: tuple[str, str]  # ("glibc", "2.36"); ("", "") with musl
    markers: Mapping[str, str] = field(hash=False)

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Target:
        """From what a host said of its interpreter; see `kernel/environments.py`."""
        kind, release = about["libc"]
        markers = {**about["markers"], **dict.fromkeys(_LEFT_OUT, "")}
        return cls(tuple(about["version"]), about["cache_tag"], about["platform"], (kind, release), markers)

    @property
    def python(self) -> str:
        """Such as `3.12`."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def key(self) -> str:
        """The same for all that take the same wheels."""
        facts = [list(self.version), self.cache_tag, self.platform, list(self.libc), sorted(self.markers.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @cached_property
    def tags(self) -> dict[Tag, int]:
        """Each tag of a wheel that runs there, with its rank: 0 is the best."""
        minor = f"{self.version[0]}{self.version[1]}"
        free_threaded = "t" if self.cache_tag.endswith("t") else ""
        platforms = self.platforms
        both = (self.version[0], self.version[1])
        own = cpython_tags(both, abis=[f"cp{minor}{free_threaded}"], platforms=platforms)
        pure = compatible_tags(both, f"cp{minor}", platforms)
        return {tag: rank for rank, tag in reversed(list(enumerate([*own, *pure])))}

    @property
    def platforms(self) -> list[str]:
        """Platform tags, best first."""
        found = re.fullmatch(r"macosx-(\d+)\.(\d+)-(\w+)", self.platform)
        if found is not None:
            return list(mac_platforms((int(found[1]), int(found[2])), found[3]))
        return platform_tags(self.platform, self.libc)

    def __str__(self) -> str:
        libc = f", {' '.join(self.libc)}" if self.libc[0] else ""
        return f"Python {self.python} ({self.platform}{libc})"
