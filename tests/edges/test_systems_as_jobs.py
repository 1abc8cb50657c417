"""Task systems that run as jobs: rounds, pushed tasks, errors; restarted, aborted, stalled; here and over ssh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grid import Limits, LocalGrid, SSHGrid
from grid.grids.abstract import AbstractGrid
from grid.jobs import JobAborted, JobFailed, JobState, ServerProxy, Settings, make_service
from tests.edges.systems_as_jobs import HeldAsJob, NoSystem, SquaresAsJob
from tests.lab import Lab

LIMIT_S = 60.0
QUICK = Settings(tick_s=0.05, abort_grace_s=10.0, suspend_s=20.0)
ALL = [SquaresAsJob, HeldAsJob, NoSystem]
EXPECTED = {
    "sum": sum(n * n for n in range(25) if n != 13) + 101**2 + 103**2,
    "errors": ["ValueError: 13 is out of order"],
    "pushed": 2,
}


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def jobs_on(g: AbstractGrid, place: Path) -> Iterator[ServerProxy]:
    service = make_service(place, g, settings=QUICK, user="mara", services=ALL)
    try:
        with service:
            yield service
    finally:
        service.close()


@pytest.mark.row("K05", "K06", "K07", "K09", "K34")
def test_a_system_runs_as_a_job_in_rounds_with_pushed_tasks_and_errors(tmp_path: Path) -> None:
    with LocalGrid(2, output=None, limits=Limits(stop_s=1.0)) as g:
        with jobs_on(g, tmp_path / "s"):
            jobs = [SquaresAsJob.submit(n=25, lazy=lazy, folder=str(tmp_path)) for lazy in (False, True)]
            for job in jobs:
                assert job.wait(LIMIT_S) == EXPECTED
                assert job.best["sum"] == EXPECTED["sum"] and job.status["progress"][0] == 27
            assert (tmp_path / "7").read_text() == "xx"  # once for each job
            with pytest.raises(JobFailed, match="generate_tasks gave none"):
                SquaresAsJob.submit(n=3, endless=True).wait(LIMIT_S)
            with pytest.raises(JobFailed, match="returned a int"):
                NoSystem.submit().wait(LIMIT_S)


@pytest.mark.row("K38", "K06")
def test_a_system_that_runs_as_a_job_is_fetched_later_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "go"
    with LocalGrid(4, output=None, limits=Limits(stop_s=1.0)) as g:
        with jobs_on(g, tmp_path / "s"):
            job = HeldAsJob.submit(n=6, path=str(path))
            until(lambda: (job.status["progress"] or [0])[0] == 3)  # the even ones
        assert all((tmp_path / f"go-{n}").read_text() == "x" for n in (0, 2, 4))
        path.touch()
        with jobs_on(g, tmp_path / "s") as service:
            again = service.job(job.id)
            assert again.wait(LIMIT_S) == {"sum": sum(range(6)), "errors": [], "pushed": 0}
            assert again.status["progress"][0] == 6
        assert all((tmp_path / f"go-{n}").read_text() == "x" for n in (0, 2, 4)), "finished tasks are not run again"


@pytest.mark.row("K10", "K38")
def test_a_system_that_runs_as_a_job_is_aborted(tmp_path: Path) -> None:
    with LocalGrid(2, output=None, limits=Limits(stop_s=1.0)) as g:
        with jobs_on(g, tmp_path / "s"):
            job = HeldAsJob.submit(n=6, path=str(tmp_path / "go"))
            until((tmp_path / "go-1").exists)
            job.abort("enough")
            with pytest.raises(JobAborted, match="enough"):
                job.wait(LIMIT_S)
            assert job.state is JobState.ABORTED
            (tmp_path / "go").touch()


@pytest.mark.row("K40")
def test_a_system_runs_as_a_job_on_hosts_where_only_the_kernel_is(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with SSHGrid(["s1", "s2"], output=None, limits=Limits(stop_s=1.0), wait="all") as g:
        with jobs_on(g, tmp_path / "s"):
            assert SquaresAsJob.submit(n=25).wait(LIMIT_S) == EXPECTED
