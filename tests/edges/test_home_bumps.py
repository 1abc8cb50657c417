"""bumps over a grid: the serial fit's numbers, here, over ssh with a host that dies, and by its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import Limits, LocalGrid, SSHGrid
from grid.errors import GridError
from tests.lab import Lab, LabHost
from tests.models import line

pytest.importorskip("bumps", reason="bumps is not installed")
np = pytest.importorskip("numpy")

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=5.0)  # to tell a host that was switched off
GRID_BUMPS = (sys.executable, "-m", "grid", "bumps")

MODEL = """\
import numpy as np
from bumps.names import Curve, FitProblem

def line(x, m, b):
    return m * x + b

x = np.linspace(0, 1, 12)
curve = Curve(line, x, 3.0 * x + 1.0, dy=0.1 * np.ones(12), m=2.0, b=0.5)
curve.m.range(0, 6)
curve.b.range(-2, 4)
problem = FitProblem(curve)
"""


def problem_of(function: Any = line) -> Any:
    from bumps.names import Curve, FitProblem

    x = np.linspace(0, 1, 12)
    curve = Curve(function, x, 3.0 * x + 1.0, dy=0.1 * np.ones(12), m=2.0, b=0.5)
    curve.m.range(0, 6)
    curve.b.range(-2, 4)
    return FitProblem(curve)


def dream(parallel: int, **options: Any) -> Any:
    """Draws of a chain, and the best point."""
    from bumps.fitters import fit

    np.random.seed(5)
    result = fit(problem_of(), method="dream", parallel=parallel, **{"samples": 120, "burn": 5, "pop": 4, **options})
    return result.state.draw().points.tolist(), result.x.tolist()


@pytest.fixture(scope="module")
def serial() -> Any:
    return dream(1)


@pytest.mark.row("Q01")
def test_dream_draws_what_the_serial_run_draws(serial: Any) -> None:
    import bumps.mapper
    from bumps.webview.server import fit_thread

    from grid.compat.bumps import GridMapper, on_grid

    theirs = bumps.mapper.MPMapper
    with LocalGrid(2, output=None) as g:
        with on_grid(g) as mapper:
            assert bumps.mapper.MPMapper is mapper is fit_thread.MPMapper
            assert dream(0) == serial
            (service_id,) = g.servers
            assert sum(server["calls"] for server in g.status()["services"][service_id]["servers"]) > 0
            with pytest.raises(GridError, match="another block"), on_grid(g):
                pass
        assert bumps.mapper.MPMapper is theirs is fit_thread.MPMapper
        assert not g.servers, "the copies of the problem went with the block"
        mapper = GridMapper(g)
        points = np.array([[0.5, 0.5], [1.0, 3.0]])
        problem = problem_of()
        assert mapper.start_mapper(problem)(points) == [problem.nllf(point) for point in points]
        mapper.start_mapper(problem)
        assert len(g.servers) == 1, "an earlier fit's copies go when the next one begins"
    with pytest.raises(GridError, match="GridMapper"):
        GridMapper(None)  # type: ignore[arg-type]


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    packages = ("pyzmq", "dill", "bumps", "numpy", "scipy", "uncertainties")
    with Lab([LabHost("b1", packages=packages), LabHost("b2", packages=packages)]) as lab:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
        yield lab


@pytest.mark.row("Q01")
@pytest.mark.lab
def test_a_host_that_dies_in_the_middle_of_a_fit_changes_no_number(hosts: Lab, serial: Any) -> None:
    from bumps.fitters import DreamFit, FitDriver

    from grid.compat.bumps import GridMapper

    with SSHGrid(list(hosts.hosts), output=None, wait="all", limits=QUICK) as g:
        mapper = GridMapper(g)
        problem = problem_of()
        evaluate = mapper.start_mapper(problem)
        generations: list[int] = []

        def points_of(points: Any) -> list[float]:
            generations.append(len(points))
            if len(generations) == 4:
                hosts.hosts["b2"].kill()
            return evaluate(points)

        np.random.seed(5)
        driver = FitDriver(DreamFit, problem=problem, monitors=[], mapper=points_of, samples=120, burn=5, pop=4)
        best, _ = driver.fit()
        assert (driver.fitter.state.draw().points.tolist(), best.tolist()) == serial
        assert len(generations) > 8 and any("b2" in host for host in g.failures)


@pytest.mark.row("Q01")
def test_the_command_line_of_bumps_runs_over_a_grid(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    words = ["model.py", "--fit=dream", "--batch", "--samples=60", "--burn=2", "--pop=4", "--seed=1"]
    chains = []
    for place, options in (("here", ["--parallel=1"]), ("there", [])):
        done = subprocess.run(
            [*GRID_BUMPS, "--local", "2", "--trace", f"{place}.json", *words, *options, f"--export={place}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "MPLBACKEND": "Agg"},
        )
        assert done.returncode == 0, done.stderr
        chains.append((tmp_path / place / "model.par").read_text())
    assert chains[0] == chains[1]
    traces = {place: (tmp_path / f"{place}.json") for place in ("here", "there")}
    assert '"nllf' in traces["there"].read_text() and not (
        traces["here"].exists() and "nllf" in traces["here"].read_text()
    )


@pytest.mark.row("Q01")
def test_mistakes_on_the_command_line_are_those_of_grid_or_bumps(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*GRID_BUMPS, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    done = run("--local", "0", "model.py")
    assert done.returncode == 2 and "--local" in done.stderr
    done = run()
    assert done.returncode == 2 and "MODEL" in done.stderr
