"""Who gets the next unit: shares of users, priorities, free work, machines that somebody gave, workers that die."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.jobs.rules.credits import Ledger
from grid.jobs.rules.scheduler import RULES, Unit, UnitScheduler


def fill(scheduler: UnitScheduler, jobs: dict[str, tuple[str, int]], units: int = 5000) -> None:
    for job, (user, priority) in jobs.items():
        scheduler.add_job(job, user, priority)
        scheduler.add_units(Unit(job, (job, n)) for n in range(units))


def hand_out(scheduler: UnitScheduler, n: int, workers: int = 4, now: float = 0.0, dt: float = 0.0) -> Counter[str]:
    """n units go to workers in turn, each done before the worker asks again."""
    counts: Counter[str] = Counter()
    for turn in range(n):
        unit = scheduler.pick(f"w{turn % workers}", now + turn * dt)
        assert unit is not None
        assert scheduler.done(unit.key)
        counts[unit.job] += 1
    return counts


@pytest.mark.row("J05", "J07")
def test_shares_of_one_user_are_as_the_priorities_within_five_percent() -> None:
    scheduler = UnitScheduler(Ledger(allowance=1e9))
    fill(scheduler, {"a": ("u", 1), "b": ("u", 2), "c": ("u", 5)})
    counts = hand_out(scheduler, 1000)
    for job, weight in (("a", 1), ("b", 2), ("c", 5)):
        assert counts[job] == pytest.approx(1000 * weight / 8, rel=0.05)


@pytest.mark.row("J05", "J07")
def test_users_share_alike_however_many_jobs_they_have() -> None:
    scheduler = UnitScheduler()
    fill(scheduler, {"a1": ("anna", 0), **{f"b{n}": ("bert", 0) for n in range(9)}})
    counts = hand_out(scheduler, 1000)
    assert counts["a1"] == pytest.approx(500, rel=0.05)
    weighted = UnitScheduler(weights={"anna": 3.0})
    fill(weighted, {"a1": ("anna", 0), **{f"b{n}": ("bert", 0) for n in range(9)}})
    assert hand_out(weighted, 1000)["a1"] == pytest.approx(750, rel=0.05)


@pytest.mark.row("J06", "J09")
def test_free_work_keeps_its_minimum_share_and_takes_all_that_is_left() -> None:
    scheduler = UnitScheduler(Ledger(allowance=1e9))
    fill(scheduler, {"paid": ("rich", 9), "free": ("poor", 0)})
    counts = hand_out(scheduler, 1000)
    assert counts["free"] == pytest.approx(100, rel=0.05)
    scheduler.drop_units("paid")
    assert hand_out(scheduler, 100) == {"free": 100}


@pytest.mark.row("J06")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=2, max_size=8), st.integers(0, 2**32))
def test_no_job_starves(jobs: list[tuple[str, int]], seed: int) -> None:
    scheduler = UnitScheduler(Ledger(allowance=200.0))
    fill(scheduler, {f"j{n}": job for n, job in enumerate(jobs)}, units=1000)
    rng, counts = Random(seed), Counter()
    for _ in range(900):
        unit = scheduler.pick(f"w{rng.randrange(5)}")
        assert unit is not None
        scheduler.done(unit.key)
        counts[unit.job] += 1
    assert min(counts[f"j{n}"] for n in range(len(jobs))) >= 3


@pytest.mark.row("J07", "V24")
def test_a_worker_stays_with_a_function_that_it_has_loaded_as_far_as_shares_allow() -> None:
    def changes(rules: tuple[str, ...]) -> tuple[int, Counter[str]]:
        scheduler = UnitScheduler(rules=rules)
        fill(scheduler, {f"j{n}": ("u", 0) for n in range(4)})
        last: dict[str, str] = {}
        changed, counts = 0, Counter()
        for turn in range(1000):
            worker = f"w{turn % 4}"
            unit = scheduler.pick(worker)
            assert unit is not None
            scheduler.done(unit.key)
            if turn % 40 == 0:  # a worker keeps few functions
                scheduler.workers[worker].loaded = {unit.job}
            changed += last.get(worker) != unit.job
            last[worker] = unit.job
            counts[unit.job] += 1
        return changed, counts

    with_rule, counts = changes(RULES)
    without, _ = changes(tuple(rule for rule in RULES if rule != "loaded"))
    assert with_rule <= without
    assert all(count == pytest.approx(250, rel=0.05) for count in counts.values())


@pytest.mark.row("J07")
def test_a_new_job_gets_its_first_unit_at_once() -> None:
    scheduler = UnitScheduler()
    fill(scheduler, {"old": ("u", 0)})
    hand_out(scheduler, 50)
    scheduler.add_job("new", "u")
    scheduler.add_units([Unit("new", n) for n in range(10)])
    unit = scheduler.pick("w0")
    assert unit is not None and unit.job == "new"
    lazy = UnitScheduler(Ledger(1e9), rules=[rule for rule in RULES if rule != "fresh"])
    fill(lazy, {"old": ("u", 3), "new": ("u", 0)})
    unit = lazy.pick("w0")
    assert unit is not None and unit.job == "old"


@pytest.mark.row("J10", "J07", "H13")
def test_on_a_machine_that_somebody_gave_the_owner_comes_first() -> None:
    scheduler = UnitScheduler(Ledger(allowance=1e9))
    fill(scheduler, {"mine": ("me", 0), "theirs": ("them", 9)}, units=20)
    scheduler.add_worker("desk/0", owner="me")
    scheduler.add_worker("private/0", owner="nobody-here", only=True)
    assert scheduler.pick("private/0") is None
    got = [scheduler.pick("desk/0") for _ in range(25)]
    assert [unit.job for unit in got if unit] == ["mine"] * 20 + ["theirs"] * 5
    off = UnitScheduler(Ledger(allowance=1e9), rules=[rule for rule in RULES if rule not in ("owner", "fresh")])
    fill(off, {"mine": ("me", 0), "theirs": ("them", 9)}, units=20)
    off.add_worker("desk/0", owner="me")
    unit = off.pick("desk/0")
    assert unit is not None and unit.job == "theirs"
    with pytest.raises(ValueError, match="no rule is called 'fastest'"):
        UnitScheduler(rules=["fastest"])


@pytest.mark.row("J05")
def test_a_decision_takes_less_than_a_millisecond_with_a_thousand_jobs() -> None:
    scheduler = UnitScheduler(Ledger(allowance=1e9))
    fill(scheduler, {f"j{n}": (f"u{n % 37}", n % 4) for n in range(1000)}, units=10)
    times = []
    for turn in range(3000):
        began = time.perf_counter()
        unit = scheduler.pick(f"w{turn % 64}", turn * 0.01)
        times.append(time.perf_counter() - began)
        assert unit is not None
        scheduler.done(unit.key)
    assert sorted(times)[len(times) // 2] < 1e-3


@pytest.mark.row("J25")
def test_the_first_outcome_of_a_unit_counts_and_a_lost_workers_units_go_to_others() -> None:
    scheduler = UnitScheduler(lease_s=10.0)
    scheduler.add_job("j", "u")
    scheduler.add_units([Unit("j", 1), Unit("j", 2)])
    one, two = scheduler.pick("a", 0.0), scheduler.pick("b", 0.0)
    assert one and two and scheduler.pick("c", 0.0) is None
    assert scheduler.lose_worker("b") == []
    again = scheduler.pick("c", 1.0)
    assert again == two and scheduler.leased() == 2
    assert scheduler.done(two.key) and not scheduler.done(two.key)
    assert scheduler.expire(5.0) == [] and scheduler.waiting == 0
    assert scheduler.expire(10.0) == [] and scheduler.waiting == 1
    assert scheduler.done(one.key)  # late, and the first
    assert scheduler.waiting == 0 and scheduler.pick("c", 11.0) is None


@pytest.mark.row("J25")
def test_a_unit_that_kills_its_workers_is_given_up() -> None:
    scheduler = UnitScheduler()
    scheduler.add_job("j", "u")
    scheduler.add_units([Unit("j", 1, attempts=3)])
    for n in range(3):
        unit = scheduler.pick(f"w{n}")
        assert unit is not None
        assert scheduler.fail(unit.key, f"w{n}") is (n < 2)
    assert scheduler.pick("w9") is None and scheduler.leased() == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("aprldfx"), st.integers(0, 5)), max_size=80))
@pytest.mark.row("J25", "J05")
def test_whatever_happens_no_unit_counts_twice_and_none_is_forgotten(events: list[tuple[str, int]]) -> None:
    scheduler = UnitScheduler(Ledger(50), lease_s=3.0)
    added: set[int] = set()
    finished: list[int] = []
    held: list[tuple[int, str]] = []
    given_up: set[int] = set()
    removed: set[int] = set()
    numbers = itertools.count()
    for job in range(6):
        scheduler.add_job(f"j{job}", f"u{job % 3}", job % 3)
    for now, (event, which) in enumerate(events):
        if event == "a":
            units = [Unit(f"j{which}", next(numbers)) for _ in range(which + 1)]
            if f"j{which}" in scheduler._jobs:
                added |= {unit.key for unit in units}
            scheduler.add_units(units, now)
        elif event == "p":
            unit = scheduler.pick(f"w{which}", now)
            if unit is not None:
                assert unit.key in added and unit.key not in finished
                held.append((unit.key, f"w{which}"))
        elif event == "r" and held:
            key, _ = held.pop(which % len(held))
            if scheduler.done(key):
                assert key not in finished
                finished.append(key)
        elif event == "l":
            given_up |= {unit.key for unit in scheduler.lose_worker(f"w{which}")}
        elif event == "f" and held:
            key, worker = held.pop(which % len(held))
            if not scheduler.fail(key, worker):
                given_up.add(key)
        elif event == "x":
            given_up |= {unit.key for unit in scheduler.expire(now)}
        elif event == "d":
            gone = {unit.key for unit in scheduler._jobs[f"j{which}"].units}
            removed |= gone
            assert set(scheduler.drop_units(f"j{which}")) == gone
        assert scheduler.waiting == sum(len(job.units) for job in scheduler._jobs.values())
    rest = set()
    while (unit := scheduler.pick("last", 1e9)) is not None:
        rest.add(unit.key)
        assert unit.key not in finished
    leased = {key for key, lease in scheduler._leases.items()}
    assert added == set(finished) | given_up | removed | rest | leased
