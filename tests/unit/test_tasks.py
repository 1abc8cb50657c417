"""Who gets which task: the pure parts of task systems, without a clock, a thread or a socket."""

from __future__ import annotations

import heapq
import math
import pickle
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grid.tasks
from grid import StrategyError, TaskError
from grid.launch.cores import quota, usable_cores
from grid.services.packing import Packing
from grid.tasks import (
    LeastLoaded,
    Locality,
    RatedStrategy,
    RoundRobin,
    Task,
    TaskLimits,
    TaskScheduleStrategy,
    TaskSystem,
    Weighted,
    abstract,
)
from grid.tasks.abstract import as_pair
from grid.tasks.life import checked
from grid.tasks.schedule import Failed, Idle, Pack, Schedule
from grid.tasks.slaves import Slave, SlaveRegistry, SlaveState
from grid.tasks.statistics import Statistics

LIMITS = TaskLimits()


class Work(Task):
    def __init__(self, number: int = 0, prefers: tuple[str, ...] = ()) -> None:
        self.number, self.prefers = number, prefers

    def __call__(self) -> int:
        return self.number


class World:
    """A schedule with slaves, and shorthands."""

    def __init__(self, strategy: TaskScheduleStrategy | None = None, **workers: int) -> None:
        self.registry = SlaveRegistry()
        self.strategy = strategy or LeastLoaded()
        self.schedule = Schedule(self.strategy, self.registry, LIMITS)
        self.strategy.setup(None, None)  # type: ignore[arg-type]
        for name, count in workers.items():
            self.registry.register(name, count, 0.0)
        self.schedule.rerate()

    def feed(self, tasks: Any, key: str = "s") -> None:
        self.schedule.open(key)
        self.schedule.begin_generation(key)
        self.schedule.feed(key, tasks)

    def pack(self) -> Pack:
        step = self.schedule.next()
        assert isinstance(step, Pack), step
        return step

    def finish(self, pack: Pack, seconds: float = 1.0) -> None:
        if self.schedule.settled(pack, seconds):
            for _ in pack.entries:
                self.schedule.finished(pack.slave)


# -- the interfaces ----------------------------------------------------------------------------------------------------


@pytest.mark.row("K11", "K12", "K23", "K26")
def test_the_interfaces_have_the_methods_of_the_framework_and_their_other_names() -> None:
    methods = {
        "TaskSystem": "system_id get_system_id init_system generate_tasks task_finished is_complete gather_result",
        "Task": "name task_id system_id client_id slave_id __call__ clean_up finished",
        "TaskManager": "init get_num_workers start stop update_pool push_task wait_for_all get_results_queue "
        "create_task task_finished",
        "TaskScheduleStrategy": "setup rate get_next_slave",
        "TaskScheduler": "setup rate_slaves start_system push_task push_tasks handle_task _tasked_pushed task_finished",
    }
    for name, words in methods.items():
        kind = getattr(grid.tasks, name)
        assert getattr(grid.tasks, f"I{name}") is kind
        assert [word for word in words.split() if not hasattr(kind, word)] == []
        with pytest.raises(TypeError, match="abstract"):
            kind()
    assert set(grid.tasks.__all__) == set(dir(grid.tasks))
    assert all(getattr(grid.tasks, name) is not None for name in grid.tasks.__all__)


class Empty(TaskSystem):
    def init_system(self, master: Any) -> None: ...
    def generate_tasks(self, master: Any) -> list[Task]:
        return []

    def task_finished(self, master: Any, task: Task, result: Any, error: Any) -> None: ...
    def is_complete(self, master: Any) -> bool:
        return True

    def gather_result(self, master: Any) -> Any: ...


