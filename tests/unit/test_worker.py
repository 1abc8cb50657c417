"""A worker of units: functions by key, the oldest dropped, a ticket for the unit that runs."""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.jobs.host.worker import KEPT, UnitStopped, UnitWorker, add_paths
from grid.kernel.stop import Stopper

pytestmark = pytest.mark.row("V13", "V24", "T06")


@pytest.fixture
def as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GRID_ROOT", str(tmp_path))
    monkeypatch.setenv("GRID_SERVER", "w.0/1")
    handler, paths = signal.getsignal(signal.SIGUSR1), list(sys.path)
    yield
    signal.signal(signal.SIGUSR1, handler)
    sys.path[:] = paths


def test_a_function_is_loaded_once_and_its_absence_is_said() -> None:
    worker = UnitWorker()
    assert worker.do("f", 3) == (False, None)
    worker.load("f", lambda item: item * 2)
    assert worker.do("f", 3) == (True, 6)
    worker.load("none", lambda item: None)
    assert worker.do("none", 3) == (True, None)


def test_the_one_not_used_for_longest_goes() -> None:
    worker = UnitWorker()
    for number in range(KEPT):
        worker.load(str(number), lambda item: item)
    assert worker.do("0", 1) == (True, 1)
    worker.load("new", lambda item: item)
    assert worker.do("0", 1)[0] and worker.do("new", 1)[0] and not worker.do("1", 1)[0] and worker.do("2", 1)[0]


def test_a_unit_is_stopped_by_its_ticket_alone(as_before: None) -> None:
    worker = UnitWorker()
    place = worker.register()

    def unit(ticket: int) -> str:
        assert Stopper().stop([("w.0/1", *place, ticket)]) == 1
        return "to the end"

    worker.load("unit", unit)
    assert worker.do("unit", 4, ticket=5) == (True, "to the end")
    with pytest.raises(UnitStopped):
        worker.do("unit", 5, ticket=5)
    assert worker._ticket is None and not issubclass(UnitStopped, Exception)
    assert Stopper().stop([("w.0/1", *place, 5)]) == 1  # it has ended: nothing follows


def test_a_unit_that_fails_leaves_no_ticket() -> None:
    worker = UnitWorker()
    worker.load("fails", lambda item: 1 / item)
    with pytest.raises(ZeroDivisionError):
        worker.do("fails", 0, ticket=9)
    assert worker._ticket is None


def test_places_of_modules_come_last_and_once(as_before: None) -> None:
    pickle.loads(pickle.dumps(UnitWorker(["/a/place", "/another"])))
    add_paths(["/another", sys.path[0]])
    assert sys.path[-2:] == ["/a/place", "/another"] and sys.path.count("/another") == 1
