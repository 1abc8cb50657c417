"""Slaves, and the registry of those that are there: time is an argument."""

from __future__ import annotations

import pytest

from grid.tasks import (
    TaskLimits,
)
from grid.tasks.slaves import SlaveRegistry, SlaveState


@pytest.mark.row("K35")
def test_a_silent_slave_is_inactive_after_3_beats_and_removed_after_9() -> None:
    registry = SlaveRegistry()
    registry.register("a", 2, 0.0)
    assert registry.register("b", 0, 0.0).state is SlaveState.PENDING
    assert [slave.slave_id for slave in registry.active()] == ["a"]
    assert registry.check(14.9) == ([], [])
    silenced, removed = registry.check(15.0)
    assert [slave.slave_id for slave in silenced] == ["a"] and removed == []
    assert registry.slaves["a"].state is SlaveState.INACTIVE and registry.slaves["a"].room == 0
    assert registry.heartbeat("a", 20.0) and registry.slaves["a"].state is SlaveState.ACTIVE
    registry.check(40.0)
    silenced, removed = registry.check(65.0)
    assert {slave.slave_id for slave in removed} == {"a", "b"} and not registry.slaves
    assert not registry.heartbeat("a", 66.0), "one that was removed registers again"
    assert registry.register("a", 1, 67.0).state is SlaveState.ACTIVE


@pytest.mark.row("K35")
def test_times_of_the_registry_can_be_set() -> None:
    registry = SlaveRegistry(heartbeat_s=1.0, inactive_after=2, removed_after=4)
    registry.register("a", 1, 0.0)
    assert registry.check(1.9) == ([], []) and registry.check(2.0)[0] and registry.check(4.0)[1]
    with pytest.raises(ValueError, match="heartbeat_s"):
        TaskLimits(heartbeat_s=0)
