"""Calls that fail are kept, and fail again where they can be looked at."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from grid import FailureFileError, LocalGrid
from grid.failures.keeper import MOST, Keeper
from grid.failures.reopen import Failure
from tests.edges.test_home_trace import read_until

ROOT = Path(__file__).parents[2]


class Model:
    scale = 2

    def inverse(self, x: float, *, times: int = 1) -> float:
        return times * self.scale / x

    def stuck(self) -> Any:
        return 1


def root(x: float) -> float:
    if x < 0:
        raise ValueError(f"no root of {x}")
    return float(x**0.5)


@pytest.mark.row("G47", "D03")
def test_each_kind_of_failed_call_is_kept_and_fails_again(tmp_path: Path) -> None:
    with LocalGrid(2, output=None, keep_failures=tmp_path / "failed") as g:
        sid = g.publish(Model())
        with g.acquire_service(sid) as proxy:
            assert proxy.inverse(2.0).get() == 1.0
            proxy.inverse(0, times=3).exception()
        assert len(g.map(sid, "inverse", [1, 0, 2], return_exceptions=True).get()) == 3
        with g.pool() as pool, pytest.raises(ValueError, match="no root of -4"):
            pool.map(root, [4.0, -4.0])
        with g.executor() as executor:
            assert isinstance(executor.submit(root, -9.0).exception(30), ValueError)
        assert g.keeper is not None
    files = sorted((tmp_path / "failed").iterdir())
    assert [path.name[5:] for path in files].count("inverse-ZeroDivisionError.call") == 2
    assert [path.name[5:] for path in files].count("root-ValueError.call") == 2 and len(files) == 4
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    failures = [Failure(path) for path in files]
    assert all("inverse" in f.traceback or "root" in f.traceback for f in failures)
    for failure in failures:
        with pytest.raises((ZeroDivisionError, ValueError)):
            failure.run()
    (call,) = [f.open() for f in failures if f.open()[3]]
    assert call[1:] == ("inverse", (0,), {"times": 3}) and call[0].scale == 2


@pytest.mark.row("G47")
def test_without_being_asked_nothing_is_kept(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        assert g.keeper is None and g.servers[g.publish(Model())][0].hooks == ()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="can't be kept"):
        LocalGrid(1, keep_failures=tmp_path / "file")


@pytest.mark.row("G47")
def test_what_is_kept_is_bounded_and_what_cannot_travel_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper(tmp_path)
    keeper.failed(root, None, ((n for n in range(3)),), {}, ValueError("x"))
    assert "can't be kept" in caplog.text and not list(tmp_path.iterdir())
    for number in range(MOST + 5):
        keeper.failed(root, None, (number,), {}, ValueError("x"))
    assert len(list(tmp_path.iterdir())) == MOST
    Keeper(tmp_path).failed(root, None, (1,), {}, ValueError("x"))
    assert len(list(tmp_path.iterdir())) == MOST + 1, "a second grid writes over nothing"


@pytest.mark.row("G47")
def test_files_that_are_none_or_somebody_elses_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.call").write_bytes(b"nonsense")
    with pytest.raises(FailureFileError, match="can't read"):
        Failure(tmp_path / "x.call")
    with pytest.raises(FailureFileError, match="can't read"):
        Failure(tmp_path / "none.call")
    if os.getuid() == 0:
        os.chown(tmp_path / "x.call", 12345, 12345)
        with pytest.raises(FailureFileError, match="somebody else's"):
            Failure(tmp_path / "x.call")


SCRIPT = """
import helper
from grid import Grid

class Point:
    def __init__(self, x): self.x = x

class Model:
    def norm(self, point):
        wanted = point.x
        return helper.inverse(wanted)

if __name__ == "__main__":
    with Grid.auto(output=None) as g:
        with g.acquire_service(g.publish(Model())) as proxy:
            proxy.norm(Point(0)).exception()
"""


@pytest.mark.row("D04", "G47")
def test_the_debugger_opens_where_the_call_failed(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("def inverse(x):\n    return 1 / x\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", "PYTHON_COLORS": "0"}
    command = [sys.executable, "-m", "grid"]

    def grid(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
        )

    ran = grid("run", "--keep-failures", "failed", "--local", "1", "fit.py")
    assert ran.returncode == 0 and "grid debug" in ran.stderr, ran.stderr
    (kept,) = (tmp_path / "failed").iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = grid("debug", "--no-pdb", str(kept))
    assert again.returncode == 1 and "ZeroDivisionError" in again.stderr and "in norm" in again.stderr
    ours, theirs = pty.openpty()
    try:
        words = [*command, "debug", str(kept)]
        terminal = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=elsewhere, env=environment)
        read_until(ours, "(Pdb)")
        os.write(ours, b"up\n")
        read_until(ours, "(Pdb)")
        os.write(ours, b"p ('seen', point.x, wanted)\n")
        read_until(ours, "('seen', 0, 0)")
        os.write(ours, b"q\n")
        assert terminal.wait(30) == 1
    finally:
        os.close(ours)
        os.close(theirs)
    (tmp_path / "helper.py").write_text("def inverse(x):\n    return 0.0 if x == 0 else 1 / x\n")
    mended = grid("debug", str(kept))
    assert (mended.returncode, mended.stdout) == (0, "0.0\n"), "the helper is read anew"


def test_time_is_told(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.failed(root, None, (-1,), {}, ValueError("x"))
    assert abs(Failure(keeper.kept[0]).when - time.time()) < 600
