"""Every kind of grid is held to the same promises: on this machine, and over real ssh hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from grid import Host, LocalGrid, SSHGrid
from grid.grids.abstract import AbstractGrid
from grid.testing.grids import CHECKS, ROWS
from grid.wire.bulk import Lane
from tests.lab import Lab

MARKED = [pytest.param(check, marks=pytest.mark.row(*ROWS[check.__name__]), id=check.__name__) for check in CHECKS]


@pytest.fixture(scope="module")
def local() -> Iterator[AbstractGrid]:
    with LocalGrid(3, output=None) as g:
        g.warm = g.publish([])  # the agent stays from test to test
        yield g


@pytest.fixture(scope="module")
def ssh(lab: Lab) -> Iterator[AbstractGrid]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        with SSHGrid([Host("s1", n_cpu=2), Host("s2"), Host("s3", transport="tunnel")], output=None) as g:
            g.warm = g.publish([], wait="all")
            yield g


@pytest.fixture
def clean() -> Callable[[AbstractGrid], None]:
    def clean(g: AbstractGrid) -> None:
        for sid in list(g.servers):
            if sid != g.warm:
                g.terminate(sid)
        for helper in g._engine.fleet._helpers:  # of services that were still being published
            helper.join(20)
        for home in g._engine.fleet.homes:  # a second stream is kept where two were wanted at once
            if isinstance(home.blobs, Lane):
                home.blobs.renew()

    return clean


@pytest.mark.row("D06")
@pytest.mark.parametrize("check", MARKED)
def test_on_this_machine(check: Callable[[AbstractGrid], None], local: AbstractGrid, clean: Callable) -> None:
    check(local)
    clean(local)


@pytest.mark.lab
@pytest.mark.row("D06")
@pytest.mark.parametrize("check", MARKED)
def test_over_ssh(check: Callable[[AbstractGrid], None], ssh: AbstractGrid, clean: Callable) -> None:
    check(ssh)
    clean(ssh)
