"""Hosts that are there for a master: workers come and go, hosts fall silent, are given up, and come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grid.tasks import TaskLimits
from grid.tasks.attendance import Attendance
from grid.tasks.schedule import Pack
from grid.tasks.slaves import SlaveRegistry, SlaveState

LIMITS = TaskLimits(heartbeat_s=1.0, inactive_after=2, removed_after=4)

pytestmark = pytest.mark.row("K35")


class Proxy:
    """One server of ours."""

    def __init__(self, host: str, number: int = 0) -> None:
        self._server = SimpleNamespace(name=f"runner/{number}", host=SimpleNamespace(label=host))

    def register(self) -> None: ...


class World:
    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.registry = SlaveRegistry(LIMITS.heartbeat_s, LIMITS.inactive_after, LIMITS.removed_after)
        self.back: list[Pack] = []
        self.now = 100.0
        self.attendance = Attendance(
            self,  # type: ignore[arg-type]
            self.registry,
            LIMITS,
            self.back.append,
            lambda: self.now,
        )

    def status(self) -> dict[str, Any]:
        return {"homes": [{"host": host, "state": "unreachable"} for host in self.silent]}

    def workers(self, host: str) -> int:
        return self.registry.slaves[host].workers


def test_workers_are_counted_as_they_come_and_slaves_rated_when_their_number_changes() -> None:
    world = World()
    for number in range(3):
        world.attendance.hired(Proxy("n1", number))  # type: ignore[arg-type]
    assert world.workers("n1") == 3 and world.attendance.is_changed
    world.attendance.is_changed = False
    world.attendance.count(world.attendance.managers["n1"])
    assert not world.attendance.is_changed, "nothing is new"
    world.attendance.resize("n1", 1)
    assert world.workers("n1") == 1 and world.attendance.is_changed
    world.attendance.resize("n1", 3)
    assert world.workers("n1") == 3


def test_without_any_server_idle_workers_are_gone_and_the_reason_is_kept() -> None:
    world = World()
    world.attendance.hired(Proxy("n1"))  # type: ignore[arg-type]
    busy = world.attendance.managers["n1"].staff.hire(Proxy("n1", 1))  # type: ignore[arg-type]
    busy.packs = 1
    world.attendance.nobody("the cable is cut")
    assert world.attendance.why_none == "the cable is cut"
    assert world.attendance.managers["n1"].staff.everybody == [busy], "its pack comes back with its loss"


def test_a_silent_host_gets_nothing_is_given_up_and_may_come_back() -> None:
    world = World()
    for host in ("n1", "n2"):
        world.attendance.hired(Proxy(host))  # type: ignore[arg-type]
    world.silent = {"n2"}
    states, lost = [], []
    for _ in range(5):
        world.now += 1.0
        lost += world.attendance.look("service")
        slave = world.registry.slaves.get("n2")
        states.append(slave.state if slave is not None else None)
    assert states == [SlaveState.ACTIVE, SlaveState.INACTIVE, SlaveState.INACTIVE, None, None]
    assert [slave for slave, _ in lost] == ["n2"] and lost[0][1].host == "n2"
    assert list(world.attendance.managers) == ["n1"] and world.registry.slaves["n1"].state is SlaveState.ACTIVE
    world.attendance.hired(Proxy("n2", 1))  # type: ignore[arg-type]  # one of its servers answers late
    assert list(world.attendance.managers) == ["n1"], "the host is not there yet"
    world.silent = set()
    assert world.attendance.look("service") == []
    assert world.workers("n2") == 2 and world.registry.slaves["n2"].state is SlaveState.ACTIVE


def test_an_answer_counts_as_a_beat() -> None:
    world = World()
    world.attendance.hired(Proxy("n1"))  # type: ignore[arg-type]
    world.silent = {"n1"}
    world.now += 3.0
    world.attendance.look("service")
    slave = world.registry.slaves["n1"]
    assert slave.state is SlaveState.INACTIVE
    world.attendance.is_changed = False
    world.attendance.heard(slave)
    assert slave.state is SlaveState.ACTIVE and world.attendance.is_changed
