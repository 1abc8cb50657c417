"""The answers of a grid that was given its hosts: none is on its way, and a host that ends takes no servers in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from grid.grids.source import HostSource
from grid.grids.tending import Pilots

pytestmark = pytest.mark.row("G28", "B01")


def test_a_grid_with_hosts_of_its_own_waits_for_none() -> None:
    source = HostSource()
    assert not source.is_expecting() and not source.is_hoping() and source.more_may_come()
    assert source.standing_by() == [] and source.on_their_way() == [] and source.status() == {}
    assert source.homes_to_be() is None and source.patience_s is None
    for step in (source.begin, source.begin, source.wake, source.end):
        step()


@pytest.mark.parametrize(("ends_at", "takes"), [(None, True), (0.0, False), (1e12, False)])
def test_servers_move_only_to_what_has_no_end(ends_at: float | None, takes: bool) -> None:
    assert HostSource().takes_in(SimpleNamespace(ends_at=ends_at), 5.0) is takes  # type: ignore[arg-type]


def test_hosts_of_batch_jobs_answer_the_same_questions() -> None:
    asked = {name for name in vars(HostSource) if not name.startswith("_")}
    assert issubclass(Pilots, HostSource) and {"begin", "end", "homes_to_be", "is_expecting"} <= asked & set(
        vars(Pilots)
    )
