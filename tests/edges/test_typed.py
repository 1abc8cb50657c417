"""Typed calls: mypy and pyright refuse exactly the wrong lines, and what is called runs."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grid import LocalGrid, ServiceError, ServiceId
from grid.services.proxy import Proxy

pytestmark = pytest.mark.row("A08")

TYPED = Path(__file__).parents[1] / "data" / "typed_calls.py"
WRONG = {number for number, line in enumerate(TYPED.read_text().splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The file in a folder of its own: grid is found as it is installed, an editable clone included."""
    return Path(shutil.copy(TYPED, tmp_path))


@pytest.mark.skipif(not os.environ.get("GRID_NIGHTLY"), reason="half a minute: in scripts/nightly; pyright in each run")
def test_mypy_refuses_the_wrong_lines(elsewhere: Path) -> None:
    pytest.importorskip("mypy")
    ask = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(elsewhere.parent),
        elsewhere.name,
    ]
    told = subprocess.run(ask, cwd=elsewhere.parent, capture_output=True, text=True)
    found = {int(line) for line in re.findall(r"^typed_calls\.py:(\d+): error", told.stdout, re.M)}
    assert found == WRONG, told.stdout + told.stderr


def test_pyright_refuses_the_wrong_lines(elsewhere: Path) -> None:
    pytest.importorskip("pyright")
    ask = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, elsewhere.name]
    told = subprocess.run(ask, cwd=elsewhere.parent, capture_output=True, text=True)
    if not told.stdout.lstrip().startswith("{"):
        pytest.skip(f"pyright can't run here: {told.stderr[-300:]}")
    found = {
        one["range"]["start"]["line"] + 1
        for one in json.loads(told.stdout)["generalDiagnostics"]
        if one["severity"] == "error"
    }
    assert found == WRONG, told.stdout


class Model:
    def energy(self, x: float, *, steps: int = 1) -> float:
        return 2 * x * steps

    def _hidden(self) -> None:
        pass


class Own:
    def call(self, x: int) -> int:
        return x + 1


def free(self: Model) -> None:
    pass


def test_what_is_called_runs() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Model())
        assert type(sid) is ServiceId and sid == str(sid) and sid in g.servers and {sid: 1}[str(sid)] == 1
        assert type(pickle.loads(pickle.dumps(sid))) is str and json.dumps(sid) == f'"{sid}"'
        with g.acquire_service(sid) as proxy:
            assert isinstance(proxy, Proxy) and "call" in dir(proxy)
            assert proxy.call(Model.energy, 2.0, steps=3).get(30) == 12.0
            for mistake in ("energy", Model().energy, 3):
                with pytest.raises(TypeError, match="by its class"):
                    proxy.call(mistake)  # type: ignore[arg-type]
            for unknown in (Model._hidden, free):
                with pytest.raises(ServiceError, match="It has: energy"):
                    proxy.call(unknown)
        with g.acquire_service(g.publish(Own())) as own:
            assert own.call(1).get(30) == 2  # type: ignore[arg-type,call-arg]
