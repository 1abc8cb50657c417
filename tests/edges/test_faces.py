"""Executor, pool and joblib where they once differed from what they imitate. Most of that fails in silence."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from pickle import PicklingError
from typing import Any

import numpy as np
import pytest

from grid import CallTimeout, GridStopped, Host, LocalGrid, PublishError, SerialisationError, ServerLost, SSHGrid, Task
from grid.compat.crew import crew_of
from tests.conftest import ROOT


@pytest.fixture
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, output=None) as made:
        yield made


def until(condition: Callable[[], bool], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def write(number: int) -> int:
    Path(f"result_{number}.txt").write_text(str(number))
    return number


def read(name: str) -> str:
    return Path(name).read_text()


# -- relative names --------------------------------------------------------------------------------------------------


@pytest.mark.row("E01")
def test_what_a_function_writes_by_a_relative_name_is_where_the_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.txt").write_text("mine")
    with LocalGrid(2, output=None) as g, g.executor() as executor, g.pool() as pool:
        pool.map(write, range(3))
        executor.submit(write, 3).result(20)
        assert pool.apply(read, ("table.txt",)) == "mine"
    assert sorted(path.name for path in tmp_path.glob("result*")) == [f"result_{n}.txt" for n in range(4)]


@pytest.mark.row("E01", "F15")
def test_once_files_are_staged_servers_work_where_those_are_and_what_they_leave_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "input.txt").write_text("staged")
    with LocalGrid(2, output=None) as g, g.pool() as pool:
        assert pool.apply(os.getcwd) == str(tmp_path)
        g.copy_files(source, ["input.txt"])
        assert set(pool.map(read, ["input.txt"] * 8, 1)) == {"staged"}
        assert set(pool.map(pathless, range(8), 1)) == {os.path.basename(g.temp_paths["localhost"][0])}
        pool.map(write, [7])
    assert not (tmp_path / "result_7.txt").exists()
    assert "servers wrote result_7.txt into the staging directory" in caplog.text and "workdir" in caplog.text


def pathless(_: object) -> str:
    assert os.getcwd() == os.environ["GRID_ROOT"]
    return Path(os.getcwd()).parent.name


@pytest.mark.row("E01")
def test_a_workdir_holds_whatever_is_staged_and_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "input.txt").write_text("staged")
    with LocalGrid(1, output=None, workdir=place) as g:
        g.copy_files(tmp_path, ["input.txt"], recursive=False)
        with g.pool() as pool:
            assert pool.apply(os.getcwd) == str(place)
            pool.map(write, [1])
    assert (place / "result_1.txt").read_text() == "1"
    with LocalGrid(1, output=None, workdir=tmp_path / "none") as g:
        with pytest.raises(Exception, match=f"can't work in the directory '{tmp_path}/none'"):
            g.pool()


# -- servers that die ------------------------------------------------------------------------------------------------


def die_at_five(number: int) -> int:
    if number == 5:
        os._exit(3)
    return number


def logs_about_deaths(caplog: pytest.LogCaptureFixture) -> int:
    return sum("exit status 3" in record.getMessage() for record in caplog.records)


@pytest.mark.row("E02")
def test_servers_that_die_under_a_pool_are_replaced_whatever_happens(g: LocalGrid) -> None:
    for _ in range(4):
        with pytest.raises(ServerLost, match=r"items? .*\b5\b.* of the map of 'die_at_five'"):
            g.pool().map(die_at_five, range(10), 1)
    assert g.pool().map(die_at_five, range(5)) == list(range(5))
    with pytest.raises(BrokenProcessPool, match=r"the call die_at_five\(5,?\) was there, in attempt 3"):
        g.executor(retries=2).submit(die_at_five, 5).result(60)
    until(lambda: g.size(crew_of(g).service_id) == 2)


@pytest.mark.row("E02")
def test_an_item_that_kills_is_given_up_after_its_retries_and_the_others_are_done(g: LocalGrid) -> None:
    outcomes = []
    values = g.pool(retries=3).imap(die_at_five, range(10), 2)
    for _ in range(10):
        try:
            outcomes.append(next(values))
        except ServerLost as exc:
            assert "item 5 of" in str(exc) and "in attempt 4" in str(exc)
            outcomes.append(None)
    assert outcomes == [0, 1, 2, 3, 4, None, 6, 7, 8, 9]


@pytest.mark.row("E02", "E06")
def test_a_small_map_whose_server_dies_tries_again_where_that_is_allowed(g: LocalGrid, tmp_path: Path) -> None:
    pool, strict = g.pool(retries=1), g.pool()
    assert pool.map(die_if_there, [""] * 8) == [""] * 8  # now its pace is known
    trap = tmp_path / "trap"
    trap.touch()
    assert pool.map(die_if_there, ["", str(trap), ""]) == ["", str(trap), ""]
    trap.touch()
    with pytest.raises(ServerLost):
        strict.map(die_if_there, ["", str(trap), ""])


def die_if_there(path: str) -> str:
    if path and os.path.exists(path):
        os.remove(path)
        os.kill(os.getpid(), signal.SIGKILL)
    return path


# -- initializers ----------------------------------------------------------------------------------------------------


def set_word(word: str) -> None:
    os.environ["INIT"] = os.environ.get("INIT", "") + word


def word(_: object = None) -> str | None:
    return os.environ.get("INIT")


def refuse() -> None:
    raise ValueError("not here")


@pytest.mark.row("E03")
def test_an_initializer_runs_once_on_each_server_before_its_first_call_and_on_its_replacement(g: LocalGrid) -> None:
    pool = g.pool(initializer=set_word, initargs=("p",))
    assert set(pool.map(word, range(20), 1)) == {"p"}
    with pytest.raises(ServerLost):
        pool.apply(os._exit, (3,))
    assert set(pool.map(word, range(20))) == {"p"}
    with g.executor(initializer=set_word, initargs=("e",)) as executor:
        assert {executor.submit(word).result(20) for _ in range(4)} <= {"pe", "e"}  # one server is new, perhaps
        assert set(executor.map(word, range(9), chunksize=1)) <= {"pe", "e"}


@pytest.mark.row("E03", "E08")
def test_an_initializer_that_fails_breaks_its_executor_and_no_other(g: LocalGrid) -> None:
    executor = g.executor(initializer=refuse)
    with pytest.raises(BrokenExecutor, match=r"initializer failed on server .*not here"):
        executor.submit(word).result(20)
    with pytest.raises(BrokenProcessPool):
        executor.submit(word)
    with pytest.raises(BrokenExecutor, match="not here"):
        g.pool(initializer=refuse).map(word, range(3))
    assert g.executor().submit(word).result(20) is None


# -- the end of a script ---------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time
from pathlib import Path
from grid import LocalGrid
def write(number):
    time.sleep(0.05)
    Path(f"{number}.txt").touch()
if __name__ == "__main__":
    g = LocalGrid(2)
    HOW
"""


