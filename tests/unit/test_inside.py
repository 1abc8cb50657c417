"""Grids inside of jobs: written down in the home directory, and told of while their jobs run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from grid.batch.inside import grids_in_jobs, write_down
from grid.batch.records import KEPT_S, base_directory
from grid.batch_systems import JobState, JobStatus

pytestmark = pytest.mark.row("L14")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def of_a_job(tmp_path: Path, job: str = "12.vm") -> dict[str, str]:
    (tmp_path / "nodes").write_text("n1\nn1\n")
    return {"PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_JOBID": job, "PBS_NP": "2"}


def states(**known: JobState) -> object:
    def ask(jobs: Sequence[str]) -> dict[str, JobStatus]:
        return {job: JobStatus(job, known.get(f"j{job}", JobState.UNKNOWN)) for job in jobs}

    return ask


def test_a_process_in_a_job_is_written_down_and_another_is_not(tmp_path: Path) -> None:
    assert write_down("g0", "fit", {}) is None
    path = write_down("g1", "fit", of_a_job(tmp_path))
    assert path is not None and path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["job"] == "12.vm"
    assert write_down("g2", "fit", {"PBS_NODEFILE": "/no/such", "PBS_JOBID": "1", "PBS_NP": "2"}) is None
    assert write_down("g3", "fit", of_a_job(tmp_path, "")) is None  # no job to ask for


@pytest.mark.parametrize(
    ("state", "shown", "stays"),
    [
        (JobState.RUNNING, True, True),
        (JobState.EXITING, True, True),
        (JobState.QUEUED, False, True),
        (JobState.UNKNOWN, False, True),
        (JobState.DONE, False, False),
    ],
)
def test_what_the_batch_system_says_decides(tmp_path: Path, state: JobState, shown: bool, stays: bool) -> None:
    path = write_down("g1", "fit", of_a_job(tmp_path, "12"))
    assert path is not None
    found = grids_in_jobs(states(j12=state))  # type: ignore[arg-type]
    assert [one["id"] for one in found] == ["g1"] * shown and path.exists() is stays


def test_the_oldest_comes_first_and_what_is_too_old_goes(tmp_path: Path) -> None:
    for number, age in enumerate((10.0, 500.0, KEPT_S + 60)):
        path = write_down(f"g{number}", "fit", of_a_job(tmp_path, str(number)))
        assert path is not None
        path.write_text(json.dumps({**json.loads(path.read_text()), "began": time.time() - age}))
    (base_directory() / "grid-torn.json").write_text("{")
    (base_directory() / "grid-odd.json").write_text('{"id": 3}')
    running = states(j0=JobState.RUNNING, j1=JobState.RUNNING)
    assert [one["id"] for one in grids_in_jobs(running)] == ["g1", "g0"]  # type: ignore[arg-type]
    assert not (base_directory() / "grid-g2.json").exists()


def test_the_batch_system_is_not_asked_for_nothing() -> None:
    def ask(jobs: Sequence[str]) -> dict[str, JobStatus]:
        raise AssertionError(jobs)

    assert grids_in_jobs(ask) == []
