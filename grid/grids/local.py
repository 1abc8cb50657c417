"""The grid on this machine alone: processes, no ssh. The embedded default, and what tests run on."""

from __future__ import annotations

from typing import Any

from grid.grids.grid import Grid, local_host


class LocalGrid(Grid):
    """`n` servers on this machine for each published service (default: one for each core).

    Servers can import what this process can, and run in the staging directory. `publish` waits for all of them.
    """

    def __init__(self, n: int | None = None, **kw: Any) -> None:
        kw.setdefault("wait", "all")
        super().__init__([local_host(n)], **kw)
