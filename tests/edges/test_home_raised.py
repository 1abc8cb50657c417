"""`except Broke as exc: exc.a`, whichever way the function was run."""

from __future__ import annotations

import asyncio
import builtins
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import _RemoteTraceback
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid, RemoteError, SSHGrid, Task, TaskSystem, run_system
from grid.jobs import Service, ServiceHandler, Settings, ThreadEngine, make_service
from tests.edges.raising import Broke, Silent, breaking
from tests.lab import Lab

joblib = pytest.importorskip("joblib")

import grid.compat.joblib  # noqa: E402, F401 - registers the backend

Group: Any = getattr(builtins, "ExceptionGroup", None)


class Instance:
    def method(self, n: int) -> int:
        return breaking(n)

    def silent(self, n: int) -> None:
        raise Silent(n)

    def many(self) -> None:
        raise Group("many", [Broke(1, "x"), Group("more", [Silent(2)])])

    def with_a_pipe(self) -> None:
        exc = Broke(1, "x")
        exc.pipe = (n for n in range(3))  # type: ignore[attr-defined]
        raise exc

    def as_a_value(self) -> tuple[int, Exception]:
        return 1, Broke(1, "x")


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as made:
        yield made


def by_call(g: LocalGrid) -> Any:
    with g.acquire_service(g.publish(Instance())) as proxy:
        return proxy.method(3).get(30)


def by_map(g: LocalGrid) -> Any:
    return list(g.map(g.publish(Instance()), "method", range(6)))


def by_executor(g: LocalGrid) -> Any:
    with g.executor() as executor:
        return executor.submit(breaking, 3).result(30)


def by_executor_map(g: LocalGrid) -> Any:
    with g.executor() as executor:
        return list(executor.map(breaking, range(6)))


def by_as_completed(g: LocalGrid) -> Any:
    with g.executor() as executor:
        return [done.result() for done in as_completed([executor.submit(breaking, n) for n in range(6)], 30)]


def by_pool_map(g: LocalGrid) -> Any:
    with g.pool() as pool:
        return pool.map(breaking, range(6))


def by_pool_imap(g: LocalGrid) -> Any:
    with g.pool() as pool:
        return list(pool.imap(breaking, range(6)))


def by_pool_apply(g: LocalGrid) -> Any:
    with g.pool() as pool:
        return pool.apply(breaking, (3,))


def by_joblib(g: LocalGrid) -> Any:
    with joblib.parallel_config("grid", grid=g):
        return joblib.Parallel(2)(joblib.delayed(breaking)(n) for n in range(6))


def by_await(g: LocalGrid) -> Any:
    async def work() -> Any:
        with g.executor() as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, breaking, 3)

    return asyncio.run(work())


WAYS: list[Callable[[LocalGrid], Any]] = [
    *(by_call, by_map, by_executor, by_executor_map, by_as_completed),
    *(by_pool_map, by_pool_imap, by_pool_apply, by_joblib, by_await),
]


@pytest.mark.row("S11", "E08")
@pytest.mark.parametrize("way", WAYS)
def test_it_is_caught_by_its_class_and_has_what_it_had(g: LocalGrid, way: Callable[[LocalGrid], Any]) -> None:
    try:
        way(g)
    except Broke as exc:
        assert (exc.a, exc.b, str(exc), exc.args) == (3, "b", "3 and b broke", ("3 and b broke",))
        assert isinstance(exc.__cause__, KeyError) and exc.__cause__.args == ("missing",)
        end = exc.__cause__.__cause__
        assert "in breaking" in str(end), "the traceback stands at the end of the causes"
        assert hasattr(end, "tb")
    else:
        raise AssertionError("nothing was raised")


@pytest.mark.row("S11")
def test_a_message_is_not_wrapped_in_itself(g: LocalGrid) -> None:
    with g.acquire_service(g.publish(Instance())) as proxy, pytest.raises(Silent) as caught:
        proxy.silent(5).get(30)
    assert str(caught.value) == "bad value: 5" and caught.value.value == 5


@pytest.mark.row("S11")
@pytest.mark.skipif(Group is None, reason="Python 3.10 has no groups")
def test_a_group_is_split_as_on_one_machine(g: LocalGrid) -> None:
    with g.acquire_service(g.publish(Instance())) as proxy, pytest.raises(Group) as caught:
        proxy.many().get(30)
    silent, rest = caught.value.split(Silent)  # type: ignore[attr-defined]
    assert silent.exceptions[0].exceptions[0].value == 2
    assert rest.exceptions[0].a == 1


