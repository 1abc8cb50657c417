"""A host's liveness with a clock: how long it is away, and that two threads make whole moves."""

from __future__ import annotations

import threading

import pytest

from grid.grids.liveness import Liveness
from grid.grids.silence import HostAction, HostEvent, HostState
from grid.limits import Limits

pytestmark = pytest.mark.row("G48", "G63")
LIMITS = Limits(heartbeat_s=5.0, lost_s=15.0, orphan_s=60.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def life(clock: Clock) -> Liveness:
    made = Liveness(LIMITS, clock)
    assert made.state is HostState.DOWN
    made.hear(HostEvent.STARTED)
    return made


def test_an_outage_is_counted_from_its_beginning(life: Liveness, clock: Clock) -> None:
    assert life.outage() is None
    assert HostAction.SET_ASIDE in life.hear(HostEvent.FELL_SILENT)
    clock.now += 7.0
    assert life.outage() == 7.0
    assert HostAction.HAND_OUT in life.hear(HostEvent.HEARD_AGAIN) and life.outage() is None


def test_a_host_that_stays_away_is_given_up_once_it_gave_us_up(life: Liveness, clock: Clock) -> None:
    life.hear(HostEvent.FELL_SILENT)
    seen: list[object] = []
    while clock.now < 100.0 + LIMITS.orphan_s - 1.0:
        clock.now += 1.0
        seen += life.tick(broken=False)
        if life.state is HostState.PROBED:
            life.hear(HostEvent.STANDS)
    assert HostAction.LOSE_EXPIRED not in seen and seen.count(HostAction.PROBE) > 3
    clock.now += 2.0
    assert HostAction.LOSE_EXPIRED in life.tick(broken=False)


def test_nothing_leads_there_once(life: Liveness) -> None:
    assert life.part() is True and life.state is HostState.LOST
    assert life.part() is False


def test_a_silent_server_is_verified_and_a_heard_one_is_not(life: Liveness, clock: Clock) -> None:
    clock.now += 1000.0  # the host has been reachable for long
    life.suspect(7, 10.0)
    life.suspect(8, 10.0)
    life.trust(8)
    clock.now += 9.0
    assert life.tick(broken=False) == []
    clock.now += 2.0
    (verify,) = life.tick(broken=False)
    assert verify.process == 7  # type: ignore[union-attr]
    asked = life.now()
    clock.now += 0.1
    assert life.is_guilty(7, asked) and not life.is_guilty(8, asked)


def test_a_move_waits_for_another(life: Liveness) -> None:
    done = threading.Event()

    def hear() -> None:
        life.hear(HostEvent.FELL_SILENT)
        done.set()

    with life._lock:
        thread = threading.Thread(target=hear)
        thread.start()
        assert life.state is HostState.CONNECTED and not done.is_set()
    thread.join()
    assert done.is_set() and life.state is not HostState.CONNECTED
