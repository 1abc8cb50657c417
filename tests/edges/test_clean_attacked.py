"""`grid clean`, `grid ps` and the next grid's start, where process ids say nothing: what lives is never touched.

Containers are `unshare --pid`, which shares /tmp, /dev/shm and the host name; another session has another runtime
directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from grid import LocalGrid
from grid.kernel import held, remains
from grid.kernel.lease import read_leases
from grid.testing.probe import Probe
from tests.lab import MissingPart

CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
LIVING = """
import sys
from grid import LocalGrid
from grid.testing.probe import Probe
with LocalGrid(1, output=None) as g:
    with g.acquire_service(g.publish(Probe())) as proxy:
        print(proxy.add().get(30), flush=True)
        for line in sys.stdin:
            large = proxy.echo(bytes(2_000_000)).get(30)
            print(proxy.add().get(30), len(large), flush=True)
"""


@pytest.fixture
def containers() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        raise MissingPart("a pid namespace of its own needs root and unshare")


class Elsewhere:
    """A grid in another container, or session, of ours."""

    def __init__(self, around: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*around, sys.executable, "-c", LIVING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.hears() == "1"

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def serves(self) -> bool:
        """Whether calls and large values go as before."""
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()
        return self.hears().endswith(" 2000000")

    def close(self) -> None:
        self.process.communicate("", timeout=60)


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="t") as path:
        yield Path(path)


def make_old(path: Path) -> None:
    """As if nothing had been done there for a day."""
    for each in [path, *path.rglob("*")]:
        if not each.is_symlink():
            os.utime(each, (1, 1))


def clean(around: list[str] | None = None, **environment: str) -> dict[str, Any]:
    command = [*(around or []), sys.executable, "-m", "grid", "clean", "--yes", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.row("X06")
def test_clean_spares_a_grid_of_another_runtime_directory(short: Path) -> None:
    there = Elsewhere([], {"GRID_RUNTIME_DIR": str(short / "r")})
    try:
        for path in Path("/dev/shm").glob(f"grid-{os.getuid()}-{there.process.pid}-*"):
            make_old(path)
        clean()
        assert there.serves()
    finally:
        there.close()


@pytest.mark.row("X06")
@pytest.mark.usefixtures("containers")
@pytest.mark.parametrize("which", ["the grid in a container", "clean in a container"])
def test_clean_spares_a_grid_of_another_pid_namespace(which: str) -> None:
    inside = which.startswith("the grid")
    there = Elsewhere(CONTAINER if inside else [], {})
    try:
        make_old(Path(os.environ["GRID_RUNTIME_DIR"]))
        for path in Path("/dev/shm").glob(f"grid-{os.getuid()}-*"):
            make_old(path)
        clean([] if inside else CONTAINER)
        assert there.serves()
        around = [] if inside else CONTAINER
        start = "from grid import LocalGrid\nwith LocalGrid(1, output=None): pass"  # which sweeps up
        subprocess.run([*around, sys.executable, "-c", start], check=True, timeout=60)
        ps = subprocess.run([*around, sys.executable, "-m", "grid", "ps", "--json"], capture_output=True, text=True)
        assert ps.returncode == 0, ps.stderr
        assert there.serves()
    finally:
        there.close()


@pytest.mark.row("X06")
@pytest.mark.usefixtures("containers")
def test_clean_removes_what_a_killed_container_left() -> None:
    there = Elsewhere(CONTAINER, {})
    for each in psutil.Process(there.process.pid).children(recursive=True):
        each.suspend()  # its first process closes its files before Linux kills the others, which might clear up
    there.process.kill()  # --kill-child: all of it goes
    there.process.wait(30)
    there.close()
    left = [lease for lease in read_leases() if not lease["native"]]
    assert left, "nothing was left to clean"
    clean()
    assert not [lease for lease in read_leases() if not lease["native"]]
    assert not [path for lease in left for path in lease["directories"] if os.path.exists(path)]


@pytest.mark.row("X06")
def test_every_directory_of_a_living_grid_is_locked_and_none_of_a_dead_one() -> None:
    with LocalGrid(1, output=None) as g:
        g.publish(Probe())
        (lease,) = [each for each in read_leases() if each["grid"] == g.grid_id]
        assert lease["held"] and all(held.is_held(Path(path)) for path in lease["directories"])
        kept: list[tuple[str, str]] = []
        for path in lease["directories"]:
            remains._remove(Path(path), [], kept)
        assert [why for _, why in kept] == ["somebody lives there"] * len(lease["directories"])


@pytest.mark.row("X06")
def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    assert held.is_held(tmp_path) is None
    program = "import sys; from pathlib import Path; from grid.kernel import held\n"
    program += "fd = held.hold(Path(sys.argv[1])); print(fd is not None, flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"True\n"
    assert held.is_held(tmp_path) is True
    holder.kill()
    holder.communicate()
    assert held.is_held(tmp_path) is False


@pytest.mark.row("X06", "G24")
def test_a_client_that_was_killed_while_it_ended_leaves_nothing_for_long() -> None:
    grids = Path(os.environ["GRID_RUNTIME_DIR"]) / "grids"
    grids.mkdir(mode=0o700, exist_ok=True)
    left = [grids / "999999-0123abcd.logs", grids / "999999-0123abce.sock", grids / "999999-0123abcf.json"]
    left[0].mkdir()
    left[1].touch()
    left[2].write_text("{")
    with LocalGrid(1, output=None) as g:
        g.publish(Probe())
        assert not [path for path in left if path.exists()]
