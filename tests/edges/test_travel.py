"""What a script takes along, where it meets the world: large data, modules on hosts, streams, depth, odd folders."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from grid import LocalGrid, SerialisationError
from grid.testing.probe import Probe
from tests.lab import Lab

ROOT = Path(__file__).parents[2]


def run(place: Path, text: str, *words: str, cwd: Path | None = None, **more: str) -> str:
    """The output of a script that lies in `place`."""
    (place / "script.py").write_text(textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, str(place / "script.py"), *words]
    done = subprocess.run(command, cwd=cwd or place, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


LARGE = """
from unittest import mock
from grid import LocalGrid
from grid.wire import bulk

TABLE = list(range(200_000))
WORDS = {i: str(i) for i in range(50_000)}
BYTES = bytearray(20_000_000)

class Model:
    def total(self):
        return sum(TABLE), len(WORDS), len(BYTES)

def total(x):
    return sum(TABLE) + x + len(BYTES)

if __name__ == "__main__":
    written = []
    plain = bulk.BlobStore.write
    def write(self, parts):
        written.append(sum(map(len, parts)))
        return plain(self, parts)
    with mock.patch.object(bulk.BlobStore, "write", write), LocalGrid(3) as g:
        sid = g.publish(Model())
        assert g.gather(g.broadcast(sid, "total"), 30) == [Model().total()] * 3
        print("published", sum(size > 1_000_000 for size in written))
        written.clear()
        with g.pool() as pool:
            assert pool.map(total, range(30), chunksize=1) == [total(i) for i in range(30)]
            assert pool.map(total, range(30), chunksize=1) == [total(i) for i in range(30)]
        print("mapped", sum(size > 1_000_000 for size in written))
        assert g.executor(total).submit(total, 1).result(20) == total(1)
"""


@pytest.mark.row("S04")
def test_large_data_of_a_script_goes_to_a_host_once(tmp_path: Path) -> None:
    assert run(tmp_path, LARGE).split() == ["published", "1", "mapped", "1"]


STREAMS = """
import sys
from grid import LocalGrid
import helpers

if __name__ == "__main__":
    before = sys.stdout, sys.stderr
    with LocalGrid(2) as g, g.pool() as pool, g.executor() as executor:
        due = [pool.map_async(helpers.make(i), range(4)) for i in range(12)]
        more = [executor.submit(helpers.make(i), 1) for i in range(12)]
        for i, each in enumerate(due):
            print("line", i)
            assert each.get(60) == [helpers.make(i)(x) for x in range(4)]
        assert [each.result(60) for each in more] == [helpers.make(i)(1) for i in range(12)]
    assert (sys.stdout, sys.stderr) == before
    print("end")
"""
STEPS = "".join(f"    x = x * {k} + 7\n" for k in range(1, 12))
CALLS = " + ".join(f"h{n}(x)" for n in range(40))
HELPERS = (
    "".join(f"def h{n}(x):\n{STEPS}    return x % 1009 + {n}\n" for n in range(40))
    + f"def make(n):\n    def work(x):\n        return {CALLS} + n\n    return work\n"
)


@pytest.mark.row("S05")
def test_serialising_in_threads_changes_no_stream_and_mixes_up_no_names(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text(HELPERS)
    for _ in range(2):
        assert run(tmp_path, STREAMS) == "".join(f"line {i}\n" for i in range(12)) + "end\n"


def nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


def depth_of(value: list[object]) -> int:
    depth = 0
    while value:
        (value,), depth = value, depth + 1  # type: ignore[assignment]
    return depth


class Link:
    def __init__(self, following: Link | None) -> None:
        self.following = following


@pytest.mark.row("S07")
def test_deep_nesting_travels_or_is_called_so() -> None:
    with LocalGrid(1) as g, g.executor() as executor:
        assert executor.submit(depth_of, nested(450)).result(30) == 450
        chain = None
        for _ in range(100_000):
            chain = Link(chain)
        for value in (nested(100_000), chain):
            error = executor.submit(len, value).exception(30)
            assert isinstance(error, SerialisationError) and "nested too deeply" in str(error)
        while chain is not None:  # link by link: at once would need a deep stack
            chain = chain.following


@pytest.mark.row("S10")
@pytest.mark.parametrize("name", ["json", "random", "sys_", "zipfile", "importlib"])
def test_a_file_named_like_a_standard_module_is_not_imported_from_where_we_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"{name}.py").write_text("raise SystemExit('imported')\n")
    script = """
    from grid import LocalGrid
    class Model:
        def f(self): return 5
    if __name__ == "__main__":
        with LocalGrid(1) as g, g.acquire_service(g.publish(Model())) as p:
            print(p.f().get(30))
    """
    assert run(tmp_path, script, cwd=tmp_path / "elsewhere") == "5\n"


ON_HOSTS = """
from grid import SSHGrid
{line}
class Model:
    def run(self):
        return {call}
