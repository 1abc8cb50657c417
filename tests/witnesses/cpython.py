"""CPython's tests of `concurrent.futures` and of `multiprocessing.Pool`, as Debian ships them for 3.11.

    python -m tests.witnesses.cpython futures|pool [name ...]

The files are those of `libpython3.11-testsuite`, or of the interpreter itself where it has them; what they use of the
package `test` is the interpreter's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

DEBIAN = Path("/usr/lib/python3.11/test")
FUTURES, POOL = "test_concurrent_futures", "_test_multiprocessing"


def find(name: str) -> Path | None:
    """Where a module of CPython's tests is; None if nowhere. 3.12 has other files."""
    if sys.version_info[:2] != (3, 11):
        return None
    spec = importlib.util.find_spec("test")
    for folder in [*(spec.submodule_search_locations or () if spec else ()), str(DEBIAN)]:
        if (path := Path(folder, f"{name}.py")).is_file():
            return path
    return None


def load(name: str, place: Path) -> ModuleType:
    """A copy, with our classes at its end: servers import it by the same name, and find them there."""
    path = find(name)
    assert path is not None, f"{name} is in Debian's libpython3.11-testsuite"
    (place / f"{name}.py").write_text(path.read_text() + TAILS[name])
    sys.path.insert(0, str(place))
    return importlib.import_module(name)


TAILS = {
    FUTURES: """

class GridMixin(ExecutorMixin):
    ctx = "spawn"

    def tearDown(self):
        self.executor.shutdown(wait=True)
        self.executor = None
        unittest.TestCase.tearDown(self)  # theirs looks for threads, of which a grid has some

class GridShutdown(GridMixin, ExecutorShutdownTest, BaseTestCase): pass
class GridWait(GridMixin, WaitTests, BaseTestCase): pass
class GridAsCompleted(GridMixin, AsCompletedTests, BaseTestCase): pass
class GridExecutor(GridMixin, ProcessPoolExecutorTest, BaseTestCase): pass
class GridDeadlock(GridMixin, ExecutorDeadlockTest, BaseTestCase): pass
class GridInitializer(InitializerMixin, GridMixin, BaseTestCase): pass
class GridFailingInitializer(FailingInitializerMixin, GridMixin, BaseTestCase): pass
""",
    POOL: """

class GridPool(_TestPool, unittest.TestCase): TYPE = "processes"
class GridPoolErrors(_TestPoolWorkerErrors, unittest.TestCase): TYPE = "processes"
class GridPoolLifetime(_TestPoolWorkerLifetime, unittest.TestCase): TYPE = "processes"
""",
}


SCRIPT = """
import multiprocessing
from grid import LocalGrid
class _GridMade:
    grids = []
    def __new__(cls, *_, **__):
        cls.grids.append(LocalGrid(2))
        cls.grids[-1].start()
        return cls.grids[-1].executor()
"""


def futures_suite(module: Any, g: Any) -> unittest.TestSuite:
    class Made:
        """What the suite makes its executors of."""

        __name__ = "GridMade"

        def __new__(cls, max_workers: int | None = None, mp_context: Any = None, **words: Any) -> Any:
            return g.executor(**words)

    Made.__name__ = "Made"
    module.GridMixin.executor_type = Made
    standard = module.assert_python_ok

    def run_script(*args: str, **words: Any) -> Any:
        """Their scripts make an executor by the name of its class; here it is made by `SCRIPT`."""
        code = re.sub(r"from concurrent\.futures import \w+", "pass", args[-1]).replace("= Made(", "= _GridMade(")
        code = code.replace("if 1:", "if True:").replace("from test.test_", "from test_")
        rc, out, err = standard(*args[:-1], f"import sys\nsys.path[:0] = {sys.path!r}\n{SCRIPT}{code}", **words)
        # What servers print comes on stderr, after the server's name.
        printed = re.findall(rb"^\[\S+ \S+\] (.*\n)", err, re.MULTILINE)
        return rc, out + b"".join(printed), re.sub(rb"^\[\S+ \S+\] .*\n", b"", err, flags=re.MULTILINE)

    module.assert_python_ok = run_script
    kinds = "Shutdown Wait AsCompleted Executor Deadlock Initializer FailingInitializer"
    return suite_of(module, kinds)


def pool_suite(module: Any, g: Any) -> unittest.TestSuite:
    module.multiprocessing = Multiprocessing(g)
    module.GridPool.Pool = staticmethod(module.multiprocessing.Pool)
    return suite_of(module, "Pool PoolErrors PoolLifetime")


def suite_of(module: Any, kinds: str) -> unittest.TestSuite:
    suite = unittest.TestSuite()
    for name in kinds.split():
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, f"Grid{name}")))
    return suite


class Multiprocessing:
    """The module, but its pools are a grid's."""

    def __init__(self, g: Any) -> None:
        self._grid = g

    def Pool(self, processes: int | None = None, **words: Any) -> Any:
        return self._grid.pool(**words)

    def __getattr__(self, name: str) -> Any:
        return getattr(multiprocessing, name)


class Report(unittest.TestResult):
    """A JSON line for each test."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._began = time.monotonic()

    def _say(self, test: Any, outcome: str, why: str = "") -> None:
        name = f"{type(test).__name__}.{getattr(test, '_testMethodName', test)}"
        seconds = round(time.monotonic() - getattr(self, "_began", time.monotonic()), 2)
        print(json.dumps([name, outcome, why, seconds]), file=sys.__stdout__, flush=True)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._say(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._say(test, "skipped", reason)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        if "-v" in sys.argv:
            print(self._exc_info_to_string(err, test), file=sys.stderr)
        self._say(test, "failed", "".join(f"{err[0].__name__}: {err[1]}".splitlines()[:1])[:300])

    addFailure = addError


def main(which: str, *names: str) -> None:
    from grid import LocalGrid

    suite_maker, name = {"futures": (futures_suite, FUTURES), "pool": (pool_suite, POOL)}[which]
    with tempfile.TemporaryDirectory() as place:
        module = load(name, Path(place))
        with LocalGrid(4, output=None) as g:
            run(suite_maker(module, g), names)
            sys.stdout.flush()
    os._exit(0)  # whatever the suites have left


def run(suite: unittest.TestSuite, names: tuple[str, ...]) -> None:
    wanted = [name for name in names if name != "-v"]
    left_out = os.environ.get("WITNESS_WITHOUT", "").split()
    chosen = unittest.TestSuite(
        test
        for test in suite
        if (not wanted or any(name in test.id() for name in wanted))
        and not any(test.id().endswith(f".{name}") for name in left_out)
    )
    chosen.run(Report())


if __name__ == "__main__":
    main(*sys.argv[1:])
