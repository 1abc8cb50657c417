"""Credits are charged by priority, and fade."""

from __future__ import annotations

from collections import Counter

import pytest

from grid.jobs.rules.credits import Ledger, rate
from grid.jobs.rules.scheduler import Unit, UnitScheduler


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


@pytest.mark.row("J08", "J09")
def test_credits_are_charged_by_priority_and_fade() -> None:
    ledger = Ledger(allowance=100, half_life_s=3600)
    assert rate(0) == 0 and [rate(p) for p in (1, 2, 3, 4)] == [1, 3, 6, 10]
    assert all(rate(p + 1) > rate(p) for p in range(50))
    assert ledger.charge("u", 0, now=0.0, units=1000) == 0 and ledger.balance("u", 0.0) == 100
    ledger.charge("u", 3, now=0.0, units=10)
    assert ledger.balance("u", 0.0) == 40
    assert ledger.balance("u", 3600.0) == pytest.approx(70)
    assert ledger.can_pay("u", 4, 0.0) and ledger.can_pay("u", 0, 0.0)
    ledger.charge("u", 9, now=0.0)
    assert not ledger.can_pay("u", 4, 0.0) and ledger.can_pay("u", 0, 0.0)
    other = Ledger(100, 3600)
    other.load(ledger.dump())
    assert other.balance("u", 50.0) == ledger.balance("u", 50.0)


@pytest.mark.row("J08")
def test_who_has_no_credits_left_is_served_as_free_work_until_they_come_back() -> None:
    ledger = Ledger(allowance=30, half_life_s=100.0)
    scheduler = UnitScheduler(ledger, rules=("share", "users", "priority"))
    fill(scheduler, {"spender": ("a", 3), "saver": ("b", 0)})
    first = hand_out(scheduler, 5, now=0.0)
    assert first["spender"] >= 4
    while ledger.can_pay("a", 3, 0.0):
        hand_out(scheduler, 1, now=0.0)
    before = hand_out(scheduler, 200, now=0.0)
    assert before["spender"] == pytest.approx(100, abs=5)  # equal users now
    later = hand_out(scheduler, 4, now=1000.0)
    assert later["spender"] >= 3  # all is forgotten
