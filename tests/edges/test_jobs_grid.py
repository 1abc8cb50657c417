"""Jobs on the servers of a grid: units over all of them, deaths, shares, donated machines."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import Limits, LocalGrid
from grid.jobs import JobAborted, JobFailed, JobState, ServerProxy, Service, ServiceHandler, Settings, make_service
from tests.edges.jobs_services import Deaf, KillsWorker, Square, Steps, Suicide, Where

LIMIT_S = 60.0
QUICK = Settings(tick_s=0.05, abort_grace_s=2.0, suspend_s=10.0, checkpoint_s=0.02, attempts=3)


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


@pytest.fixture
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(3, output=None, limits=Limits(stop_s=1.0)) as grid:
        yield grid


@pytest.fixture
def service(grid: LocalGrid, tmp_path: Path) -> Iterator[ServerProxy]:
    service = make_service(tmp_path / "store", grid, settings=QUICK, user="mara")
    with service:
        yield service
    service.close()


@pytest.mark.row("V10", "V13", "J05", "B10")
def test_a_jobs_units_run_on_all_servers_and_not_where_the_job_does(service: ServerProxy) -> None:
    pairs = Where.submit(n=60).wait(LIMIT_S)
    assert [x for x, _ in pairs] == list(range(60))
    places = {pid for _, pid in pairs}
    assert os.getpid() not in places and 2 <= len(places) <= 3
    assert Where.submit(n=0).wait(LIMIT_S) == []


@pytest.mark.row("V10", "R01", "V24")
def test_classes_and_functions_that_no_host_can_import_travel(service: ServerProxy) -> None:
    factor = 3

    class Local(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            self.shift = 1
            return [handler.map(lambda x: factor * x, [1, 2]), handler.map(self.shifted, [1, 2])]

        def shifted(self, x: int) -> int:
            return x + self.shift

    assert Local.submit().wait(LIMIT_S) == [[3, 6], [2, 3]]


@pytest.mark.row("J25", "V13", "H13")
def test_a_unit_whose_worker_dies_is_done_by_another(service: ServerProxy, tmp_path: Path) -> None:
    assert KillsWorker.submit(path=str(tmp_path / "mark")).wait(LIMIT_S) == ["survived"]


@pytest.mark.row("V13", "J25")
def test_a_unit_that_kills_every_worker_is_given_up(service: ServerProxy) -> None:
    class Poison(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            return handler.map(os._exit, [4], attempts=2)

    with pytest.raises(JobFailed, match="exit status 4"):
        Poison.submit().wait(LIMIT_S)
    assert Square.submit(values=[2, 3, 4]).wait(LIMIT_S) == [4, 9, 16]  # the workers were replaced


@pytest.mark.row("J19", "V08", "J21")
def test_a_job_whose_process_dies_begins_again_and_is_given_up_in_the_end(service: ServerProxy) -> None:
    once, always = Suicide.submit(deaths=1), Suicide.submit(deaths=99)
    assert once.wait(LIMIT_S) == 2
    with pytest.raises(JobFailed, match="process died 3 times"):
        always.wait(LIMIT_S)


@pytest.mark.row("P13", "V22", "V12", "P07")
def test_a_deaf_job_is_killed_after_the_grace_time_and_its_server_replaced(
    service: ServerProxy, grid: LocalGrid
) -> None:
    deaf, stopped = Deaf.submit(), Deaf.submit()
    for job in (deaf, stopped):
        until(lambda job=job: (job.status["ready_age"] or 0) > 0.1)
    deaf.abort("too slow", grace_s=0.3)
    stopped.stop()
    for job in (deaf, stopped):
        with pytest.raises(JobAborted, match="was killed"):
            job.wait(LIMIT_S)
    jobs = [Steps.submit(n=3) for _ in range(6)]
    assert [job.wait(LIMIT_S)["k"] for job in jobs] == [3] * 6


@pytest.mark.row("V11", "V14", "V16", "V19", "V23", "P13", "P14", "V12")
def test_a_job_on_a_server_is_steered_paused_asked_and_aborted(service: ServerProxy) -> None:
    job = Steps.submit()
    job.control("SetK", k=5000)
    until(lambda: (job.best or {}).get("k", 0) > 5000)
    job.pause()
    until(lambda: job.status["paused"])
    before = job.ask("GetK", timeout=LIMIT_S)
    job.resume()
    until(lambda: job.ask("GetK", timeout=LIMIT_S) > before)
    job.abort("seen enough")
    with pytest.raises(JobAborted) as aborted:
        job.wait(LIMIT_S)
    assert aborted.value.partial["aborted"] is True


@pytest.mark.row("J19", "V06", "V07", "V08", "J01")
def test_when_the_manager_stops_jobs_checkpoint_and_go_on_with_the_next_one(tmp_path: Path, grid: LocalGrid) -> None:
    with make_service(tmp_path / "s", grid, settings=Settings(tick_s=0.05), user="mara") as first:
        job, waiting = Steps.submit(n=400), Square.submit(value=3, after="job-1")
        until(lambda: (job.best or {}).get("k", 0) > 20)
        first.close()
    assert not grid.ishalted()
    with make_service(tmp_path / "s", grid, settings=QUICK, user="mara", services=[Steps, Square]) as second:
        result = second.job(job.id).wait(LIMIT_S)
        assert result == {"k": 400, "restored": True, "attempt": 2}
        assert second.job(waiting.id).wait(LIMIT_S) == 9
    second.close()


@pytest.mark.row("J05", "J06", "J07", "J08")
def test_units_of_jobs_at_work_are_shared_by_priority(grid: LocalGrid, tmp_path: Path) -> None:
    rules = ("share", "users", "priority")
    settings = Settings(tick_s=0.05, rules=rules, allowance=1e9)
    service = make_service(tmp_path / "s", grid, settings=settings, user="mara")
    done: list[str] = []
    desk = service.calls.manager.desk._plain
    deliver = desk._deliver
    desk._deliver = lambda unit, ok, value: (done.append(unit.job), deliver(unit, ok, value))  # type: ignore[assignment]
    with service:
        low, high = Where.submit(n=500, priority=1), Where.submit(n=1500, priority=3)
        high.wait(LIMIT_S)
        low.wait(LIMIT_S)
    service.close()
    begun = max(done.index(low.id), done.index(high.id))
    counts = Counter(done[begun : begun + 1000])
    assert counts[high.id] == pytest.approx(750, rel=0.1)


@pytest.mark.row("J10", "H13")
def test_a_machine_that_somebody_gave_does_its_owners_work_first_or_only(grid: LocalGrid, tmp_path: Path) -> None:
    service = make_service(tmp_path / "s", grid, settings=QUICK, user="ole")
    manager = service.calls.manager
    manager.desk.donate("localhost", "mara", only=True)
    with service:
        others = Where.submit(n=5)
        mine = manager.submit("mara", [{"request": Where.request(n=5).to_plain()}])[0]
        assert manager.wait(mine.id, LIMIT_S).state is JobState.COMPLETE
        assert others.state is not JobState.COMPLETE
        manager.desk.donate("localhost", None)
        assert len(others.wait(LIMIT_S)) == 5
    service.close()


@pytest.mark.row("J23")
def test_a_job_that_takes_too_much_memory_fails_and_the_next_one_may(service: ServerProxy) -> None:
    class Hungry(Service):
        version = "1"
        limits = {"memory_bytes": 100 * 2**20}  # noqa: RUF012

        def run(self, handler: ServiceHandler) -> Any:
            return len(bytearray(int(self.request.mb) * 2**20))

    with pytest.raises(JobFailed, match="MemoryError"):
        Hungry.submit(mb=400).wait(LIMIT_S)
    assert Hungry.submit(mb=10).wait(LIMIT_S) == 10 * 2**20


@pytest.mark.row("C38", "V13")
def test_a_race_on_servers(service: ServerProxy) -> None:
    jobs = [Steps.submit(n=100_000, pause=0.05), Steps.submit(n=30, pause=0.001)]
    race = service.race(jobs, until="k >= 30")
    assert race.wait(LIMIT_S)["k"] == 30 and race.winner == jobs[1]
    until(lambda: jobs[0].state is JobState.ABORTED)