if __name__ == "__main__":
    with SSHGrid(["s1"], output=None) as g, g.acquire_service(g.publish(Model())) as p:
        print(p.run().get(30))
"""


@pytest.mark.row("S09", "S10")
def test_packages_travel_as_they_are_found_and_the_home_is_no_module_path(lab: Lab, tmp_path: Path) -> None:
    for name in ("own", "bare/inner", "filed/deep"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("own", "filed", "filed/deep"):
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "own/part.py").write_text("def f():\n    return 'part'\n")
    (tmp_path / "bare/inner/m.py").write_text("def f():\n    return 'bare'\n")
    (tmp_path / "filed/deep/table.txt").write_text("table")
    load = "from pathlib import Path\ndef f():\n    return (Path(__file__).parent / {!r}).read_text()\n"
    (tmp_path / "filed/load.py").write_text(load.format("deep/table.txt"))
    (tmp_path / "alone.py").write_text(load.format("beside.txt"))
    (tmp_path / "beside.txt").write_text("beside")
    names = "json.py random.py zipfile.py"
    lab.hosts["s1"].run(["sh", "-c", f"for each in {names}; do echo 'x = 1' > $each; done"])
    cases = [
        ("import own.part", "own.part.f()", "part"),
        ("import bare.inner.m", "bare.inner.m.f()", "bare"),
        ("from filed import load", "load.f()", "table"),
        ("import alone", "alone.f()", "beside"),
    ]
    try:
        for line, call, expected in cases:
            script = ON_HOSTS.format(line=line, call=call)
            assert run(tmp_path, script, GRID_SSH_CONFIG=str(lab.ssh_config)) == f"{expected}\n"
    finally:
        lab.hosts["s1"].run(["sh", "-c", f"rm -f {names}"])


@pytest.mark.row("S03")
def test_a_grid_as_an_argument_is_refused_with_the_reason() -> None:
    with LocalGrid(1) as g, g.executor() as executor:
        error = executor.submit(len, [1, {"grid": g}]).exception(30)
        assert isinstance(error, SerialisationError)
        assert "['grid']" in str(error) and "a thread runs in the process that started it" in str(error)


@pytest.mark.row("S05")
@pytest.mark.parametrize("mode", ["w", "a", "r+", "wb", "ab", "rb+", "w+"])
def test_a_file_that_is_written_to_stays_behind_and_keeps_its_contents(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "precious"
    path.write_text("precious\n")
    with open(path, mode) as file, LocalGrid(1, output=None) as g:
        file.seek(0, 2)
        file.write(b"more\n" if "b" in mode else "more\n")
        file.flush()
        before = path.read_text()
        holder = Probe()
        holder.file = file  # type: ignore[attr-defined]
        with pytest.raises(SerialisationError, match="file"):
            g.publish(holder)
        with g.executor() as executor:
            for function in (lambda: file.read(), functools.partial(len, file)):
                with pytest.raises(SerialisationError):
                    executor.submit(function).result(30)
        assert path.read_text() == before and "more" in before
