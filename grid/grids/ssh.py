"""The grid over hosts that are reached by ssh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grid.grids.grid import Grid
from grid.hosts import Host


class SSHGrid(Grid):
    """A grid over `hosts`: names as ssh knows them, or `Host` objects. Each gives `use_n_cpu` servers to a service.

    Connections follow ~/.ssh/config, known_hosts and the agent; an unknown host key is refused.
    """

    def __init__(self, hosts: Sequence[str | Host], *args: Any, **kw: Any) -> None:
        super().__init__(hosts, *args, **kw)
