"""Ready strategies, and those of one's own: which slave gets the next task."""

from __future__ import annotations

import heapq
import math
from typing import Any

import pytest

from grid import StrategyError
from grid.tasks import (
    LeastLoaded,
    Locality,
    RatedStrategy,
    RoundRobin,
    TaskScheduleStrategy,
    Weighted,
)
from grid.tasks.schedule import Pack
from grid.tasks.slaves import Slave
from tests.unit.task_world import Work, World


@pytest.mark.row("K24")
def test_a_slave_is_rated_by_running_tasks_per_worker_and_is_worst_without_workers() -> None:
    rate = LeastLoaded().rate
    assert rate(Slave("a", workers=4)) == 0
    assert rate(Slave("a", workers=4, running=2)) == 0.5
    assert rate(Slave("a", workers=0)) == math.inf


@pytest.mark.row("K25")
def test_the_best_slave_is_next_ties_go_by_fewest_tasks_and_then_round_robin() -> None:
    world = World(a=1, b=1, c=1)
    world.feed([Work(n) for n in range(9)])
    packs = [world.pack() for _ in range(3)]
    assert sorted(pack.slave.slave_id for pack in packs) == ["a", "b", "c"]
    assert world.strategy.get_next_slave() is None, "all have what they can take"
    assert world.schedule.next() is None
    for pack in packs:
        world.finish(pack)
    assert [world.pack().slave.slave_id for _ in range(3)] == [pack.slave.slave_id for pack in packs]
    tied = World(small=1, large=2)
    tied.registry.slaves["small"].running, tied.registry.slaves["large"].running = 1, 2
    for slave in tied.registry.slaves.values():
        slave.ahead = 2
    tied.schedule.rerate()
    assert tied.strategy.get_next_slave() == "small"


@pytest.mark.row("K25", "K35")
def test_without_an_active_slave_there_is_no_next_one() -> None:
    world = World()
    world.feed([Work()])
    assert world.strategy.get_next_slave() is None and world.schedule.next() is None
    world.registry.register("a", 1, 0.0)
    world.schedule.rerate()
    assert world.pack().slave.slave_id == "a"


@pytest.mark.row("K23", "K24")
def test_a_strategy_is_set_up_and_one_of_your_own_only_rates() -> None:
    class Alphabet(RatedStrategy):
        def rate(self, slave: Slave) -> float:
            return ord(slave.slave_id)

    world = World(Alphabet(), b=2, a=2)
    world.strategy.setup("scheduler", "master")  # type: ignore[arg-type]
    assert (world.strategy.scheduler, world.strategy.master) == ("scheduler", "master")
    world.feed([Work(n) for n in range(4)])
    assert [world.pack().slave.slave_id for _ in range(4)] == ["a", "a", "b", "b"]


@pytest.mark.row("K24", "K25")
@pytest.mark.parametrize("answer", ["nobody", "full", "idle", 3, b"a", RuntimeError("oh")])
def test_a_strategy_that_names_nonsense_is_named(answer: Any) -> None:
    class Odd(TaskScheduleStrategy):
        def rate(self, slave: Slave) -> float:
            return 0.0

        def get_next_slave(self) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

    world = World(Odd(), a=1, full=1, idle=0)
    world.registry.slaves["full"].packs = 1
    world.feed([Work()])
    with pytest.raises(StrategyError, match="Odd"):
        world.schedule.next()


@pytest.mark.row("K24")
@pytest.mark.parametrize("answer", [None, "good", float("nan"), True])
def test_a_rating_that_is_no_number_is_refused(answer: Any) -> None:
    class Odd(RatedStrategy):
        def rate(self, slave: Slave) -> Any:
            return answer

    world = World(Odd(), a=1)
    world.feed([Work()])
    with pytest.raises(StrategyError, match=r"Odd.rate\('a'\) answered"):
        world.schedule.next()


@pytest.mark.row("K25")
def test_locality_gives_a_task_to_a_slave_it_prefers_while_that_has_room() -> None:
    world = World(Locality(), a=1, b=1, c=1)
    world.feed([Work(n, ("nowhere", "c")) for n in range(2)] + [Work(2)])
    assert world.pack().slave.slave_id == "c"
    assert sorted(world.pack().slave.slave_id for _ in range(2)) == ["a", "b"], "c has no room"


@pytest.mark.row("K41")
def test_round_robin_takes_no_notice_of_load() -> None:
    world = World(RoundRobin(), a=3, b=1, c=2)
    world.feed([Work(n) for n in range(6)])
    assert [world.pack().slave.slave_id for _ in range(6)] == ["a", "b", "c", "a", "c", "a"]


def simulate(strategy: TaskScheduleStrategy, speeds: dict[str, float], tasks: int, length_s: float) -> dict[str, float]:
    """When each host finished its last task, in a world with a clock of its own."""
    world = World(strategy, **dict.fromkeys(speeds, 2))
    world.feed([Work(n) for n in range(tasks)])
    now, ends, under_way = 0.0, {}, []
    free_at: dict[str, list[float]] = {name: [0.0, 0.0] for name in speeds}
    order = 0
    while True:
        while isinstance(step := world.schedule.next(), Pack):
            name = step.slave.slave_id
            seconds = len(step.entries) * length_s / speeds[name]
            began = max(now, heapq.heappop(free_at[name]))
            heapq.heappush(free_at[name], began + seconds)
            order += 1
            heapq.heappush(under_way, (began + seconds, order, step, seconds))
        if not under_way:
            return ends
        now, _, pack, seconds = heapq.heappop(under_way)
        ends[pack.slave.slave_id] = now
        world.finish(pack, seconds)


@pytest.mark.row("K24", "K25")
@pytest.mark.parametrize("strategy", [LeastLoaded, Weighted])
@pytest.mark.parametrize("tasks", [50, 201, 1000])
@pytest.mark.parametrize("length_s", [0.02, 1.0, 60.0])
def test_hosts_of_speeds_1_2_4_finish_within_two_task_lengths(
    strategy: type[RatedStrategy], tasks: int, length_s: float
) -> None:
    ends = simulate(strategy(), {"slow": 1.0, "middle": 2.0, "fast": 4.0}, tasks, length_s)
    assert max(ends.values()) - min(ends.values()) < 2 * length_s, "a task takes `length_s` on the slow host"


@pytest.mark.row("K24")
def test_weighted_learns_how_fast_each_slave_is() -> None:
    strategy = Weighted()
    simulate(strategy, {"slow": 1.0, "middle": 2.0, "fast": 4.0}, 500, 1.0)
    slow, middle, fast = (strategy._slaves[name].speed for name in ("slow", "middle", "fast"))
    assert slow < middle < fast and 2.5 < fast / slow < 6
