"""Where on a host things are that tests may move.

Lives here: the root of /proc and /sys, the directory of locks.
Elsewhere:  what is read there (`find`), what is locked there (`kernel/devices.py`).
"""

from __future__ import annotations

import os
from pathlib import Path


def host_root() -> Path:
    """Where /proc and /sys of the host are: a test makes one of its own."""
    return Path(os.environ.get("GRID_HOST_ROOT") or "/")


def locks_dir() -> Path:
    """Where the locks of devices are; the same for all users of a host."""
    return Path(os.environ.get("GRID_LOCKS_DIR") or "/tmp")
