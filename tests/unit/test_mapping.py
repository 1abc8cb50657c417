"""A map as a supply of packs: order, bounds, errors of items and of their iterable."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from grid.errors import CallTimeout, ServiceError
from grid.services.mapping import MapResult, MapWork, Zipped, map_over
from grid.services.service import Service
from grid.wire import raised
from tests.grounds import Seat, service_of


def answer(seat: Seat, stop: threading.Event) -> None:
    """Square each item; odd hundreds fail."""
    while not stop.is_set():
        if not seat.changed.acquire(timeout=0.05):
            continue
        for due in [due for due in seat.made if not due.over]:
            _, items, _ = due.args
            bad = {at: ValueError(f"{item} is bad") for at, item in enumerate(items) if item % 100 == 99}
            told = {at: (raised.told(error, ""), "") for at, error in bad.items()}
            due.end(([item * item for item in items], told))


@pytest.fixture
def service() -> Iterator[Service]:
    service, seats = service_of("s/0", "s/1")
    stop = threading.Event()
    threads = [threading.Thread(target=answer, args=(seat, stop)) for seat in seats]
    for thread in threads:
        thread.start()
    yield service
    stop.set()
    for thread in threads:
        thread.join(20)


def values(work: MapWork, **how: Any) -> MapResult:
    return MapResult(work, **{"timeout": 20, "return_exceptions": False, **how})


@pytest.mark.row("G45")
def test_values_come_in_the_order_of_the_items_and_each_error_in_its_place(service: Service) -> None:
    result = values(map_over(service, "f", [range(300)]), return_exceptions=True)
    got = list(result)
    assert [value for value in got if isinstance(value, int)] == [n * n for n in range(300) if n % 100 != 99]
    assert [at for at, value in enumerate(got) if isinstance(value, ValueError)] == [99, 199, 299]
    assert result.done() and result.progress == (300, 300)
    result = values(map_over(service, "f", [range(98, 102)], pack=2))
    assert next(result) == 98 * 98
    with pytest.raises(ValueError, match="99 is bad"):
        next(result)
    assert result.get() == [100 * 100, 101 * 101]


@pytest.mark.row("E07")
def test_values_before_an_error_of_the_iterable_arrive(service: Service) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the file ended")

    result = values(map_over(service, "f", [items()]))
    assert [next(result) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(OSError, match="the file ended"):
        next(result)


@pytest.mark.row("G45")
def test_items_are_read_no_further_than_values_are_fetched(service: Service) -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    result = values(map_over(service, "f", [items()], ahead=10, pack=1))
    assert next(result) == 0
    assert [next(result) for _ in range(49)] == [n * n for n in range(1, 50)]
    assert len(read) < 50 + 10 + 2 * 2, "what waits, and two packs under way on each server"
    result.cancel()
    assert result._mapping.join(20)


@pytest.mark.row("G46")
def test_a_map_that_is_cancelled_says_so_to_whoever_goes_on() -> None:
    service, (one,) = service_of("s/0")
    work = map_over(service, "f", [range(3)], pack=1)
    one.next_call()
    with pytest.raises(CallTimeout, match=r"item 0 of the map of 'f' is not ready.*0 items are done, 1 are under way"):
        next(values(work, timeout=0.01))
    work.cancel()
    for due in one.made:
        due.end(([0], {}))
    assert work.join(20)
    result = values(work)
    assert next(result) == 0
    with pytest.raises(CancelledError):
        next(result)


@pytest.mark.row("G45")
def test_what_makes_no_map_is_refused(service: Service) -> None:
    with pytest.raises(ServiceError, match="nothing to map over"):
        map_over(service, "f", [])
    with pytest.raises(ValueError, match="must not be that small"):
        map_over(service, "f", [[1]], ahead=0)
    service.methods = frozenset({"g"})
    with pytest.raises(ServiceError, match=r"no method 'f'.*Methods: g"):
        map_over(service, "f", [[1]])
    assert Zipped([[1, 2], [3]]).__len__() == 1 and not hasattr(Zipped([iter([1])]), "__len__")  # type: ignore[arg-type]
