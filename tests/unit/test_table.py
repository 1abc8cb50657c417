"""All services of a grid: found by their ids, shown to look at, published once."""

from __future__ import annotations

import pytest

from grid.errors import GridStopped, UnknownService
from grid.services.roster import State
from grid.services.table import FreeQueue, Services, View, new_id, servers_of
from tests.grounds import Ground, Seat, service_of


@pytest.mark.row("U09")
def test_ids_tell_the_class_and_come_once() -> None:
    ids = {new_id([]) for _ in range(100)}
    assert len(ids) == 100 and all(each.startswith("list.") for each in ids)


@pytest.mark.row("G10")
def test_what_is_not_there_is_named_with_what_is() -> None:
    ground = Ground()
    services = Services(ground)
    services.add("s", frozenset())
    with pytest.raises(UnknownService, match="Published: 's'"):
        services.find("t")
    ground.halted = True
    with pytest.raises(GridStopped):
        services.find("t")
    assert services.find("s") is services["s"] and list(services) == ["s"]


@pytest.mark.row("G10", "U09")
def test_an_object_is_known_until_its_service_is_withdrawn() -> None:
    services, model = Services(Ground()), object()
    first = services.add("s", frozenset())
    services.note(model, "s")
    assert first.instance is model and services.published[id(model)] == (model, "s")
    services.add("t", frozenset())
    services.note(model, "t")  # published once more: both have it
    assert first.instance is model and services.published[id(model)][1] == "t"
    services.remove("t")
    assert not services.published and list(services) == ["s"]
    services.clear_servers()
    assert first.instance is None


@pytest.mark.row("U09")
def test_an_object_is_not_known_by_a_service_that_ends() -> None:
    services, model = Services(Ground()), object()
    services.add("s", frozenset())
    services.note(model, "s")
    services.disown("s")  # it is about to end, and still has its servers
    assert not services.published and list(services) == ["s"]
    services.remove("s")
    services.note(model, "s")  # its publisher was slower than somebody who ended it
    assert not services.published


@pytest.mark.row("G10", "G57")
def test_views_are_to_look_at() -> None:
    service, (one, two) = service_of("s/0", "s/1")
    services = Services(Ground())
    services._by_id["s"] = service
    servers, queues = View(services.find, services, servers_of), View(services.find, services, FreeQueue)
    late = Seat("s/2")
    service.announce([late])
    held = service.acquire()
    assert servers["s"] == [one, two], "one that starts is not there yet"
    assert queues["s"].items() == [two] and len(queues["s"]) == 1 and not queues["s"].empty()
    assert list(services.servers()) == [one, two, late]
    assert "s/1" in queues._repr_html_() and "s/0" in repr(servers)
    service.release(held)
    services.clear_servers()
    assert {server.final_state for server in (one, two, late)} == {State.TERMINATED} and not service.servers
