"""Fits with bumps as jobs: watched, aborted, refused by name, and going on after their server was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import RequestError, open_service, remote_service
from grid.jobs.client.proxy import ServerProxy

np = pytest.importorskip("numpy")
pytest.importorskip("bumps", reason="bumps is not installed")

from grid.programs.bumps import FitService, request_of  # noqa: E402 - needs bumps

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
OPTIONS = {"method": "dream", "burn": 5, "pop": 4, "samples": 160}
MODEL = """\
import time
import numpy as np
from bumps.names import Curve, FitProblem

def line(x, m, b):
    time.sleep({pause})
    return m * x + b

x, y = np.loadtxt("data/line.dat").T
curve = Curve(line, x, y, dy=0.1 * np.ones(len(x)), m=2.0, b=0.5)
curve.m.range(0, 6)
curve.b.range(-2, 4)
problem = FitProblem(curve)
"""


def model(folder: Path, pause: float = 0.0) -> dict[str, Any]:
    """The files of a fit of a line, as words for `request_of`."""
    (folder / "data").mkdir(parents=True)
    x = np.linspace(0, 1, 12)
    np.savetxt(folder / "data" / "line.dat", np.array([x, 3 * x + 1]).T)
    (folder / "model.py").write_text(MODEL.format(pause=pause))
    return request_of(folder / "model.py", folder / "data" / "line.dat", seed=1, **OPTIONS)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    with open_service(tmp_path / "store") as opened:
        yield opened


@pytest.mark.row("Q02")
def test_a_fit_is_a_job_with_improvements_uncertainties_and_draws(service: Any, tmp_path: Path) -> None:
    job = FitService.submit(**model(tmp_path / "m"))
    told = [message.partial for message in job.messages() if message.kind == "Improved"]
    result = job.wait(LIMIT_S)
    assert told and [each["nllf"] for each in told] == sorted((each["nllf"] for each in told), reverse=True)
    for name, truth in (("m", 3.0), ("b", 1.0)):
        found = result["parameters"][name]
        assert abs(found["value"] - truth) < 5 * found["error"] + 0.2 and found["error"] > 0
    assert result["method"] == "dream" and result["generations"] > 20
    assert job.read("draws.h5").startswith(b"\x89HDF") and b"m " in job.read("fit.par")
    other = FitService.submit(**{**model(tmp_path / "n"), "method": "lm", "options": {}})
    assert abs(other.wait(LIMIT_S)["parameters"]["m"]["value"] - 3.0) < 0.01


@pytest.mark.row("Q02")
def test_what_can_not_be_fitted_is_said_by_name(service: Any, tmp_path: Path) -> None:
    words = model(tmp_path / "m")
    job = FitService.submit(**{**words, "method": "tea leaves"})
    with pytest.raises(Exception, match=r"no fitter 'tea leaves'\. It has: .*dream"):
        job.wait(LIMIT_S)
    job = FitService.submit(**{**words, "files": {**words["files"], "../escaped": ""}})
    with pytest.raises(Exception, match="leads out"):
        job.wait(LIMIT_S)
    job = FitService.submit(**{**words, "files": {"model.py": words["files"]["model.py"]}})
    with pytest.raises(Exception, match=r"line\.dat"):
        job.wait(LIMIT_S)
    with pytest.raises(RequestError, match="can't read"):
        request_of(tmp_path / "m" / "absent.py")
    with pytest.raises(RequestError, match="not below"):
        request_of(tmp_path / "m" / "model.py", __file__)


@pytest.mark.row("Q02")
def test_an_aborted_fit_ends_in_the_middle(service: Any, tmp_path: Path) -> None:
    words = model(tmp_path / "m", pause=0.02)
    job = FitService.submit(**{**words, "options": {**words["options"], "samples": 100_000}})
    next(message for message in job.messages() if message.kind == "Improved")
    job.abort("enough")
    with pytest.raises(Exception, match="enough"):
        job.wait(LIMIT_S)
    assert job.best["parameters"]


class Served:
    """`grid serve grid.programs.bumps` in a process of its own."""

    def __init__(self, store: Path) -> None:
        words = ["serve", "grid.programs.bumps", "--local", "2", "--name", "fits", "--checkpoint", "0.2"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grid", *words, "--store", str(store)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline().startswith("job server 'fits' at "), self.process.stderr.read()

    def end(self, *, kill: bool) -> None:
        self.process.kill() if kill else self.process.terminate()
        self.process.communicate(timeout=LIMIT_S)


def connected() -> ServerProxy:
    return remote_service("fits")


@pytest.mark.row("Q02")
def test_after_its_server_was_killed_a_fit_goes_on_from_its_draws(tmp_path: Path) -> None:
    served = Served(tmp_path / "store")
    try:
        with connected() as there:
            words = model(tmp_path / "m", pause=0.01)
            job = FitService.submit(**words)
            steps = (message for message in job.messages() if message.kind == "Progress")
            assert next(message for message in steps if message.k > 12)
            served.end(kill=True)
        there.close()
        served = Served(tmp_path / "store")
        with connected() as there:
            job = there.job(job.id)
            assert job.wait(LIMIT_S)["generations"] > 20 and job.status["attempt"] == 2
            told = [line["text"] for line in there.calls.history(job.id, "Log")]
            (line,) = [text for text in told if "goes on from generation" in text]
            assert int(line.split("generation ")[1].split(",")[0]) > 1
        there.close()
    finally:
        served.end(kill=False)
