"""What code of ours that runs inside of a server may know of its process: where sockets may lie, and the grid's keys.

Lives here: `Premises`, and those of this process.
Elsewhere:  who fills them in (`serve`), who opens sockets of its own with them (`grid/ranks/lane.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grid.limits import Limits
from grid.wire.keys import Keys


@dataclass(frozen=True)
class Premises:
    """`sockets`: a private directory; files there named `p<peer>.*` go with the server. `keys`: None on one machine."""

    sockets: Path
    peer: int
    address: str
    keys: Keys | None
    limits: Limits


_ours: list[Premises] = []


def settle(premises: Premises) -> None:
    """This process is a server with these."""
    _ours[:] = [premises]


def here() -> Premises | None:
    """Those of this process; None where it is no server of our kernels."""
    return _ours[0] if _ours else None