@pytest.mark.row("K01", "K04")
def test_a_system_has_an_id_of_its_own_that_travels_with_it() -> None:
    class Forgetful(Empty):
        def __init__(self) -> None:
            self.x = 1  # and no word to the base class

    one, two = Forgetful(), Forgetful()
    assert one.system_id != two.system_id and len(one.system_id) == 32
    assert one.get_system_id() == one.system_id
    empty = Empty()
    assert pickle.loads(pickle.dumps(empty)).system_id == empty.system_id


@pytest.mark.row("K11", "K21")
def test_a_task_has_a_unique_id_and_may_leave_the_rest_out() -> None:
    tasks = [Work(n) for n in range(100)]
    assert len({task.task_id for task in tasks}) == 100
    assert tasks[0].task_id == tasks[0].task_id == pickle.loads(pickle.dumps(tasks[0])).task_id
    assert (tasks[0].system_id, tasks[0].client_id, tasks[0].slave_id, tasks[0].retries) == (None, None, None, 0)
    tasks[0].clean_up()
    tasks[0].finished(None, None)


@pytest.mark.row("K09")
@pytest.mark.parametrize(
    ("gathered", "pair"),
    [
        ((1, None), (1, None)),
        (7, (7, None)),
        (None, (None, None)),
        ((1, 2), ((1, 2), None)),
        ((1, 2, None), ((1, 2, None), None)),
    ],
)
def test_a_bare_result_is_taken_for_a_pair(gathered: Any, pair: Any) -> None:
    assert as_pair(gathered) == pair


def test_an_error_in_a_pair_is_kept() -> None:
    error = ValueError("no")
    assert as_pair((None, error)) == (None, error)


# -- strategies --------------------------------------------------------------------------------------------------------


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


# -- the registry ------------------------------------------------------------------------------------------------------


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


# -- the schedule ------------------------------------------------------------------------------------------------------


@pytest.mark.row("K27")
def test_when_the_registry_changes_all_are_rated_again() -> None:
    world = World(a=1)
    world.feed([Work(n) for n in range(9)])
    world.pack()
    assert world.schedule.next() is None
    world.registry.register("b", 2, 0.0)
    world.schedule.rerate()
    assert [world.pack().slave.slave_id for _ in range(2)] == ["b", "b"]
    world.registry.remove("b")
    world.schedule.rerate()
    assert world.strategy.get_next_slave() is None


@pytest.mark.row("K31", "K32")
def test_counts_go_up_and_down_and_never_below_none() -> None:
    world = World(a=2)
    world.feed([Work(n) for n in range(2)])
    first, second = world.pack(), world.pack()
    slave = first.slave
    assert slave.running == 2 and world.strategy.rate(slave) == 1.0  # type: ignore[attr-defined]
    assert [entry.task.slave_id for entry in first.entries] == ["a"]
    world.finish(first)
    world.finish(second)
    world.finish(second)
    world.schedule.finished(slave)
    assert slave.running == 0 and slave.packs == 0


@pytest.mark.row("K29")
def test_nothing_and_things_that_are_no_tasks_do_not_get_in() -> None:
    world = World(a=1)
    world.feed([None, Work(1), None])
    pack = world.pack()
    assert len(pack.entries) == 1
    world.finish(pack)
    assert world.schedule.next() == Idle("s", dry=False)
    with pytest.raises(TaskError, match="a str was given for a task"):
        checked("work", None)
    world.feed([Work(), 3], "t")
    world.finish(world.pack())
    failed = world.schedule.next()
    assert isinstance(failed, Failed) and "a int was given" in str(failed.error)
    with pytest.raises(TaskError, match="generate_tasks returned a int"):
        world.feed(3, "u")


@pytest.mark.row("K28")
def test_systems_take_turns() -> None:
    world = World(a=6)
    for key in "xyz":
        world.feed([Work(n) for n in range(5)], key)
    assert [world.pack().key for _ in range(6)] == ["x", "y", "z", "x", "y", "z"]


