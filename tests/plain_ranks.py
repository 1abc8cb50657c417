"""A program for ranks on hosts that have Python alone: `ranked.py` needs NumPy there."""

from __future__ import annotations

import sys
from typing import Any


def pythons(comm: Any, code: bool) -> Any:
    """Of all ranks; `code`: rank 0 sends a function by value besides."""
    found = comm.allgather(tuple(sys.version_info[:2]))
    return (found, comm.bcast((lambda: 1) if comm.rank == 0 else None)) if code else found
