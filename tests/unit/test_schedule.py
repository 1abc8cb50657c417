"""Which tasks wait, who has which, and what comes next."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid import TaskError
from grid.tasks import (
    LeastLoaded,
    Locality,
    RatedStrategy,
    RoundRobin,
    Task,
    Weighted,
)
from grid.tasks.life import checked
from grid.tasks.schedule import Failed, Idle, Pack
from grid.tasks.slaves import Slave, SlaveState
from tests.unit.task_world import LIMITS, Work, World


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
    count = 1_000_000 if os.environ.get("GRID_NIGHTLY") else 100_000  # memory is measured in the first 20,000
    world = World(a=4, b=4)
    world.feed(Work(n) for n in range(count))
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
    assert done == count


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
