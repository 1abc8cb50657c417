"""Call-backs of the user's: order, turns, ends."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from grid.wire import callbacks
from grid.wire.callbacks import CallBacks


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> CallBacks:
    monkeypatch.setattr(callbacks, "STUCK_S", 0.001)
    monkeypatch.setattr(callbacks, "_IDLE_S", 0.002)  # so that threads end and begin all the time
    return CallBacks()


@pytest.mark.row("U04")
def test_one_that_waits_holds_up_no_other_whenever_they_come(made: CallBacks) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(1000):
            quick = threading.Event()
            waited: list[bool] = []
            through = threading.Event()
            made.put(lambda quick=quick, waited=waited, through=through: (waited.append(quick.wait(30)), through.set()))
            made.put(quick.set)
            assert through.wait(60) and waited == [True], number
    finally:
        sys.setswitchinterval(interval)
        made.close(30)


@pytest.mark.row("U04")
def test_they_run_in_order_and_one_that_fails_or_exits_harms_no_other(
    made: CallBacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "STUCK_S", 4.0)  # one that loses its turn may come after the next
    ran: list[int] = []
    for number in range(300):
        made.put(lambda number=number: ran.append(number))
        made.put(sys.exit if number % 7 == 3 else (lambda: 1 / 0) if number % 7 == 5 else lambda: None)
    made.close(60)
    assert ran == list(range(300))
    for each in threading.enumerate():
        if each.name.startswith("grid-callbacks"):
            each.join(30)
            assert not each.is_alive()


@pytest.mark.row("U04")
def test_close_waits_also_for_those_who_took_the_turn_of_one_that_stood_still(made: CallBacks) -> None:
    ran: list[int] = []
    for number in range(300):
        made.put(lambda number=number: (time.sleep(0.002), ran.append(number)))
    made.close(60)
    assert sorted(ran) == list(range(300))


@pytest.mark.row("U04")
def test_close_waits_for_what_is_due_and_not_for_itself(made: CallBacks) -> None:
    ended = threading.Event()
    made.put(lambda: (made.close(30), ended.set()))
    assert ended.wait(30)
    after = threading.Event()
    made.put(after.set)
    assert after.wait(30)
    made.close(30)