@pytest.mark.row("S11")
def test_where_it_cannot_travel_the_stand_in_says_which_class_and_why(g: LocalGrid) -> None:
    with g.acquire_service(g.publish(Instance())) as proxy, pytest.raises(RemoteError) as caught:
        proxy.with_a_pipe().get(30)
    assert caught.value.kind.endswith(".Broke")
    assert "Broke.pipe is a builtins.generator" in str(caught.value)
    assert "in with_a_pipe" in caught.value.remote_traceback and "in with_a_pipe" in str(caught.value.__cause__)


@pytest.mark.row("S11")
def test_an_exception_that_is_returned_is_the_same_one(g: LocalGrid) -> None:
    with g.acquire_service(g.publish(Instance())) as proxy:
        n, exc = proxy.as_a_value().get(30)
    assert n == 1 and type(exc) is Broke and exc.a == 1


# -- task systems, jobs ------------------------------------------------------------------------------------------------


class Breaking(Task):
    def __call__(self) -> int:
        return breaking(3)


class One(TaskSystem):
    """One task; its result is the task's error."""

    error: BaseException | None = None

    def init_system(self, master: Any) -> None:
        pass

    def generate_tasks(self, master: Any) -> Iterable[Task]:
        return [Breaking()] if self.error is None else []

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.error = error

    def is_complete(self, master: Any) -> bool:
        return self.error is not None

    def gather_result(self, master: Any) -> Any:
        return self.error, None


@pytest.mark.row("S11", "K34")
def test_a_task_system_is_told_the_error_itself(g: LocalGrid) -> None:
    error = run_system(One(), g)
    assert type(error) is Broke and error.a == 3 and isinstance(error.__cause__, KeyError)


class Catching(Service):
    """Its units raise; the job says what it caught."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        try:
            return handler.map(breaking, range(6))
        except Broke as exc:
            end = exc.__cause__.__cause__ if exc.__cause__ is not None else None
            return [exc.a, exc.b, type(exc.__cause__).__name__, "in breaking" in str(end)]


@pytest.mark.row("S11", "P15")
@pytest.mark.parametrize("kind", ["threads", "servers"])
def test_a_job_catches_what_its_units_raise(g: LocalGrid, tmp_path: Path, kind: str) -> None:
    settings = Settings(tick_s=0.05, abort_grace_s=5.0)
    engine: Any = {"engine": ThreadEngine()} if kind == "threads" else {}
    grid: Any = None if kind == "threads" else g
    service = make_service(tmp_path / "s", grid, settings=settings, user="mara", services=[Catching], **engine)
    with service:
        said = Catching.submit().wait(60)
    service.close()
    assert said[:3] == [3, "b", "KeyError"]
    assert said[3] or kind == "threads", "there its traceback is its own"


# -- scripts -----------------------------------------------------------------------------------------------------------

SCRIPT = """
from grid import LocalGrid

class Broke(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b} broke")
        self.a, self.b = a, b

def work(n):
    if n == 3:
        raise Broke(n, [1, 2])
    return n

def main():
    class Local(Broke):
        pass

    def local(n):
        raise Local(n, n)

    with LocalGrid(2) as g:
        for go in (lambda: list(g.pool().imap(work, range(6))), lambda: g.executor().submit(local, 4).result()):
            try:
                go()
            except Broke as exc:
                print(type(exc).__name__, exc.a, exc.b, exc)
    try:
        with LocalGrid(1) as g:
            g.executor().submit(local, 5).result()
    except Local as exc:
        print("the very class", exc.a)

main()
"""


@pytest.mark.row("S11")
def test_classes_of_a_script_are_the_classes_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Broke 3 [1, 2] 3 and [1, 2] broke",
        "Local 4 4 4 and 4 broke",
        "the very class 5",
    ]


@pytest.mark.row("S11")
def test_it_comes_from_another_host(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    with SSHGrid(["s1"], output=None) as g:
        with pytest.raises(Broke) as caught:
            g.executor().submit(breaking, 3).result(60)
        assert caught.value.a == 3 and isinstance(caught.value.__cause__, KeyError)
        assert isinstance(caught.value.__cause__.__cause__, _RemoteTraceback)