@pytest.mark.row("K05")
def test_a_generator_is_read_only_as_slaves_take_tasks() -> None:
    read = []

    def endless() -> Iterator[Task]:
        number = 0
        while True:
            read.append(number)
            yield Work(number)
            number += 1

    world = World(a=2, b=1)
    world.feed(endless())
    packs = [world.pack() for _ in range(3)]
    assert world.schedule.next() is None
    assert len(read) <= sum(len(pack.entries) for pack in packs) + 1


@pytest.mark.row("K05")
def test_a_million_tasks_take_no_more_memory_than_a_few() -> None:
    world = World(a=4, b=4)
    world.feed(Work(n) for n in range(1_000_000))
    done = 0
    tracemalloc.start()
    try:
        while not isinstance(step := world.schedule.next(), Idle):
            assert isinstance(step, Pack)
            done += len(step.entries)
            world.finish(step, 1e-6 * len(step.entries))
            if done > 20_000:  # tracing is slow; by then it would show
                break
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    while not isinstance(step := world.schedule.next(), Idle):
        assert isinstance(step, Pack)
        done += len(step.entries)
        world.finish(step, 1e-6 * len(step.entries))
    assert done == 1_000_000


@pytest.mark.row("K06", "K08")
def test_a_source_that_gave_nothing_is_dry_and_one_that_gave_is_not() -> None:
    world = World(a=1)
    world.feed([])
    assert world.schedule.next() == Idle("s", dry=True)
    world.schedule.begin_generation("s")
    world.schedule.feed("s", iter([Work()]))
    pack = world.pack()
    assert world.schedule.next() is None, "one is under way"
    world.finish(pack)
    assert world.schedule.next() == Idle("s", dry=False)
    world.schedule.begin_generation("s")
    world.schedule.push("s", [Work()])  # pushed by the master, in place of generated
    world.schedule.feed("s", None)
    world.finish(world.pack())
    assert world.schedule.next() == Idle("s", dry=False)


@pytest.mark.row("K30")
def test_a_task_that_cannot_be_sent_goes_back_to_the_front_a_bounded_number_of_times() -> None:
    world = World(a=1)
    world.feed([Work(n) for n in range(3)])
    for attempt in range(LIMITS.sends):
        pack = world.pack()
        (entry,) = pack.entries
        assert entry.task.number == 0, "it is at the front again"  # type: ignore[attr-defined]
        given_up = world.schedule.unsent(pack, OSError("no"), host=False)
        assert given_up == ([entry] if attempt == LIMITS.sends - 1 else [])
        assert pack.slave.running == 0
    assert world.pack().entries[0].task.number == 1  # type: ignore[attr-defined]


@pytest.mark.row("K30")
def test_a_host_that_cannot_run_a_system_is_passed_over_by_it_and_not_by_others() -> None:
    world = World(bad=1, good=1)
    world.registry.slaves["good"].running = 5  # rated worse
    world.registry.slaves["good"].ahead = 9
    world.schedule.rerate()
    world.feed([Work(n) for n in range(2)])
    pack = world.pack()
    assert pack.slave.slave_id == "bad"
    assert world.schedule.unsent(pack, ImportError("no numpy"), host=True) == []
    assert world.pack().slave.slave_id == "good"
    world.feed([Work()], "other")
    assert world.pack().slave.slave_id == "bad"
    alone = World(bad=1)
    alone.feed([Work()])
    pack = alone.pack()
    assert alone.schedule.unsent(pack, ImportError("no numpy"), host=True) == pack.entries, "nobody else is left"


@pytest.mark.row("K33")
def test_tasks_of_a_lost_slave_go_to_others_once_for_each_loss() -> None:
    world = World(a=1, b=1)
    world.feed([Work(0)])
    for attempt in range(LIMITS.losses):
        pack = world.pack()
        (entry,) = pack.entries
        given_up = world.schedule.lost(pack)
        assert world.schedule.lost(pack) == [], "it is lost once"
        assert not world.schedule.settled(pack, 1.0), "what the lost one still says does not count"
        assert given_up == ([entry] if attempt == LIMITS.losses - 1 else [])
    assert all(slave.running == 0 and slave.packs == 0 for slave in world.registry.slaves.values())