@pytest.mark.row("E04")
@pytest.mark.parametrize(
    ("how", "left"),
    [
        ("ex = g.executor()\n    for n in range(6): ex.submit(write, n)", 6),
        ("g.executor().map(write, range(6))", 6),
        ("with g:\n        ex = g.executor()\n        for n in range(6): ex.submit(write, n)", 6),
        ("ex = g.executor()\n    for n in range(6): ex.submit(write, n)\n    ex.shutdown(wait=False)", 6),
        ("ex = g.executor()\n    for n in range(60): ex.submit(write, n)\n    g.terminate()", None),
    ],
)
def test_calls_that_nobody_waited_for_are_finished_or_named(how: str, left: int | None, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.replace("HOW", how))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    files = list(tmp_path.glob("*.txt"))
    if left is None:
        assert len(files) < 60
        assert "calls that nobody waited for are dropped: write" in done.stderr
    else:
        assert len(files) == left and done.stderr == ""


INTERRUPTED = """
import sys, time
from grid import LocalGrid
def work(n):
    time.sleep(SECONDS)
    return n
if __name__ == "__main__":
    with LocalGrid(2, output=None) as g:
        try:
            with g.executor() as ex:
                due = [ex.submit(work, n) for n in range(4)]
                while not due[0].running():
                    time.sleep(0.01)
                print("go", flush=True)
                RAISE
        except BaseException as exc:
            print(type(exc).__name__, sum(each.done() and not each.cancelled() for each in due), flush=True)
"""


