"""Wrong tokens are slowed down per address, and forgotten."""

from __future__ import annotations

import pytest

from grid.web.limits import WebLimits
from grid.web.slowing import Slowing

LIMITS = WebLimits(wrong_free=3, wrong_per_s=0.5, wrong_wait_s=2.0, wrong_addresses=5)

pytestmark = pytest.mark.row("Y06")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_are_answered_at_once_and_each_more_waits_longer_up_to_a_limit() -> None:
    slowing = Slowing(LIMITS, Clock())
    waits = [slowing.wrong("10.0.0.1") for _ in range(12)]
    assert waits[:3] == [0.0, 0.0, 0.0] and waits[3] > 0 and waits == sorted(waits) and waits[-1] == 2.0


def test_others_do_not_wait_for_one_address() -> None:
    slowing = Slowing(LIMITS, Clock())
    for _ in range(10):
        slowing.wrong("10.0.0.1")
    assert slowing.wrong("10.0.0.2") == 0.0


def test_wrong_ones_are_forgotten_in_time() -> None:
    clock = Clock()
    slowing = Slowing(LIMITS, clock)
    for _ in range(5):
        last = slowing.wrong("10.0.0.1")
    clock.now += 4.0  # two of them
    assert 0 < slowing.wrong("10.0.0.1") < last * 2
    clock.now += 3600.0
    assert slowing.wrong("10.0.0.1") == 0.0


def test_a_flood_of_addresses_costs_no_more_memory_than_agreed() -> None:
    slowing = Slowing(LIMITS, Clock())
    for number in range(1000):
        slowing.wrong(f"10.0.{number // 250}.{number % 250}")
    assert len(slowing._tries) == 5