@pytest.mark.row("K33")
def test_of_a_lost_pack_each_task_goes_alone_so_that_the_culprit_shows() -> None:
    world = World(a=1, b=1)
    world.feed([Work(n) for n in range(40)])
    while len((pack := world.pack()).entries) < 4:
        world.finish(pack, 1e-3 * len(pack.entries))
    assert world.schedule.lost(pack) == []
    again = []
    for _ in pack.entries:
        alone = world.pack()
        again += alone.entries
        assert len(alone.entries) == 1
        world.finish(alone, 1e-3)
    assert again == pack.entries


@pytest.mark.row("K33")
def test_a_suspect_has_a_worker_for_itself_so_that_a_loss_tells() -> None:
    world = World(a=2, b=1)
    world.feed(Work(n) for n in range(1000))
    while not all(slave.ahead == 2 and slave.room == 0 for slave in world.registry.slaves.values()):
        step = world.schedule.next()
        if not isinstance(step, Pack):
            world.finish(next(iter(world.schedule.packs)), 1e-4)
    suspect = next(pack for pack in world.schedule.packs if pack.slave.slave_id == "a")
    world.schedule.lost(suspect)
    assert world.schedule.next() is None, "nobody is idle: it waits, and nothing overtakes it"
    for pack in [pack for pack in world.schedule.packs if pack.slave.slave_id == "a"][:2]:
        world.finish(pack, 1e-4)
    again = world.pack()
    assert again.isolated and again.slave.slave_id == "a" and again.entries[0] is suspect.entries[0]
    assert again.slave.room == 2 - (again.slave.packs - 1), "the other worker's"
    assert again.entries[0].losses == 1


@pytest.mark.row("K10")
def test_when_a_system_is_over_what_waits_is_dropped_and_what_runs_is_ignored() -> None:
    world = World(a=2)
    world.feed([Work(n) for n in range(9)])
    world.feed([Work(n) for n in range(3)], "other")
    packs = [world.pack(), world.pack()]
    mine = [pack for pack in packs if pack.key == "s"]
    assert world.schedule.close("s") == mine
    for pack in mine:
        assert not world.schedule.settled(pack, 1.0)
    assert packs[0].slave.running == 1 and packs[0].slave.packs == 1, "counts are right"
    assert world.pack().key == "other"
    assert world.schedule.waiting("s") == (0, 0)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["next", "next", "done", "lost", "unsent", "join", "leave", "push"]), st.integers(0, 99)),
    max_size=120,
)


@pytest.mark.row("K28", "K31", "K32", "K33")
@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from([LeastLoaded, Weighted, RoundRobin, Locality]))
def test_whatever_happens_each_task_ends_once_and_counts_are_right(
    events: list[tuple[str, int]], strategy: type[RatedStrategy]
) -> None:
    world = World(strategy(), h0=1)
    schedule, registry = world.schedule, world.registry
    world.feed((Work(n) for n in range(30)), "s")
    world.feed([Work(n) for n in range(30, 40)], "t")
    expected, ended = 40, []
    under_way: list[Pack] = []

    def act(kind: str, number: int) -> None:
        nonlocal expected
        if kind == "next":
            step = schedule.next()
            if isinstance(step, Pack):
                assert registry.slaves[step.slave.slave_id] is step.slave
                assert step.slave.state is SlaveState.ACTIVE
                under_way.append(step)
        elif kind == "join":
            registry.register(f"h{number % 5}", 1 + number % 3, 0.0)
            schedule.rerate()
        elif kind == "push":
            expected += 1
            schedule.push("st"[number % 2], [Work(1000 + expected)])
        elif kind == "leave":
            slave = registry.remove(f"h{number % 5}")
            if slave is not None:
                for pack in schedule.slave_lost(slave.slave_id):
                    ended.extend(schedule.lost(pack))
                    under_way.remove(pack)
                schedule.rerate()
        elif under_way:
            pack = under_way.pop(number % len(under_way))
            if kind == "done":
                ended.extend(pack.entries)
                world.finish(pack, 0.001 * number)
            else:
                ended.extend(schedule.lost(pack) if kind == "lost" else schedule.unsent(pack, OSError(), host=False))
        for slave in registry.slaves.values():
            mine = [pack for pack in under_way if pack.slave is slave]
            assert slave.packs == len(mine) and slave.running == sum(len(pack.entries) for pack in mine)

    for event in events:
        act(*event)
    act("join", 0)
    for _ in range(1000):
        act("next", 0)
        act("done", 0)
    numbers = [entry.task.number for entry in ended]
    assert len(numbers) == len(set(numbers)) == expected