def interrupted(place: Path, seconds: float, what: str) -> subprocess.Popen[str]:
    (place / "script.py").write_text(INTERRUPTED.replace("SECONDS", str(seconds)).replace("RAISE", what))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen([sys.executable, "script.py"], cwd=place, env=environment, **pipes)
    assert run.stdout is not None and run.stdout.readline() == "go\n"
    return run


@pytest.mark.row("E04")
def test_an_executor_that_waits_after_ctrl_c_says_so_and_a_second_one_ends_it(tmp_path: Path) -> None:
    with interrupted(tmp_path, 600, "time.sleep(600)") as run:
        assert run.stdout is not None and run.stderr is not None
        run.send_signal(signal.SIGINT)
        said = run.stderr.readline()
        assert "KeyboardInterrupt has ended the block of this executor" in said and "work" in said
        assert "Ctrl-C withdraws" in said
        run.send_signal(signal.SIGINT)
        assert run.stdout.readline() == "KeyboardInterrupt 0\n"
        assert run.wait(60) == 0


@pytest.mark.row("E04")
def test_after_an_error_in_its_block_an_executor_finishes_what_it_was_given(tmp_path: Path) -> None:
    with interrupted(tmp_path, 2.5, "raise ValueError") as run:
        out, said = run.communicate(timeout=120)
    assert out == "ValueError 4\n"
    assert "ValueError has ended the block of this executor" in said


# -- what functions carry --------------------------------------------------------------------------------------------


def first(data: np.ndarray[Any, Any], number: int) -> float:
    return float(data[0]) + number


class Model:
    pickled = 0

    def __init__(self, value: float) -> None:
        self.data = np.full(4_000_000, value)

    def times(self, number: int) -> float:
        return float(self.data[0]) * number

    def __reduce__(self) -> Any:
        Model.pickled += 1
        return _model, (self.data,)


def _model(data: np.ndarray[Any, Any]) -> Model:
    model = Model.__new__(Model)
    model.data = data
    return model


def held_mb() -> float:
    """Anonymous and shared memory of this process and its children, and what is in the shared memory of grids."""
    children = [str(os.getpid())]
    total = 0
    for pid in children:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError):  # a thread that ended meanwhile has no children of its own
                children += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon", "RssShmem")):
                total += int(line.split()[1])
    return total / 1024


@pytest.mark.row("E05")
@pytest.mark.parametrize("by", ["partial in a pool", "method in an executor", "closure in a pool"])
def test_data_of_functions_is_freed_with_them(g: LocalGrid, by: str) -> None:
    pool, executor = g.pool(), g.executor()

    def round_(number: int) -> None:
        if by == "partial in a pool":
            data = np.full(4_000_000, float(number))
            assert pool.map(partial(first, data), range(4)) == [number + n for n in range(4)]
        elif by == "closure in a pool":
            data = np.full(4_000_000, float(number))
            assert pool.map(lambda n: float(data[0]) + n, range(4)) == [number + n for n in range(4)]
        else:
            model = Model(number)
            due = [executor.submit(model.times, n) for n in range(4)]
            assert [future.result(60) for future in due] == [number * n for n in range(4)]

    round_(0)
    round_(1)
    before = held_mb()
    for number in range(2, 10):
        round_(number)
    gc.collect()
    until(lambda: held_mb() < before + 3 * 32)  # eight rounds of 32 MB, on two servers and here, were 768
    until(lambda: not any(known.size for known in crew_of(g).functions._known.values()))


