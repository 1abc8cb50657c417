"""The nodes of a batch job, and files of names from which they are read.

Lives here: `Node`, names one by one, the bound on their number.
Elsewhere:  each system's own forms (`pbs.py`, `slurm.py`, `sge.py`), the job as a whole (`launch/allocation.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from grid.errors import AllocationError

MOST = 1_000_000
"""Nodes or slots of an allocation, at most: more is a slip, and would fill the memory."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True)
class Node:
    """One machine of an allocation and the number of our slots on it."""

    name: str
    slots: int


def count_nodes(names: list[str], source: str) -> tuple[Node, ...]:
    """Nodes from a name for each slot, in order of their first mention.

    Raises:
        AllocationError: No name, or one that is none; `source` says where it was read.
    """
    if not names:
        raise AllocationError(f"{source} names no node", hint="Ask for nodes when submitting")
    for name in names:
        if not _NAME.match(name):
            raise AllocationError(f"{source} names a node {name!r}", hint="That is no host name")
    return tuple(Node(name, slots) for name, slots in Counter(names).items())  # keeps the order of first mention


def check_size(count: int, source: str) -> None:
    """Refuse more than `MOST`."""
    if count > MOST:
        raise AllocationError(f"{source} tells of more than {MOST} nodes or slots", hint="Is it really that variable?")


def content_of(environ: Mapping[str, str], name: str, read: Callable[[str], str]) -> str:
    """Text of the file that a variable names.

    Raises:
        AllocationError: The variable is not set, or its file can't be read.
    """
    path = environ.get(name)
    if not path:
        raise AllocationError(f"the variable {name} is not set", hint="Run inside a job of that batch system")
    try:
        return read(path)
    except (OSError, ValueError) as exc:  # not there, or not text
        raise AllocationError(
            f"{name} names {path}, which can't be read ({getattr(exc, 'strerror', None) or exc})",
            hint="It exists on the job's first node only: run the script there",
        ) from exc


def read_text(path: str) -> str:
    """A file's text; the usual `read` of `content_of`."""
    return Path(path).read_text()


def same_machine(one: str, other: str) -> bool:
    """Whether two names are one machine's: equal, or equal up to the first dot."""
    return one == other or one.partition(".")[0] == other.partition(".")[0]
