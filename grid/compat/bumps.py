"""The points of a fit with bumps (and refl1d, which stands on it) are evaluated by a grid's servers.

    from grid.compat.bumps import on_grid

    with SSHGrid(["node1", "node2"]) as g, on_grid(g):
        bumps.fitters.fit(problem, method="dream", parallel=0)

bumps chooses the class of its mapper by itself, and has no hook for another one: `bumps.mapper` documents three static
methods (`start_worker`, `start_mapper`, `stop_mapper`), and all of bumps asks its `MPMapper` for them where a fit is
parallel. `on_grid` puts ours in its place in all modules of bumps, and takes it back at the end of the block. For a
`FitDriver`, which takes a function, `GridMapper(g).start_mapper(problem)` is that function.

A fit has the same numbers as a serial one: points are drawn here, and their values come back in order.

Lives here: `GridMapper`, `on_grid`.
Elsewhere:  the command `grid bumps` (`cli/bumps.py`), maps (`services/mapping.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

from bumps import mapper as mappers

from grid.errors import GridError

_METHOD = "nllf"
"""Of a problem: the negative log likelihood of one point, which is all that a mapper is asked for."""


class MapsPoints(Protocol):
    """A grid, as far as a fit uses it."""

    @property
    def n_hosts(self) -> int: ...
    def _publish_lasting(self, instance: Any, restarts: int) -> str: ...
    def map(self, service_id: str, method: str, *iterables: Iterable[Any], retries: int = 0) -> Iterable[Any]: ...
    def terminate(self, service_id: str | None = None) -> None: ...
    def ishalted(self) -> bool: ...


class GridMapper(mappers.BaseMapper):  # type: ignore[misc]
    """A mapper of bumps over a grid; it takes the place of `bumps.mapper.MPMapper`, of which bumps uses the class.

    Args:
        grid: A grid that runs; it stays the caller's.
        retries: How often a point is evaluated again when its server died with it. Lost servers are replaced as often.
    """

    has_problem = False
    timestamps = ()
    """For a report of bumps; its `SerialMapper` (1.0.5) looks here at its end. A trace of the grid has more."""

    def __init__(self, grid: MapsPoints, *, retries: int = 2) -> None:
        if not hasattr(grid, "publish"):
            raise GridError(f"the mapper got {type(grid).__name__} and no grid", hint="Say GridMapper(g)")
        self._grid, self._retries = grid, retries
        self._service_id: str | None = None

    def start_worker(self, problem: Any) -> None:
        """bumps calls it once at its start: servers start with their problem, so here is nothing to do."""

    def start_mapper(
        self, problem: Any, modelargs: Any = None, cpus: int = 0
    ) -> Callable[[Iterable[Any]], list[float]]:
        """Have copies of `problem` on all servers, in place of those of an earlier fit; how many is the grid's affair.

        Returns:
            A function of points, each an array of the parameters: their values of `nllf`, in order.

        Raises:
            What `publish` raises: hosts that lack bumps or the model's modules are named.
        """
        self.stop_mapper()
        restarts = self._retries * max(1, self._grid.n_hosts)
        service_id = self._service_id = self._grid._publish_lasting(problem, restarts)
        grid, retries = self._grid, self._retries
        return lambda points: list(grid.map(service_id, _METHOD, points, retries=retries))

    def stop_mapper(self, mapper: Any = None) -> None:
        """The fit has ended: its copies go."""
        service_id, self._service_id = self._service_id, None
        if service_id is not None and not self._grid.ishalted():
            self._grid.terminate(service_id)


@contextmanager
def on_grid(grid: MapsPoints, *, retries: int = 2) -> Iterator[GridMapper]:
    """Within the block all parallel fits of bumps are evaluated by a grid's servers, those of its web page, too.

    A fit is parallel unless it is told to use one core: `parallel=1` is the default of `bumps.fitters.fit`, and
    `--parallel=1` says so on bumps' command line. One block at a time.

    Args:
        grid: A grid that runs; it stays the caller's.
        retries: See `GridMapper`.
    """
    theirs: Any = mappers.MPMapper
    if isinstance(theirs, GridMapper):
        raise GridError("another block has its grid in bumps already", hint="End it first, or use that grid")
    import_module("bumps.webview.server.fit_thread")  # `fit` loads it, and it takes the name at its import
    mapper = GridMapper(grid, retries=retries)
    _put(mapper, theirs)
    try:
        yield mapper
    finally:
        _put(theirs, mapper)
        mapper.stop_mapper()


def _put(new: Any, old: Any) -> None:
    """In all modules of bumps and refl1d, those that took the name at their import among them."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("bumps", "refl1d"):
            for key in [key for key, value in vars(module).items() if value is old]:
                setattr(module, key, new)
