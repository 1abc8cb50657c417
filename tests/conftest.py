"""What every test of grid stands on: its own places for temporary things, the test hosts, and proof of tidiness.

Lives here: the environment of a run, the marks `row`, `lab` and `slurm`, the fixtures `lab`, `slurm` and `load`, the
            check after each test.
Elsewhere:  the test hosts (`lab/`), what the check looks at (`tidiness.py`), the table of rows (`capabilities.py`).
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # `from tests.lab import Lab`, also when pytest was not started as a module
    sys.path.insert(0, str(ROOT))

from tests.capabilities import read_rows  # noqa: E402 - needs the path above
from tests.lab import Lab, LabHost, MissingPart, MissingPython, MissingUnpacked, missing_parts  # noqa: E402
from tests.tidiness import Scene  # noqa: E402

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
# Time says nothing on a shared machine. Under CI the same examples are tried each time: searching is for desks.
settings.register_profile("grid", deadline=None, derandomize=IN_CI, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("grid")
CORE_ONLY = "GRID_TEST_CORE" in os.environ  # a run within a run, by another Python, which has no more than grid needs
GRACE_S = 20.0  # a process that was told to end may take this long on a busy machine; what stays longer is left

# Files that take a minute and more come first, so that no worker is left alone with one of them at the end.
LONG = (
    *("edges/test_pythons.py", "cluster/test_batch.py", "edges/test_jobs_enemy.py", "edges/test_faults.py"),
    *("edges/test_standins.py", "edges/test_web_strangers.py", "edges/test_jobs_cli.py", "edges/test_witnesses.py"),
    *("edges/test_cli.py", "edges/test_matrix.py", "edges/test_doctor.py", "edges/test_jobs_kills.py"),
    *("edges/test_jobs_docs.py", "edges/test_hosts_as_they_are.py", "cluster/test_slurm.py"),
)

_places = pytest.StashKey[Path]()
_rows = pytest.StashKey[frozenset[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: needs the test hosts with a batch system on them (Slurm with qsub)")
    if hasattr(config, "workerinput") or CORE_ONLY:
        _have_shared_memory_alone()
    # In /tmp by name and short: the path of a UNIX socket has room for 107 bytes.
    base = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
    # A run in the background ignores SIGINT, and would hand that down to the scripts that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[_places] = base
    config.stash[_rows] = frozenset(read_rows())
    for name, variable, mode in (("r", "GRID_RUNTIME_DIR", 0o700), ("t", "TMPDIR", 0o711)):
        (base / name).mkdir(mode=mode)
        os.environ[variable] = str(base / name)
    base.chmod(0o711)  # a test may become another user and still reach what it was given
    os.environ["GRID_TEST_SESSION"] = uuid.uuid4().hex  # children inherit it, daemons too: so we know them as ours
    tempfile.tempdir = None  # ask TMPDIR again


def _have_shared_memory_alone() -> None:
    """Of runs side by side, or one within another, each has its own /dev/shm and sees what its tests leave there."""
    if os.geteuid() or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, private, recursive = 0x20000, 1 << 18, 1 << 14  # CLONE_NEWNS, MS_PRIVATE, MS_REC
    if libc.unshare(new_mounts) or libc.mount(b"none", b"/", None, private | recursive, None):
        return
    libc.mount(b"none", b"/dev/shm", b"tmpfs", 0, b"mode=1777")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_places], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        first = {str(config.rootpath / "tests" / name): number for number, name in enumerate(LONG)}
        items.sort(key=lambda item: first.get(str(item.path), len(first)))  # stable: the others stay as they are
    for item in items:
        for name in ("lab", "slurm"):
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(name)
        for mark in item.iter_markers("row"):
            unknown = sorted(set(mark.args) - config.stash[_rows])
            if unknown or not mark.args:
                raise pytest.UsageError(f"{item.nodeid}: no such row in docs/rows.toml: {', '.join(unknown)}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """For a run of the core alone, modules that need more have no tests."""
    report = yield
    if CORE_ONLY and report.failed and re.search(r"MissingExtra|No module named '(?!grid|tests)", str(report.longrepr)):
        report.outcome, report.longrepr, report.result = "passed", None, []
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    batch = item.get_closest_marker("slurm") is not None
    if (batch or item.get_closest_marker("lab")) and (missing := _missing(batch)):
        _without("; ".join(missing))


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    try:
        return (yield)
    except MissingPart as missing:
        _without(str(missing), excused=isinstance(missing, (MissingPython, MissingUnpacked)))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except MissingPart as missing:
        _without(str(missing), excused=isinstance(missing, (MissingPython, MissingUnpacked)))


def _without(reason: str, *, excused: bool = False) -> NoReturn:
    """A real part is missing: skip at a desk, fail where the run is what others trust."""
    if IN_CI and not excused:
        pytest.fail(f"{reason}. CI must have it: run scripts/test as root", pytrace=False)
    pytest.skip(reason)


@cache
def _missing(batch: bool) -> list[str]:
    return missing_parts(batch=batch)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Three plain hosts s1, s2, s3 with the client's Python, pyzmq, dill and numpy; s1 and s2 share /shared.

    Leave them as you found them: a test that cuts, kills or fills one mends it, or has a lab of its own.
    """
    packages = ("pyzmq", "dill", "numpy")
    share = {"/shared": "common"}
    hosts = [
        LabHost("s1", packages=packages, shares=share),
        LabHost("s2", packages=packages, shares=share),
        LabHost("s3", packages=packages),
    ]
    with Lab(hosts) as lab:
        yield lab


@pytest.fixture(scope="session")
def slurm() -> Iterator[Lab]:
    """A batch system: users log in on `head` and call qsub there, jobs run on n1, n2, n3 with four slots each.

    Leave it as you found it: no job left in the queue, nothing in /home/mara.
    """
    with Lab([], batch=3, users=("mara", "lena")) as lab:
        yield lab


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a process, thread, socket, open file or temp directory behind, here or on its hosts."""
    labs = [value for value in getattr(request.node, "funcargs", {}).values() if isinstance(value, Lab)]
    scene = Scene(labs)
    yield
    left = scene.left_behind(GRACE_S)
    if left:
        scene.clear_up()
        pytest.fail("the test left behind:\n" + "\n".join(f"  {line}" for line in left), pytrace=False)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of `examples/` by its name; it is forgotten with the test."""
    examples = ROOT / "examples"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(examples)
    yield __import__
    for name in set(sys.modules) - before:
        if str(examples) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