@pytest.mark.row("E05")
def test_submit_pickles_nothing_and_calls_of_one_moment_share_one_pickle(g: LocalGrid, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with g.executor() as executor:
        executor.submit(int).result(20)
        blocked = [executor.submit(wait_for, str(gate)) for _ in range(2)]
        until(lambda: all(future.running() for future in blocked))
        model = Model(2.0)
        Model.pickled = 0
        due = [executor.submit(model.times, n) for n in range(50)]
        assert Model.pickled == 0 or threading.active_count() > 1
        gate.touch()
        assert [future.result(60) for future in due] == [2.0 * n for n in range(50)]
        assert Model.pickled <= 1 + 2 + 2 * 2  # one travels with its call; the rest: to know it, and to each server


def wait_for(path: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.row("E05")
def test_a_function_that_has_changed_is_never_called_as_it_was(g: LocalGrid) -> None:
    pool, data = g.pool(), [1]

    def total(number: int) -> int:
        return number + sum(data)

    for extra in range(5):
        data.append(extra)
        assert pool.map(total, range(3)) == [n + sum(data) for n in range(3)]
    with g.executor() as executor:
        for extra in range(5):
            data.append(extra)
            assert executor.submit(total, 1).result(20) == 1 + sum(data)


# -- small maps, iterables -------------------------------------------------------------------------------------------


def double(number: int) -> int:
    return 2 * number


@pytest.mark.row("E06")
def test_a_second_map_begins_at_the_pace_of_the_first(g: LocalGrid) -> None:
    pool = g.pool()
    server_calls = lambda: sum(s.load.calls for s in g.servers[crew_of(g).service_id])  # noqa: E731
    for _ in range(3):
        assert pool.map(double, range(1000)) == [2 * n for n in range(1000)]
    before = server_calls()
    for _ in range(20):
        assert pool.map(double, range(64)) == [2 * n for n in range(64)]
        assert pool.starmap(pow, [(n, 2) for n in range(3)]) == [0, 1, 4]
    until(lambda: server_calls() > before)
    assert server_calls() - before <= 3 * 40
    with pytest.raises(ZeroDivisionError):
        pool.map(one_over, [1, 2, 0])
    with pytest.raises(ZeroDivisionError):
        pool.map(one_over, [1, 0, 2])
    until(lambda: g.queues[crew_of(g).service_id].qsize() == 2)


def one_over(number: int) -> float:
    return 1 / number


@pytest.mark.row("E07")
def test_values_before_an_error_of_the_iterable_arrive(g: LocalGrid) -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        raise LookupError("the source is dry")

    def one_by_one(values: Iterator[int]) -> list[int]:
        found: list[int] = []
        with pytest.raises(LookupError):
            while True:
                found.append(next(values))
        return found

    pool = g.pool()
    assert one_by_one(pool.imap(double, items())) == [0, 2, 4, 6]
    assert sorted(one_by_one(pool.imap_unordered(double, items()))) == [0, 2, 4, 6]
    assert one_by_one(pool.imap(double, items(), 3)) == [0, 2, 4]  # as `multiprocessing`: whole chunks
    assert one_by_one(g.map(g.publish(Doubler()), "double", items())) == [0, 2, 4, 6]
    assert one_by_one(g.executor().map(double, items(), buffersize=2)) == [0, 2, 4, 6]


class Doubler:
    def double(self, number: int) -> int:
        return 2 * number


# -- errors ----------------------------------------------------------------------------------------------------------


def leave() -> None:
    sys.exit(7)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.row("E08")
def test_errors_are_of_the_classes_that_callers_catch(g: LocalGrid) -> None:
    executor, pool = g.executor(), g.pool()
    with pytest.raises(SystemExit) as left:
        executor.submit(leave).result(20)
    assert left.value.code == 7
    with pytest.raises(KeyboardInterrupt):
        executor.submit(interrupt).result(20)
    with pytest.raises(PicklingError):
        executor.submit(id, (n for n in range(3))).result(20)
    with pytest.raises(ZeroDivisionError) as failed:
        executor.submit(one_over, 0).result(20)
    assert "one_over" in failed.value.__cause__.tb  # type: ignore[union-attr]
    for call in (lambda: pool.apply(one_over, (0,)), lambda: pool.map(one_over, [0]), lambda: pool.map(one_over, [0])):
        with pytest.raises(ZeroDivisionError) as failed:
            call()
        assert type(failed.value.__cause__).__module__ == "multiprocessing.pool"
    assert isinstance(executor.submit(os._exit, 3).exception(20), BrokenProcessPool)
    g.terminate()
    with pytest.raises(RuntimeError):
        executor.submit(one_over, 1)
    assert issubclass(GridStopped, RuntimeError) and issubclass(SerialisationError, PicklingError)


@pytest.mark.row("E08")
def test_running_out_of_time_says_what_was_waited_for(g: LocalGrid, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    executor, pool = g.executor(), g.pool()
    future = executor.submit(wait_for, str(gate))
    assert isinstance(future, Future)
    with pytest.raises(CallTimeout, match=r"call of 'wait_for' is not done after 0\.2 s"):
        future.result(0.2)
    with pytest.raises(TimeoutError, match="wait_for"):
        future.exception(0.01)
    outcome = pool.map_async(wait_for, [str(gate)])
    with pytest.raises(multiprocessing.TimeoutError, match=r"not ready after 0.1 s: 0 items are done"):
        outcome.get(0.1)
    gate.touch()
    future.result(20), outcome.get(20)


@pytest.mark.row("E08")
def test_terminate_ends_calls_that_run_and_the_servers_are_there_again(
    g: LocalGrid, caplog: pytest.LogCaptureFixture
) -> None:
    for single in (False, True):
        with g.pool() as pool:
            due = pool.apply_async(time.sleep, (600,)) if single else pool.map_async(time.sleep, [600] * 10, 1)
            until(lambda: g.queues[crew_of(g).service_id].qsize() < 2)
            time.sleep(0.05)
        pool.join()
        with pytest.raises(Exception):  # noqa: B017 - withdrawn, or ended with its server
            due.get(20)
        assert g.pool().map(double, range(20)) == [2 * n for n in range(20)]
    executor = g.executor()
    running = executor.submit(time.sleep, 600)
    until(running.running)
    executor.terminate_workers()
    assert running.exception(20) is not None
    assert not g.failures and not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- managers, other libraries' interfaces -----------------------------------------------------------------------------


def put(queue: Any, value: int) -> None:
    queue.put(value)


def count(table: Any, lock: Any, _: object) -> None:
    with lock:
        table["n"] = table.get("n", 0) + 1


@pytest.mark.row("E11")
def test_proxies_of_a_manager_work_on_servers_of_this_machine() -> None:
    with multiprocessing.get_context("fork").Manager() as manager, LocalGrid(2, output=None) as g:
        queue, table, lock = manager.Queue(), manager.dict(), manager.Lock()
        pool = g.pool()
        pool.starmap(put, [(queue, n) for n in range(10)])
        assert sorted(queue.get(timeout=10) for _ in range(10)) == list(range(10))
        pool.map(partial(count, table, lock), range(20))
        assert table["n"] == 20
        assert g.executor().submit(lambda: table["n"]).result(20) == 20
        sid = g.publish(Holder(queue))
        with g.acquire_service(sid) as holder:
            holder.put(5).get(10)
        assert queue.get(timeout=10) == 5


class Holder:
    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def put(self, value: int) -> None:
        self.queue.put(value)


@pytest.mark.row("E12")
def test_what_other_libraries_ask_for_is_there(g: LocalGrid) -> None:
    pool, executor = g.pool(), g.executor()
    seen: list[int] = []
    assert pool.is_master() and not pool.is_worker() and pool.enabled() and pool.wait() is None and pool.rank == 0
    assert pool.map(double, [1, 2], callback=seen.append) == [2, 4] and seen == [2, 4]
    assert isinstance(pool, multiprocessing.pool.Pool) and isinstance(executor, ProcessPoolExecutor)
    assert executor._max_workers == pool._processes == pool.size == 2
    assert list(executor.map(double)) == []
    dask = pytest.importorskip("dask")
    with dask.config.set(pool=pool):
        assert dask.compute([dask.delayed(double)(n) for n in range(5)], scheduler="threads") == ([0, 2, 4, 6, 8],)
    with dask.config.set(scheduler=executor):
        assert dask.delayed(double)(4).compute() == 8


# -- scripts of grids before this one ----------------------------------------------------------------------------------


@pytest.mark.row("E13")
def test_a_dot_and_slash_mean_the_current_directory_where_something_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, here = tmp_path / "source", tmp_path / "here"
    for place, name in ((source, "model.txt"), (here, "data.txt")):
        place.mkdir()
        (place / name).write_text(place.name)
    monkeypatch.chdir(here)
    with LocalGrid(1, output=None, src_path=source) as g, g.pool() as pool:
        assert g.copy_files("./", ["data.txt"]).files == {"": ["data.txt"]}
        assert g.copy_files("./", ["model.txt"]).files == {"": ["model.txt"]}
        assert pool.map(read, ["data.txt", "model.txt"]) == ["here", "source"]


class Old(Task):
    def __init__(self, number: int, system_id: str, client_id: str) -> None:
        Task.__init__(self, f"old {number}", system_id, client_id)

    def __call__(self) -> int:
        return 1


@pytest.mark.row("E13")
def test_a_task_can_be_made_of_its_name_its_system_and_its_client() -> None:
    task = Old(3, "system-1", "client-1")
    assert (task.name, task.system_id, task.client_id) == ("old 3", "system-1", "client-1")
    assert Task.__init__(Old.__new__(Old)) is None and Old.name == "" and Old.client_id is None


@pytest.mark.row("E13")
def test_what_stood_behind_shared_temp_path_is_ignored_with_a_word() -> None:
    with pytest.warns(
        DeprecationWarning, match="no name server, no terminate_during_publish and no method: .None, True"
    ):
        g = SSHGrid(["a-host"], None, False, 0.0, False, False, False, None, True, "thread")
    assert g.hosts[0].name == "a-host" and g.shared_temp_path is False


@pytest.mark.row("E13")
def test_a_server_that_nobody_has_acquired_has_no_proxy(g: LocalGrid) -> None:
    sid = g.publish(Held(), wait="all")
    assert all(server.proxy is None for server in g.servers[sid])
    with g.acquire_service(sid) as proxy:
        assert [server.proxy for server in g.servers[sid] if server.proxy is not None] == [proxy]


class Held:
    """Nothing but to be published."""


@pytest.mark.row("E13")
def test_without_an_sshd_on_this_machine_the_way_that_needs_none_is_named() -> None:
    with SSHGrid([Host("localhost", port=1)], output=None) as g, pytest.raises(PublishError, match="ssh='local'"):
        g.publish(Held())


# -- where a function thinks that it runs ------------------------------------------------------------------------------


def about_me() -> tuple[list[str], str, int]:
    me: Any = multiprocessing.current_process()
    return sys.argv, me.name, me._identity[0]


@pytest.mark.row("E15")
def test_a_function_sees_the_arguments_of_the_script_and_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit.py", "--fast", "a b"])
    with LocalGrid(2, output=None) as g:
        found = [g.executor().submit(about_me).result(30) for _ in range(8)]
    assert all(argv == ["fit.py", "--fast", "a b"] for argv, _, _ in found)
    assert all(name != "MainProcess" and name.endswith(f"/{number - 1}") for _, name, number in found)
