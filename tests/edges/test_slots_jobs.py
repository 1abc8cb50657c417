"""Units of jobs and tasks of systems on workers with needs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid, Needs, PublishError, Task, TaskError, TaskSystem, run_system
from grid.jobs import JobFailed, Service, ServiceHandler, Settings, ThreadEngine, open_service
from grid.jobs.manager.engine import GridEngine
from grid.jobs.manager.registry import ServiceRegistry
from grid.tasks import Master, SystemService
from tests.cards import A, B
from tests.edges.test_slots import Card, slots_of, with_two_devices

QUICK = Settings(tick_s=0.05, abort_grace_s=2.0)


@pytest.fixture(autouse=True)
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See `with_two_devices`."""
    with_two_devices(tmp_path, monkeypatch)


def device(_: Any = None) -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


class OnCards(Service):
    version = "1"
    needs = Needs(gpus=1)

    def run(self, handler: ServiceHandler) -> Any:
        return sorted(set(handler.map(device, range(20))))


class Plain(OnCards):
    needs = None


class TooMuch(OnCards):
    needs = Needs(gpus=3)


class OneTask(Task):
    def __call__(self) -> str:
        return device()


class Cards(TaskSystem):
    needs = Needs(gpus=1)

    def __init__(self) -> None:
        self.found: set[str] = set()

    def init_system(self, master: Any) -> None:
        pass

    def generate_tasks(self, master: Any) -> Iterable[Task]:
        return [OneTask() for _ in range(20)]

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.found.add(result)

    def is_complete(self, master: Any) -> bool:
        return bool(self.found)

    def gather_result(self, master: Any) -> Any:
        return sorted(self.found)


class CardsAsJob(SystemService):
    version = "1"
    needs = Needs(gpus=2)

    def make_system(self, request: Any) -> TaskSystem:
        return Cards()


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as g:
        yield g


@pytest.mark.row("O18")
def test_units_of_a_service_with_needs_have_devices_and_give_them_back_after_it(g: LocalGrid, tmp_path: Path) -> None:
    services = [OnCards, Plain, TooMuch, CardsAsJob]
    with open_service(tmp_path / "store", engine=GridEngine(g, 2), settings=QUICK, services=services):
        assert Plain.submit().wait(60) == [""]
        one, other = OnCards.submit(), CardsAsJob.submit()  # which need the same devices: one after the other
        assert set(one.wait(60)) <= {A, B} and "" not in one.wait(1)
        assert [sorted(each.split(",")) for each in other.wait(60)] == [[A, B]]
        with pytest.raises(JobFailed, match="3 devices are needed, and it has 2"):
            TooMuch.submit().wait(60)
        taken = g.publish(Card(), needs=Needs(gpus=2), servers=1, busy="wait", timeout=60)  # nobody keeps them
        assert sorted(slots_of(g, taken)[0][0].split(",")) == [A, B]


@pytest.mark.row("O18", "O12")
def test_threads_have_no_slots_and_needs_are_checked(tmp_path: Path) -> None:
    with open_service(tmp_path / "store", engine=ThreadEngine(1, 1), settings=QUICK, services=[OnCards]):
        with pytest.raises(JobFailed, match=r"need 1 device, and this job server runs them in threads"):
            OnCards.submit().wait(60)

    class Wrong(OnCards):
        pass

    Wrong.needs = {"gpus": 1}  # type: ignore[assignment]
    with pytest.raises(TypeError, match=r"needs of .*Wrong must be a Needs or None"):
        ServiceRegistry().add(Wrong)


@pytest.mark.row("O18")
def test_a_task_system_says_what_its_workers_need(g: LocalGrid) -> None:
    assert set(run_system(Cards(), g, progress=False, timeout=60)) <= {A, B}
    with Master(g, needs=Needs(gpus=2, cores=1), where="localhost") as master:
        (both,) = run_system(Cards(), master, progress=False, timeout=60)
        assert sorted(both.split(",")) == [A, B]
    with Master(g) as master, pytest.raises(TaskError, match="the workers of this master have no slots of their own"):
        master.start_system(Cards())
    with pytest.raises(PublishError, match="3 devices are needed"), Master(g, needs=Needs(gpus=3)):
        pass


@pytest.mark.row("O18", "O01")
def test_needs_cover_others() -> None:
    many = Needs(cores=4, memory="2G", gpus=1)
    for less in (Needs(), many, Needs(cores=2), Needs(memory="1G", gpus=1)):
        assert many.cover(less)
    for more in (Needs(cores=5), Needs(memory="3G"), Needs(gpus=2)):
        assert not many.cover(more)
    assert Needs().cover(Needs(memory="3G"))  # which has no limit
