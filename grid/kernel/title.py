"""What `ps` and `top` on a host call our processes: `grid agent fit.py`, `grid server Model.0/3 fit.py`.

People who share a host see whose load it is, and which script to ask about; before, each of them was `python3 -c import
sys;...`. Linux takes the command line from the process's memory, from `arg_start` to `arg_end` (proc(5)), and the short
name from /proc/self/comm. The environment lies behind and stays as it is: `remains` and `orphans` read it. All goes
through files, so that a wrong address is an error and no crash. Where there is no /proc, or where something else lies
there than our command line, names stay as they were.

Lives here: the names, writing them.
Elsewhere:  telling our processes from others: by leases and environments (`remains`), never by these names.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache

_SHORT = 15
"""Bytes of a short name (prctl(2), PR_SET_NAME)."""


def script_name() -> str:
    """The program of this process: the file's name, the package of `python -m package`, or `python`."""
    path = sys.argv[0] if sys.argv else ""
    if os.path.basename(path) == "__main__.py":
        path = os.path.dirname(path)
    name = os.path.basename(path)
    return "python" if name in ("", "-c", "-m") else name


def show(part: str, *of: str) -> None:
    """Have this process shown as `grid PART OF...`, as far as there is room; in silence where that can't be."""
    try:
        start, end = _room()
        title = " ".join(["grid", part, *filter(None, of)])
        shown = "".join(each if each.isprintable() else "?" for each in title).encode(errors="replace")
        cut = shown[: end - start - 1].decode(errors="ignore").encode()  # no half letter
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            os.pwrite(memory.fileno(), cut.ljust(end - start, b"\0"), start)
    except (OSError, ValueError, OverflowError):
        pass
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(f"grid-{part}".encode()[:_SHORT])
    except OSError:
        pass


@lru_cache(maxsize=1)
def _room() -> tuple[int, int]:
    """From where to where our command line lies; forks have theirs at the same place.

    Raises:
        OSError, ValueError: It can't be told, or something else lies there.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if len(fields) < 47:
        raise ValueError("this /proc does not say where the command line lies")
    start, end = int(fields[45]), int(fields[46])
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read()
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        if not words or os.pread(memory.fileno(), end - start, start) != words:
            raise ValueError("something else than the command line lies there")
    return start, end
