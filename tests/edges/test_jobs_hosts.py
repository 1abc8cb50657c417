"""Jobs on other hosts: over ssh, and what is shipped there; a disk that is full while a job ends."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from grid import Limits, SSHGrid
from grid.jobs import JobState, Service, ServiceHandler, Settings, StoreFull, ThreadEngine, make_service
from grid.kernel.boot import archive
from tests.edges.jobs_services import ALL, Square, Steps, Where
from tests.lab import Lab

LIMIT_S = 60.0
QUICK = Settings(tick_s=0.05, checkpoint_s=0.02)


@pytest.mark.row("V10", "J05", "V24", "V14", "P13")
def test_jobs_run_on_ssh_hosts_where_only_the_kernel_is(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    class Hosts(Service):
        version = "1"

        def run(self, handler: ServiceHandler) -> Any:
            import os

            handler.ready()
            handler.improved({"at": os.uname().nodename})
            return sorted(set(handler.map(lambda n: (n * 0, os.uname().nodename)[1], range(40))))

    with SSHGrid(["s1", "s2"], output=None, limits=Limits(stop_s=1.0), wait="all") as grid:
        service = make_service(tmp_path / "s", grid, settings=QUICK, user="mara")
        try:
            with service:
                job = Hosts.submit()
                slow = Steps.submit()
                found = job.wait(LIMIT_S)
                assert 1 <= len(found) <= 2 and job.best["at"] and os.uname().nodename not in found
                assert len(Where.submit(n=10).wait(LIMIT_S)) == 10
                deadline = time.monotonic() + LIMIT_S
                while not slow.best:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                slow.abort("enough")
                while not slow.state.ended:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                assert slow.state is JobState.ABORTED
        finally:
            service.close()


@pytest.mark.row("V01", "D02", "G69")
def test_what_is_shipped_to_hosts_is_enough_for_services(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(archive())) as shipped:
        shipped.extractall(tmp_path)
    code = """
import sys
for name in ("sqlalchemy", "alembic", "click", "rich", "yaml", "paramiko", "cryptography"):
    sys.modules[name] = None
from grid.jobs import AbortService, Message, Monitor, Request, Service, request
from grid.jobs.host.runner import JobRunner
from grid.jobs.host.worker import UnitWorker
import grid.jobs.host.references, grid.jobs.host.limits
assert UnitWorker().do("x", 1) == (False, None)
try:
    from grid.jobs import JobManager
except ImportError as exc:
    print("no manager here:", exc)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
        timeout=LIMIT_S,
    )
    assert done.returncode == 0 and "no manager here" in done.stdout, done.stderr


@pytest.mark.row("J01", "V15")
def test_a_job_that_ends_while_the_disk_is_full_is_stored_when_there_is_room(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", str(place)], stderr=subprocess.DEVNULL
    ):
        pytest.skip("only root can mount a small file system")
    try:
        service = make_service(place / "s", engine=ThreadEngine(1, 2), settings=QUICK, user="mara", services=ALL)
        try:
            with service:
                gate = Steps.submit(n=10**6, pause=0.01)
                deadline = time.monotonic() + LIMIT_S
                while not gate.best:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                filler = place / "filler"
                try:
                    with open(filler, "wb", buffering=0) as file:
                        while True:
                            file.write(b"x" * 4096)
                except OSError:
                    pass  # full
                with pytest.raises(StoreFull, match="what was acknowledged is safe"):
                    for n in range(2000):
                        service.submit_all([Square.request(value=n, text="x" * 1000)] * 20)
                gate.abort("in bad times")
                time.sleep(0.5)  # it tries, and can't
                filler.unlink()
                with pytest.raises(Exception, match="in bad times"):
                    gate.wait(LIMIT_S)
                assert Square.submit(value=3).wait(LIMIT_S) == 9
        finally:
            service.close()
    finally:
        subprocess.check_call(["umount", str(place)])
