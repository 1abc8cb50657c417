"""The grid on this machine alone: processes, no ssh. The embedded default, and what tests run on."""

from __future__ import annotations

from typing import Any

from grid.grids.choose import all_that_fit, local_host
from grid.grids.grid import Grid


class LocalGrid(Grid):
    """`n` servers on this machine for each published service (default: one for each core).

    Servers can import what this process can, and run in the staging directory. `publish` waits for all of them; where
    the machine has no room for all (`ulimit`) it goes on with the others, and says so on stderr.

    Args:
        n: Servers for each service; default: one for each core.
        python: Another interpreter than this one, with pyzmq and dill; a frozen application must name one.

    All arguments of `Grid` but its hosts go as well; times and bounds are one of them: `limits=Limits(stop_s=2)`.
    """

    def __init__(self, n: int | None = None, *, python: str | None = None, **kw: Any) -> None:
        super().__init__([local_host(n, python)], **all_that_fit(kw))
