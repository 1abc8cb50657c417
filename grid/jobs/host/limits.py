"""Limits of one job: CPU time of its thread, memory and file size of its process while it runs.

Lives here: `Limited`.
Elsewhere:  where they are declared (`Service.limits`).
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Mapping
from typing import Any

_KINDS = {"memory_bytes": resource.RLIMIT_AS, "file_bytes": resource.RLIMIT_FSIZE}


class Limited:
    """Made in the job's own thread; soft limits of the process are set until `lift`.

    `cpu_s` counts the thread that runs the service; each exchange checks it. Beyond `memory_bytes` (of address
    space, in addition to what the process has at the start) Python raises MemoryError, beyond `file_bytes` OSError.
    """

    def __init__(self, limits: Mapping[str, float]) -> None:
        unknown = set(limits) - {"cpu_s", *_KINDS}
        if unknown:
            raise ValueError(f"no limit is called {sorted(unknown)[0]!r}; there are cpu_s, {', '.join(_KINDS)}")
        self._cpu_s = limits.get("cpu_s")
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._began = time.clock_gettime(self._clock)
        self._before: list[tuple[Any, Any]] = []
        for name, kind in _KINDS.items():
            if name in limits:
                soft, hard = resource.getrlimit(kind)
                most = int(limits[name]) + (_address_space() if name == "memory_bytes" else 0)
                self._before.append((kind, (soft, hard)))
                resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))

    def exceeded(self) -> str | None:
        """The resources that the job has used up, in words."""
        if self._cpu_s is None:
            return None
        with contextlib.suppress(OSError):  # the thread has ended
            if time.clock_gettime(self._clock) - self._began > self._cpu_s:
                return f"it used more than {self._cpu_s:g} s of CPU time (limit cpu_s)"
        return None

    def lift(self) -> None:
        """Set the process's limits back."""
        for kind, before in self._before:
            resource.setrlimit(kind, before)
        self._before = []


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
