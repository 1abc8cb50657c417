"""The state of an instance as it leaves its server: for a move, and for a snapshot.

Lives here: `saved`, `snapshot`. Elsewhere: who asks for them (`grids/mover.py`, `grids/snapshots.py`).
"""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from grid.errors import GridError
from grid.wire import codec

Saved = tuple[bytes, list[Any], list[str]]
"""The pickle of an instance, its buffers, and modules that it needs."""


def saved(instance: Any, name: str) -> Saved:
    """Its state. Raises SerialisationError."""
    return _as_it_travels(codec.dumps(instance, f"the state of {name}"))


def snapshot(instance: Any, name: str, known: bytes, limit: int) -> tuple[bytes, Saved | None]:
    """A digest of its state; and the state, unless its digest is `known` already.

    Raises:
        SerialisationError: It can't be pickled.
        GridError: It is larger than `limit`.
    """
    dumped = codec.dumps(instance, f"the state of {name}")
    size = len(dumped.data) + sum(map(len, dumped.buffers))
    if size > limit:
        raise GridError(
            f"the state of {name} has {size} bytes, and a snapshot at most {limit}",
            hint="Limits(snapshot_bytes=...) allows more",
        )
    digest = hashlib.blake2b(dumped.data, digest_size=16)
    for part in dumped.buffers:
        digest.update(part)
    found = digest.digest()
    return found, None if found == known else _as_it_travels(dumped)


def _as_it_travels(dumped: codec.Dumped) -> Saved:
    return dumped.data, [pickle.PickleBuffer(part) for part in dumped.buffers], sorted(dumped.modules)
