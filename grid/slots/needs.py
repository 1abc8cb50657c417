"""What one server needs of its host, and sizes as people write them: "8G".

Lives here: `Needs`, sizes.
Elsewhere:  what a host has (`resources`), whether it meets needs (`choose`).
"""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from numbers import Integral
from typing import Any

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)


def shown_value(value: Any) -> str:
    """A value in an error, in one short line."""
    return reprlib.repr(value).replace("\n", " ")


def size(value: Any, what: str = "memory") -> int:
    """Bytes of a size: a number of bytes, or text such as "8G", "512M", "1.5 GiB"; units are powers of 1024.

    Raises:
        ValueError: Not of that form, or nothing at all; the message begins with `what`.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        found = int(value)
    else:
        match = _SIZE.match(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(
                f"{what} must be a size such as '8G' or '512M', or a number of bytes, not {shown_value(value)}"
            )
        found = int(float(match[1]) * _UNITS[match[2].upper()])
    if found <= 0:
        raise ValueError(f"{what} must be more than nothing, not {value!r}")
    return found


def shown(number: int) -> str:
    """Bytes as people read them: "8G", "1.5G"."""
    for unit in ("T", "G", "M", "K"):
        if number >= _UNITS[unit]:
            return f"{number / _UNITS[unit]:.1f}".removesuffix(".0") + unit
    return f"{number} bytes"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What each server of a service needs of its host.

    Args:
        cores: Cores of its own, which no other server of the grid runs on, all of one NUMA node if a node is large
            enough. It runs as many threads. Default: no core of its own, and its share of the threads.
        memory: How much it may have; a server that takes more is ended, with that as its cause. Bytes, or text: "8G".
        gpus: Devices of its own, which no other server has, of this grid or of another one on that host. Other devices
            it can't see.
    Raises:
        ValueError: A number or a size that makes no sense.
    """

    cores: int | None = None
    memory: int | str | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        _check_number("cores", self.cores, 1)
        _check_number("gpus", self.gpus, 0)
        if self.memory is not None:
            object.__setattr__(self, "memory", size(self.memory, "needs: memory"))

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes; None: it was not said."""
        assert not isinstance(self.memory, str)
        return self.memory

    def cover(self, other: Needs) -> bool:
        """Whether a server with these has what the other ones ask for."""
        enough = (self.cores or 0) >= (other.cores or 0) and self.gpus >= other.gpus
        limit, least = self.memory_bytes, other.memory_bytes
        return enough and (limit is None or limit >= (least or 0))

    def __str__(self) -> str:
        said = [f"{self.cores} core{'s' * (self.cores > 1)}"] if self.cores else []
        said += [f"{shown(self.memory_bytes)} of memory"] if self.memory_bytes else []
        said += [f"{self.gpus} device{'s' * (self.gpus > 1)}"] if self.gpus else []
        return ", ".join(said) or "nothing"

    def plain(self) -> dict[str, Any]:
        """As it travels; `Needs(**plain)` is the same again."""
        return {"cores": self.cores, "memory": self.memory, "gpus": self.gpus}


def _check_number(name: str, value: Any, least: int) -> None:
    if value is None and name == "cores":
        return
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"needs: {name} must be a whole number of at least {least}, not {shown_value(value)}")
