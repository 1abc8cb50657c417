"""The grid over hosts that are reached by ssh."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from grid.grids.grid import Grid
from grid.hosts import Host

_KNOWN = 6
"""Positions after `hosts`, up to `shared_temp_path`. What stood behind it in older grids is not needed here."""


class SSHGrid(Grid):
    """A grid over `hosts`: names as ssh knows them, or `Host` objects. Each gives `use_n_cpu` servers to a service.

    Connections follow ~/.ssh/config, known_hosts and the agent; an unknown host key is refused. Arguments are those of
    `Grid`; times and bounds are one of them: `limits=Limits(stop_s=2)`.
    """

    def __init__(self, hosts: Sequence[str | Host], *args: Any, **kw: Any) -> None:
        if of_old := args[_KNOWN:]:
            warnings.warn(
                f"SSHGrid takes no name server, no terminate_during_publish and no method: {of_old} are ignored",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__init__(hosts, *args[:_KNOWN], **kw)
