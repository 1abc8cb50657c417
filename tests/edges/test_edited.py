"""Edited code is new code: for calls, pools, executors, joblib and what is published, wherever it was edited."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grid import GridError, LocalGrid

pytestmark = pytest.mark.row("S08")


class Desk:
    """A folder of modules that are written, imported and edited."""

    def __init__(self, place: Path) -> None:
        self.place, self.edits = place, 0

    def write(self, name: str, text: str) -> None:
        file = self.place / f"{name}.py"
        file.write_text(textwrap.dedent(text))
        self.edits += 1  # no two edits have the same time, whatever clock the file system has
        os.utime(file, ns=(0, (1_700_000_000 + self.edits) * 10**9))

    def load(self, name: str) -> ModuleType:
        importlib.invalidate_caches()
        return importlib.import_module(name)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield Desk(tmp_path)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", "").startswith(str(tmp_path)):
            del sys.modules[name]


class Caller:
    """A published instance that calls what it is given."""

    def call(self, function: Any) -> Any:
        return function(0)


WAYS = {
    "pool": lambda g, f: g.pool().map(f, [0])[0],
    "executor": lambda g, f: g.executor().submit(f, 0).result(20),
    "executor of it": lambda g, f: g.executor(f).submit(f, 0).result(20),
    "call": lambda g, f: g.acquire_service(g.publish(Caller())).call(f).get(20),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reloads", [True, False], ids=["reloaded", "file changed"])
def test_a_module_that_was_edited_runs_as_it_is_now(desk: Desk, way: str, reloads: bool) -> None:
    desk.write("edited_one", "def f(x):\n    return 'old'\n")
    module = desk.load("edited_one")
    with LocalGrid(1) as g:
        run = WAYS[way]
        assert run(g, module.f) == "old"
        desk.write("edited_one", "def f(x):\n    return 'new'\n")
        if reloads:
            importlib.reload(module)
        assert run(g, module.f) == "new"
        assert run(g, module.f) == "new"


def test_joblib_runs_what_was_edited(desk: Desk) -> None:
    joblib = pytest.importorskip("joblib")
    import grid.compat.joblib  # noqa: F401

    desk.write("edited_two", "def f(x):\n    return 'old'\n")
    module = desk.load("edited_two")
    with LocalGrid(1) as g, joblib.parallel_config("grid", grid=g, n_jobs=1):
        assert joblib.Parallel()(joblib.delayed(module.f)(i) for i in range(2)) == ["old"] * 2
        desk.write("edited_two", "def f(x):\n    return 'new'\n")
        importlib.reload(module)
        assert joblib.Parallel()(joblib.delayed(module.f)(i) for i in range(2)) == ["new"] * 2


def test_a_module_that_imports_an_edited_one_runs_with_it(desk: Desk) -> None:
    desk.write("edited_base", "def value():\n    return 'old'\n")
    desk.write("edited_user", "from edited_base import value\ndef f(x):\n    return value()\n")
    module = desk.load("edited_user")
    with LocalGrid(1) as g, g.pool() as pool:
        assert pool.map(module.f, [0]) == ["old"]
        desk.write("edited_base", "def value():\n    return 'new'\n")
        assert pool.map(module.f, [0]) == ["new"]


def test_an_object_whose_class_was_edited_is_published_anew(desk: Desk) -> None:
    desk.write("edited_class", "class Model:\n    def f(self):\n        return 'old'\n")
    module = desk.load("edited_class")
    with LocalGrid(1) as g:
        model = module.Model()
        first = g.publish(model)
        assert g.publish(model) == first
        assert g.acquire_service(first).f().get(20) == "old"
        desk.write("edited_class", "class Model:\n    def f(self):\n        return 'new'\n")
        second = g.publish(model)
        assert second != first and g.acquire_service(second).f().get(20) == "new"


def test_an_edit_that_can_not_be_loaded_is_an_error_and_never_the_old_code(desk: Desk) -> None:
    desk.write("edited_wrong", "def f(x):\n    return 'old'\n")
    module = desk.load("edited_wrong")
    with LocalGrid(1) as g, g.pool() as pool:
        assert pool.map(module.f, [0]) == ["old"]
        desk.write("edited_wrong", "def f(x)\n    return 'new'\n")
        for _ in range(2):
            with pytest.raises((GridError, SyntaxError), match="edited_wrong"):
                pool.map(module.f, [0])
        desk.write("edited_wrong", "def f(x):\n    return 'mended'\n")
        assert pool.map(module.f, [0]) == ["mended"]


def test_what_was_not_edited_is_not_loaded_again(desk: Desk) -> None:
    desk.write("edited_not", "import os\nloaded = os.urandom(8).hex()\ndef f(x):\n    return loaded\n")
    module = desk.load("edited_not")
    with LocalGrid(1) as g, g.pool() as pool:
        assert len({pool.map(module.f, [0])[0] for _ in range(3)}) == 1


def test_a_closure_a_method_and_a_table_are_sent_as_they_are_now() -> None:
    box, limit = [1], 1

    def look(_: int) -> Any:
        return list(box), limit

    class Patched:
        def value(self, _: int) -> str:
            return "old"

    with LocalGrid(1) as g, g.pool() as pool:
        assert pool.map(look, [0]) == [([1], 1)]
        box.append(2)
        limit = 2
        assert pool.map(look, [0]) == [([1, 2], 2)]
        assert pool.map(Patched().value, [0]) == ["old"]
        Patched.value = lambda self, _: "new"  # type: ignore[method-assign]
        assert pool.map(Patched().value, [0]) == ["new"]


SCRIPT = """
import importlib, os, time, helper
from pathlib import Path
from grid import LocalGrid

def said(_):
    return helper.word()

def edit(text):
    edit.number = getattr(edit, "number", 0) + 1
    Path("helper.py").write_text(text)
    os.utime("helper.py", ns=(0, (1_700_000_000 + edit.number) * 10**9))

def show(what, way):
    try:
        print(what, sorted(set(way())), flush=True)
    except Exception as exc:
        print(what, type(exc).__name__, flush=True)

if __name__ == "__main__":
    with LocalGrid(2, output=None) as g, g.pool() as pool, g.executor() as executor:
        for name, way in (
            ("pool", lambda: pool.map(said, range(4), chunksize=1)),
            ("executor", lambda: [each.result() for each in [executor.submit(said, n) for n in range(4)]]),
        ):
            edit("def word():\\n    return 'one'\\n")
            importlib.reload(helper)
            show(name, way)
            edit("def word():\\n    return 'two'\\n")
            show(name, way)
            importlib.reload(helper)
            show(name, way)
            edit("def word(:\\n    return 'broken'\\n")
            show(name, way)
            edit("def word():\\n    return 'three'\\n")
            show(name, way)
"""


def test_what_a_script_defines_uses_edited_modules_as_they_are_now(tmp_path: Path) -> None:
    """The module stands in no message: only the script's function mentions it."""
    (tmp_path / "helper.py").write_text("def word():\n    return 'one'\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    seen = ["['one']", "['two']", "['two']", "SerialisationError", "['three']"]
    assert ran.stdout.splitlines() == [f"{name} {each}" for name in ("pool", "executor") for each in seen], ran.stderr
