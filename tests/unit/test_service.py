"""What runs on hosts stands on itself: a service brings nothing of the client's or the manager's side along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_imports import imports, modules

GRID = Path(__file__).parents[2] / "grid"


@pytest.mark.row("V01", "G69")
def test_what_is_shipped_to_hosts_imports_nothing_of_jobs_but_its_own_wing() -> None:
    wrong = [
        f"{path.name}:{line}: {name}"
        for module, path in modules()
        if module.startswith("grid.jobs.host")
        for line, name in imports(path, module)
        if name.startswith("grid.jobs")
        and not name.startswith("grid.jobs.host")
        and not (path.name == "service.py" and name == "grid.jobs")  # the front door, in `Service.submit`
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.row("V01", "P19")
def test_the_clients_side_is_loaded_when_something_is_submitted_and_not_before() -> None:
    code = """
import sys
from grid.jobs import AbortService, Message, Request, Service, request
import grid.jobs.host.runner, grid.jobs.host.worker

class Fit(Service):
    version = "1"

sides = {f"grid.jobs.{side}" for side in ("client", "manager", "line", "fetch", "store", "server", "api")}
assert not sides & {".".join(name.split(".")[:3]) for name in sys.modules}
try:
    Fit.submit(service=7)
except ValueError as exc:
    print(exc)
assert "grid.jobs.client.context" in sys.modules and "grid.jobs.store.store" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=GRID.parent)
    assert "7 is no job service" in done.stdout, done.stderr
