"""The front door says what is behind it, and loads nothing before it is asked."""

from __future__ import annotations

import subprocess
import sys


def test_every_name_on_the_front_page_is_there_and_every_error_is_on_it() -> None:
    import grid.errors

    for name in grid.__all__:
        assert getattr(grid, name) is not None
    errors = {
        name
        for name, kind in vars(grid.errors).items()
        if isinstance(kind, type) and issubclass(kind, grid.errors.GridError)
    }
    assert errors <= set(grid.__all__)
    assert set(dir(grid)) == set(grid.__all__)


def test_a_module_that_imports_the_client_side_can_be_imported_on_a_host() -> None:
    code = """
import sys
for room in ("grids", "services", "launch", "staging", "hosts"):  # what a host does not have
    sys.modules[f"grid.{room}"] = None
from grid import LocalGrid, Result
try:
    LocalGrid(2)
except ImportError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "grid.LocalGrid is not on this host" in done.stdout, done.stderr
