"""joblib's own tests of `Parallel`, as it ships them, over the backend "grid".

    python -m tests.witnesses.joblib_parallel [pytest's -k expression]

Their tests are parametrised by the names of backends. Here each list has one name, "grid"; what is about one backend of
theirs is not run at all. The results come as JSON lines, see the package.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest


class Grids:
    """The plugin: a grid, the backend with it, and parametrisations by backend that have "grid" alone."""

    def __init__(self, g: Any) -> None:
        self._grid = g

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if "grid" in getattr(getattr(item, "callspec", None), "params", {}).values()]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        if report.when == "teardown" and report.outcome != "failed":
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        why = "" if report.outcome == "passed" else str(crash.message if crash else report.longrepr)[:300]
        outcome = "failed" if hasattr(report, "wasxfail") and report.outcome == "skipped" else report.outcome
        name = report.nodeid.rpartition("::")[2]
        print(json.dumps([name, outcome, why.partition("\n")[0], round(report.duration, 2)]), file=sys.__stdout__)


def with_our_backend(source: str) -> str:
    """Their text, with "grid" as the only backend of each list."""
    head, mark, rest = source.partition("def get_default_backend_instance")
    assert mark, "joblib's test_parallel.py looks different from 1.6"
    lists = """
class _Ours(dict):
    def __iter__(self):
        return iter(["grid"])
BACKENDS = RETURN_GENERATOR_BACKENDS = _Ours(BACKENDS)
ALL_VALID_BACKENDS = PROCESS_BACKENDS = PARALLEL_BACKENDS = ["grid"]

"""
    return head + lists + mark + rest


def main(*words: str) -> None:
    import joblib.test.test_parallel as theirs

    import grid.compat.joblib as ours
    from grid import LocalGrid

    with LocalGrid(2, output=None) as g:

        class WithGrid(ours.GridBackend):
            """Made without arguments, as theirs are."""

            def __init__(self, grid: Any = None, **given: Any) -> None:
                super().__init__(grid=grid or g, **given)

        from joblib import register_parallel_backend
        from joblib.parallel import BACKENDS

        register_parallel_backend("grid", WithGrid)
        assert "grid" in BACKENDS
        source = Path(str(theirs.__file__)).read_text()
        code = compile(with_our_backend(source), str(theirs.__file__), "exec")
        exec(code, theirs.__dict__)
        chosen = [*(["-k", words[0]] if words else [])]
        left_out = os.environ.get("WITNESS_WITHOUT", "").split()
        for name in left_out:
            theirs.__dict__.pop(name, None)
        plugin = Grids(g)
        sys.stdout = sys.stderr
        words_of_pytest = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "--import-mode=importlib", "-W", "ignore"]
        place = Path(str(theirs.__file__))
        words_of_pytest += ["-c", os.devnull, "--rootdir", str(place.parent)]
        pytest.main([str(place), *words_of_pytest, *chosen], plugins=[plugin])
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
