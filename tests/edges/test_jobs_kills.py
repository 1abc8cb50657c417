"""The manager's process killed with -9: no acknowledged job is lost, none is completed twice, all go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import JobState, ThreadEngine, make_service
from tests.edges.jobs_killed import SETTINGS
from tests.edges.jobs_services import ALL
from tests.lab.postgres import Postgres, postgres  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
LIVES = 200 if os.environ.get("GRID_NIGHTLY") else 80
LIMIT_S = 60.0


def check(place: str, log: Path, lives: int, folders: Path) -> None:
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line for line in lines if line[0] == "broken"] == []
    assert sum(line[0] == "killed" for line in lines) == lives
    submitted = [line[1] for line in lines if line[0] == "submitted"]
    completed = Counter(line[1] for line in lines if line[0] == "complete")
    assert len(submitted) > lives and len(completed) > lives / 4  # it was busy indeed
    assert len(set(submitted)) == len(submitted)
    service = make_service(place, engine=ThreadEngine(3, 6), settings=SETTINGS, services=ALL, directory=folders)
    try:
        manager = service.calls.manager
        assert set(submitted) <= set(manager.records)
        for id in completed:
            assert manager.records[id].state is JobState.COMPLETE, "what was announced was stored before"
        assert max(completed.values()) == 1, "a job was completed twice"
        deadline = time.monotonic() + LIMIT_S
        while not all(record.state.ended for record in manager.records.values()):
            assert time.monotonic() < deadline, "some job did not go on"
            time.sleep(0.05)
        for record in manager.records.values():
            kind = record.service.rpartition(".")[2]
            if record.state is JobState.COMPLETE and kind == "Steps":
                assert record.result["k"] == record.request["data"]["n"]
            if kind == "Fail":
                assert record.state in (JobState.ERROR, JobState.CANCELLED, JobState.ABORTED)
    finally:
        service.close()


@pytest.mark.row("J01", "J19", "J25", "C09", "V08")
def test_many_kills_lose_no_acknowledged_job_and_complete_none_twice(tmp_path: Path) -> None:
    store, log = tmp_path / "s", tmp_path / "log"
    command = [sys.executable, "-m", "tests.edges.jobs_killed", str(store), str(log), str(LIVES), "7"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    check(str(store), log, LIVES, store)


@pytest.mark.row("J01", "J19")
def test_kills_with_a_manager_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:  # noqa: F811
    url, log = postgres.database(), tmp_path / "log"
    program = (
        "import sys, tests.edges.jobs_killed as k\n"
        "from grid.jobs import Store\n"
        "k.Store = lambda place: opened(place)\n"
        "def opened(place):\n"
        "    import time\n"
        "    from grid.jobs import StoreLocked\n"
        "    for _ in range(2000):\n"
        "        try: return Store(place, sys.argv[3])\n"
        "        except StoreLocked: time.sleep(0.005)\n"
        "k.main(sys.argv[1], sys.argv[2], 15, 11)\n"
    )
    command = [sys.executable, "-c", program, url, str(log), str(tmp_path / "folders")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    deadline = time.monotonic() + 20
    while True:
        try:
            lines = log.read_text()
            assert "broken" not in lines and lines.count("submitted") > 15
            check_soon(url, log, tmp_path)
            return
        except Exception as exc:
            if "in use" not in str(exc) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def check_soon(url: str, log: Path, tmp_path: Path) -> None:
    lines = [line.split() for line in log.read_text().splitlines()]
    submitted = {line[1] for line in lines if line[0] == "submitted"}
    completed = Counter(line[1] for line in lines if line[0] == "complete")
    service = make_service(
        url, engine=ThreadEngine(3, 6), settings=SETTINGS, services=ALL, directory=tmp_path / "folders"
    )
    try:
        records = service.calls.manager.records
        assert submitted <= set(records) and max(completed.values(), default=1) == 1
        deadline = time.monotonic() + LIMIT_S
        while not all(record.state.ended for record in records.values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        service.close()


SERVE = """
import sys, time
from grid import LocalGrid
from grid.jobs import Settings, make_service
from tests.edges.jobs_services import ALL, Square, Steps
if __name__ == "__main__":
    grid = LocalGrid(2, output=None)
    service = make_service(sys.argv[1], grid, settings=Settings(checkpoint_s=0.02, tick_s=0.05), services=ALL)
    with service:
        job = Steps.submit(n=600)
        after = Square.submit(value=5, after=job)
    print(job.id, after.id, flush=True)
    while job.best is None or job.best["k"] < 50:
        time.sleep(0.01)
    print("busy", flush=True)
    time.sleep(600)
"""


@pytest.mark.row("J01", "J19", "V08", "G63")
def test_a_manager_over_a_grid_is_killed_and_the_next_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text(SERVE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "serve.py"), str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stdout is not None
    ids = child.stdout.readline().split()
    assert child.stdout.readline() == "busy\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    service: Any = make_service(tmp_path / "s", engine=ThreadEngine(1, 2), settings=SETTINGS, services=ALL)
    try:
        result = service.job(ids[0]).wait(LIMIT_S)
        assert result["k"] == 600 and result["restored"] is True and result["attempt"] == 2
        assert service.job(ids[1]).wait(LIMIT_S) == 25
    finally:
        service.close()
    deadline = time.monotonic() + LIMIT_S
    while any(name.startswith("run-") for name in os.listdir(os.environ["GRID_RUNTIME_DIR"])):
        assert time.monotonic() < deadline, "the killed manager's grid left something"
        time.sleep(0.05)
