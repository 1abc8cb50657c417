"""One server: when it is free, who has it, how long it lasts."""

from __future__ import annotations

import pytest

from grid.hosts import Host
from grid.services.load import Load
from grid.services.proxy import Proxy
from grid.services.roster import State
from grid.services.server import Server
from tests.grounds import Ground, Seat, service_of


@pytest.mark.row("G15", "G40")
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("idle", [False, True])
def test_it_is_free_exactly_when_it_is_released_and_idle(released: bool, idle: bool) -> None:
    service, (one,) = service_of("s/0")
    proxy = service.acquire()
    if not idle:
        one.submit("f", (), {}, proxy)
    proxy._hold.released = released
    one.free_if_idle()
    assert (one.state is State.FREE) == (released and idle)


@pytest.mark.row("G11")
def test_one_that_is_made_for_a_proxy_is_that_ones() -> None:
    proxy = Proxy(Ground(), Seat("s/1"), frozenset())
    made = Server("s", "s/0", Host("here"), proxy)
    assert proxy._server is made and made.proxy is proxy and made.state is State.STARTING
    del proxy
    assert made.proxy is None


@pytest.mark.row("G40")
def test_a_lasting_server_suits_everybody() -> None:
    class Ends(Server):
        left_s = 30.0  # type: ignore[assignment]

    assert Server("s", "s/0", Host("here")).lasts(1e9)
    assert Ends("s", "s/0", Host("here")).lasts(30) and not Ends("s", "s/0", Host("here")).lasts(31)


@pytest.mark.row("G18")
def test_load_remembers_the_last_fifty_calls_newest_first() -> None:
    load = Load()
    assert list(load.time) == [0.0] and load.mean == 0
    for number in range(60):
        load.add(float(number))
    assert load.calls == 60 and load.total == sum(range(60)) and list(load.time) == list(range(59, 9, -1))
