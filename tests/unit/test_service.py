"""One service by itself: who has which server, who waits, groups, and what was torn off or dropped."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from grid.errors import AcquireTimeout, GridStopped, NoServers, ServiceError
from grid.services.hold import Waiter
from grid.services.roster import Event, State
from grid.services.service import Service
from tests.grounds import Ground, service_of
from tests.torn import torn_at


@pytest.mark.row("G13", "G16")
def test_a_free_server_is_had_at_once_and_given_back_at_once() -> None:
    service, (one, two) = service_of("s/0", "s/1")
    first, second = service.acquire(), service.acquire()
    assert (first._server, second._server) == (one, two)
    assert service.roster.names(State.BUSY) == ["s/0", "s/1"] and service.at_once() is None
    assert one.load.jobs == 1 and one.load.acquired
    service.release(second)
    assert service.roster.free == ["s/1"] and not two.load.acquired and two.hold is None
    assert service.acquire()._server is two


@pytest.mark.row("G15", "G17")
def test_a_server_is_free_when_its_last_call_has_ended_and_once() -> None:
    service, (one,) = service_of("s/0")
    proxy = service.acquire()
    calls = [one.submit("f", (), {}, proxy) for _ in range(2)]
    service.release(proxy)
    calls[0].end()
    assert service.roster.state("s/0") is State.BUSY
    calls[1].end()
    assert service.roster.free == ["s/0"]
    other = service.acquire()
    service.release(proxy)  # it is somebody else's by now
    one.free_if_idle()
    assert service.roster.state("s/0") is State.BUSY
    service.release(other)
    assert service.roster.free == ["s/0"]


@pytest.mark.row("G12")
def test_who_waits_is_served_in_turn_or_told_why_not() -> None:
    ground = Ground()
    service, (one,) = service_of("s/0", ground=ground)
    held = service.acquire()
    with pytest.raises(AcquireTimeout, match=r"within 0.5 s.*1 waiting. s/0 on here: acquired"):
        service.acquire(0.5)
    assert not service.roster.waiting
    ground.then = lambda waiter: service.release(held)
    again = service.acquire(5)
    assert again._server is one and ground.roused
    ground.failures["there"] = ValueError("no route")
    ground.then = lambda waiter: service.gone(one, Event.LOST, "it died")
    with pytest.raises(NoServers, match=r"no server is left .no route."):
        service.acquire(5)
    ground.halted = True
    with pytest.raises(GridStopped):
        service.acquire(5)


@pytest.mark.row("G12")
def test_choosy_ones_get_servers_that_last() -> None:
    service, (one, two) = service_of("s/0", "s/1")
    one.lasts = lambda seconds: seconds < 10  # type: ignore[method-assign]
    assert service.acquire(expect_s=60)._server is two
    assert service.acquire(expect_s=1)._server is one


@pytest.mark.row("U05")
def test_a_dropped_proxy_gives_its_server_back_and_the_line_is_named(caplog: pytest.LogCaptureFixture) -> None:
    service, (one,) = service_of("s/0")
    proxy = service.acquire()
    call = one.submit("f", (), {}, proxy)
    del proxy
    service.look_after()
    assert service.roster.state("s/0") is State.BUSY, "a call is under way"
    call.end()
    with caplog.at_level(logging.WARNING):
        service.look_after()
    assert service.roster.free == ["s/0"]
    assert "s/0 was acquired at" in caplog.text and "test_service.py:" in caplog.text


@pytest.mark.row("U02")
@pytest.mark.parametrize("others", [False, True], ids=["nobody waits", "somebody waits"])
def test_wherever_acquire_and_release_are_torn_off_the_server_comes_back(others: bool) -> None:
    service, _ = service_of("s/0")
    with torn_at(0) as torn:
        use(service, Waiter() if others else None)
    assert torn.count > 20
    for at in range(1, torn.count + 1):
        service, (one,) = service_of("s/0")
        waiter = Waiter()
        with torn_at(at) as torn:
            use(service, waiter if others else None)
        service.look_after()
        assert service.roster.free == ["s/0"] or waiter.granted == (one,), torn.place
        if not service.give_up(waiter) or waiter.granted:
            service.give_back(waiter)
        assert service.roster.free == ["s/0"], torn.place
        assert service.acquire(5)._server is one, torn.place


def use(service: Service, waiter: Waiter | None) -> None:
    proxy = service.acquire(5)
    if waiter is not None:
        service.ask(waiter, lambda waiter: None)
    service.release(proxy)


@pytest.mark.row("U05")
def test_a_group_is_held_once_and_says_whom_it_waits_for() -> None:
    ground = Ground()
    service, seats = service_of("s/0", "s/1", ground=ground)
    held = service.acquire()
    with pytest.raises(ServiceError, match=r"this thread holds s/0 itself, acquired at .*test_service.py"):
        service.hold_group(None)
    with pytest.raises(AcquireTimeout):
        service.hold_group(0.1)
    service.release(held)
    with service.in_group(5) as group:
        assert [proxy._server for proxy in group] == seats and service.hold_group(5) is group
        assert service.held_by_caller() == "broadcast or scatter hold all servers until release_all"
        results = service.scatter("f", [1, (2, 3)], None, cycle=False, timeout=None)
        assert [result.args for result in results] == [(1,), (2, 3)]  # type: ignore[attr-defined]
        with pytest.raises(ServiceError, match="3 elements for 2 servers"):
            service.scatter("f", [1, 2, 3], None, cycle=False, timeout=None)
        for result in results:
            result.end()  # type: ignore[attr-defined]
    assert service.roster.free == ["s/0", "s/1"] and service.group is None


@pytest.mark.row("G12", "G25")
def test_what_was_granted_to_one_who_gave_up_goes_back() -> None:
    ground = Ground()
    service, _ = service_of("s/0", ground=ground)
    held = service.acquire()

    def interrupted(waiter: Any) -> None:
        service.release(held)
        assert waiter.granted
        raise KeyboardInterrupt

    ground.then = interrupted
    with pytest.raises(KeyboardInterrupt):
        service.acquire()
    assert service.roster.free == ["s/0"]


@pytest.mark.row("G10")
def test_status_is_plain() -> None:
    service, _ = service_of("s/0", "s/1")
    proxy = service.acquire()
    told = service.status()
    assert (told["free"], told["acquired"], told["waiting"]) == (1, 1, 0)
    assert [server["state"] for server in told["servers"]] == ["acquired", "free"]
    service.release(proxy)
