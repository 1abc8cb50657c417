"""A blob or a file from one host to another: straight over the lane where the port can be reached, else by the client.

The client asks the agent that shall have it; that one calls the other agent, and both show the grid's certificate.
Where a firewall or a tunnel is in the way the client reads it and writes it there, and does not ask again.

Lives here: the choice of the way. Elsewhere: the lane (`wire/bulk.py`), the agent's part (`kernel/agent.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from grid.errors import ConnectError

if TYPE_CHECKING:
    from grid.grids.home import Home
    from grid.wire.remote_path import Whereabouts

logger = logging.getLogger(__name__)

_SLOWEST = 1e6
"""Bytes per second: what takes longer is taken for stuck."""


def carry(source: Home, target: Home, blob: str, sizes: Sequence[int]) -> Callable[[], str]:
    """Begin to copy a blob; the function waits for its arrival and gives its name on `target`.

    Raises (the function):
        ConnectError: One of the hosts was lost. DiskError: There is no room for it.
    """
    way = source.lane_address()
    if target.local or way is None or way in target.unreached:
        return lambda: _through_here(source, target, blob, sizes)
    address, port = way
    arrival = target.ask_later("fetch", blob, address, port, timeout=target.limits.control_s + sum(sizes) / _SLOWEST)

    def arrived() -> str:
        try:
            name: str = arrival()
        except ConnectError as exc:
            logger.info("no straight way from %s to %s (%s)", source.host.label, target.host.label, exc.what)
            target.unreached.add(way)
            return _through_here(source, target, blob, sizes)
        return name

    return arrived


def carry_file(source: Home, target: Home, at: Whereabouts) -> bool:
    """Copy a file of one store to another straight, and wait for that; False: there is no way, so nothing was done.

    Raises:
        DiskError: There is no room for it. StagingError: It was changed on the way, or is not there any more.
    """
    way = source.lane_address()
    if target.local or way is None or way in target.unreached:
        return False
    timeout = target.limits.control_s + at.size / _SLOWEST
    try:
        target.ask("fetch_file", at.file, *way, at.sha256, timeout=timeout)
    except ConnectError as exc:
        if not target.up:
            raise
        logger.info("no straight way from %s to %s (%s)", source.host.label, target.host.label, exc.what)
        target.unreached.add(way)
        return False
    return True


def _through_here(source: Home, target: Home, blob: str, sizes: Sequence[int]) -> str:
    return target.store().write(source.store().read(blob, sizes, drop=False))
