"""Platform tags of wheels, from what a host says of its system and its C library.

Lives here: `platform_tags`. Elsewhere: all tags of a Python (`target.py`), which needs the library packaging.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


def platform_tags(name: str, libc: Iterable[str]) -> list[str]:
    """Platform tags of wheels that run there, best first.

    Args:
        name: `sysconfig.get_platform()` of the host, such as `linux-x86_64`.
        libc: Of `platform.libc_ver()`: `("glibc", "2.36")`; empty with musl.
    Source: PEP 600 (manylinux_x_y), PEP 656 (musllinux).
    """
    kind, version = libc
    system, _, machine = name.partition("-")
    if system != "linux":
        return [re.sub(r"[-.]", "_", name)]
    machine = machine.replace("-", "_")
    if kind != "glibc":
        return [f"musllinux_1_{minor}_{machine}" for minor in (2, 1)]
    numbers = numbers_of(version)
    newest = numbers[1] if len(numbers) > 1 else 17
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
    return [*tags, f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}", f"linux_{machine}"]


def numbers_of(version: str) -> tuple[int, ...]:
    """The numbers in a version, in order."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
