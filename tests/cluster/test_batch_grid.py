"""A grid of pilots on a real batch system is held to the same promises as every other grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from grid import BatchGrid
from grid.grids.abstract import AbstractGrid
from grid.testing import grids
from tests.lab import Lab

pytestmark = pytest.mark.slurm

MARKED = [
    pytest.param(check, marks=pytest.mark.row(*grids.ROWS[check.__name__]), id=check.__name__) for check in grids.CHECKS
]


@pytest.fixture(scope="module")
def shared(slurm: Lab) -> Iterator[AbstractGrid]:
    """One grid of three nodes for all, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(slurm.ssh_config))
        with BatchGrid("head", nodes=3, walltime=600, wait="all", output=None) as g:
            g.warm = g.publish([])  # type: ignore[attr-defined]
            yield g
    slurm.hosts["head"].run(["rm", "-rf", "/home/mara/.grid"])


@pytest.mark.row("B01", "B15", "D06")
@pytest.mark.parametrize("check", MARKED)
def test_a_batch_grid_keeps_every_promise_of_a_grid(
    check: Callable[[AbstractGrid], None], shared: AbstractGrid
) -> None:
    check(shared)
    for sid in list(shared.servers):
        if sid != shared.warm:  # type: ignore[attr-defined]
            shared.terminate(sid)