@pytest.mark.row("K25")
def test_handing_out_does_not_depend_on_how_many_tasks_wait_and_little_on_how_many_hosts() -> None:
    """Counted, not timed: comparisons of ratings, and how far the source was read."""

    class Counting(LeastLoaded):
        rated = 0

        def rate(self, slave: Slave) -> float:
            Counting.rated += 1
            return super().rate(slave)

    for hosts in (10, 1000):
        strategy = Counting()
        world = World(strategy, **{f"h{n}": 2 for n in range(hosts)})
        world.feed([Work(n) for n in range(3000)])
        world.pack()  # the first rates all
        Counting.rated = 0
        rng, under_way = random.Random(1), []
        for _ in range(1000):
            step = world.schedule.next()
            if isinstance(step, Pack):
                under_way.append(step)
            if not isinstance(step, Pack) or rng.random() < 0.3:
                world.finish(under_way.pop(rng.randrange(len(under_way))))
        assert Counting.rated <= 2000, "only slaves that changed are rated"
        assert len(strategy._heap) <= 4 * hosts + 66


# -- packs, statistics, cores ------------------------------------------------------------------------------------------


@pytest.mark.row("K30")
def test_packs_grow_for_short_tasks_stay_single_for_long_ones_and_shrink_at_the_end() -> None:
    packing = Packing(0.05, 2000)
    assert packing.take() == 1 and packing.ahead(packing.take()) == 1
    sizes = []
    for _ in range(8):
        sizes.append(packing.take())
        packing.took(sizes[-1], sizes[-1] * 1e-5, 0.0)
    assert sizes == [1, 4, 16, 64, 256, 1024, 2000, 2000] and packing.ahead(packing.take()) == 2
    assert packing.take(5, left=100) == 10 and packing.take(left=0) == 1
    assert packing.take(speed=0.1) < packing.take()
    for _ in range(20):
        packing.took(1, 2.0, 0.0)
    assert packing.take() == 1 and packing.ahead(packing.take()) == 1


@pytest.mark.row("K42")
def test_statistics_by_name() -> None:
    statistics = Statistics()
    for name, seconds in (("a", 1.0), ("a", 3.0), ("b", 0.5)):
        statistics.add(name, seconds)
    assert statistics.table() == {
        "a": {"avg": 2.0, "min": 1.0, "max": 3.0, "n": 2},
        "b": {"avg": 0.5, "min": 0.5, "max": 0.5, "n": 1},
    }


@pytest.mark.row("K14")
def test_cores_by_the_limit_of_a_cgroup() -> None:
    assert quota("200000 100000\n") == 2.0 and quota("50000 100000") == 0.5
    assert quota("max 100000\n") is None and quota("") is None and quota("1 0") is None
    assert usable_cores() >= 1


def test_the_part_for_hosts_stands_alone() -> None:
    source = Path(abstract.__file__).read_text()
    assert "from grid" not in source and "import grid" not in source
