"""Task systems over real servers on this machine: their life, what fails, what is lost, what is left over."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from grid import (
    DuplicateSystem,
    GridStopped,
    Limits,
    LocalGrid,
    RemoteError,
    SerialisationError,
    ServerLost,
    Stalled,
    StrategyError,
    Task,
    TaskError,
    TaskSystem,
    run_system,
)
from grid.errors import CallTimeout
from grid.tasks import (
    Application,
    Client,
    LeastLoaded,
    Locality,
    Master,
    RatedStrategy,
    RoundRobin,
    TaskLimits,
    TaskScheduleStrategy,
    Weighted,
    WorkerManager,
    pack_system,
    unpack_system,
)

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=4.0, stop_s=1.0)


def until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def g() -> Iterator[LocalGrid]:
    with LocalGrid(2, limits=QUICK, output=None) as g:
        g.publish([])  # its agent stays from test to test
        yield g


@pytest.fixture(scope="module")
def master(g: LocalGrid) -> Iterator[Master]:
    """One for all tests that leave nothing over."""
    with Master(g) as master:
        yield master


class Square(Task):
    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> int:
        return self.number**2


class Apply(Task):
    """Calls a function on the worker."""

    def __init__(self, what: Callable[..., Any], *args: Any, retries: int = 0) -> None:
        self.what, self.args, self.retries = what, args, retries

    def __call__(self) -> Any:
        return self.what(*self.args)


class Collect(TaskSystem):
    """Runs the tasks that it is given; its result is what became of them, in their order."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = list(tasks)
        self.outcomes: dict[str, Any] = {}
        self.expected_tasks = len(self.tasks)

    def init_system(self, master: Any) -> None:
        self.order = [task.task_id for task in self.tasks]

    def generate_tasks(self, master: Any) -> Iterable[Task]:
        tasks, self.tasks = self.tasks, []
        return tasks

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        assert task.task_id not in self.outcomes, "it is told once"
        self.outcomes[task.task_id] = result if error is None else error

    def is_complete(self, master: Any) -> bool:
        return len(self.outcomes) == self.expected_tasks

    def gather_result(self, master: Any) -> Any:
        return [self.outcomes[task_id] for task_id in self.order], None


def wait_for(path: Path, limit_s: float = 30.0) -> str:
    """On a worker: wait until a file is there."""
    (path.parent / f"{path.name}.waiting-{os.getpid()}").touch()
    end = time.monotonic() + limit_s
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.01)
    return "seen"


# -- the life of a system ----------------------------------------------------------------------------------------------


class Diary(TaskSystem):
    """Two rounds of two tasks, one more by push; writes down who calls what."""

    constructed = 0

    def __init__(self) -> None:
        Diary.constructed += 1
        self.diary: list[str] = []
        self.threads: set[int] = set()
        self.round = 0

    def note(self, what: str) -> None:
        self.diary.append(what)
        self.threads.add(threading.get_ident())

    def init_system(self, master: Any) -> None:
        self.note("init")

    def generate_tasks(self, master: Any) -> Iterable[Task]:
        self.note("generate")
        self.round += 1
        return (Square(self.round) for _ in range(2))

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.note(f"finished {result}")
        if self.diary.count("finished 4") == 1 and result == 4:
            assert master.push_task(None) is False
            master.push_tasks([Square(9), None], self)

    def is_complete(self, master: Any) -> bool:
        self.note("complete?")
        return "finished 81" in self.diary and self.diary.count("finished 4") == 2

    def gather_result(self, master: Any) -> Any:
        self.note("gather")
        return self.diary, self.threads


@pytest.mark.row("K02", "K03", "K05", "K06", "K07", "K08", "K09", "K26")
def test_the_life_of_a_system(g: LocalGrid) -> None:
    system = Diary()
    made = Diary.constructed
    diary, threads = run_system(system, g)
    assert Diary.constructed == made, "the master works on a copy, without the constructor"
    assert system.diary == [] and system.round == 0
    assert diary[:2] == ["init", "generate"] and diary[-1] == "gather"
    assert diary.count("init") == diary.count("gather") == 1 and diary.count("generate") == 2
    rest = [word for word in diary[2:-1] if word != "generate"]
    assert [word.split()[0] for word in rest[::2]] == ["finished"] * 5
    assert rest[1::2] == ["complete?"] * 5, "asked after every finished task"
    assert len(threads) == 1, "never two at a time"


@pytest.mark.row("K36", "K39", "D03")
def test_run_system_takes_the_grid_that_is_there_and_shows_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRID_LOCAL", "2")
    assert run_system(Collect(map(Square, range(40))), progress=True) == [n**2 for n in range(40)]
    shown = capsys.readouterr().err
    assert "Collect" in shown and "40/40" in shown


class Lazy(TaskSystem):
    """More tasks than fit anywhere; complete after a few."""

    def __init__(self, enough: int) -> None:
        self.enough, self.read, self.done = enough, 0, 0

    def init_system(self, master: Any) -> None: ...
    def generate_tasks(self, master: Any) -> Iterable[Task]:
        while True:
            self.read += 1
            yield Square(self.read)

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.done += 1

    def is_complete(self, master: Any) -> bool:
        return self.done == self.enough

    def gather_result(self, master: Any) -> Any:
        return self.read


@pytest.mark.row("K05", "K10")
def test_a_generator_without_an_end_is_read_as_workers_take_tasks(g: LocalGrid) -> None:
    assert 3000 <= run_system(Lazy(3000), g) < 3000 + 2 * 2 * 2000 + 10


@pytest.mark.row("K06", "K08")
def test_a_system_that_makes_no_tasks_and_is_not_complete_is_stalled(master: Master) -> None:
    class Never(Collect):
        def is_complete(self, master: Any) -> bool:
            return False

    for tasks in ([], [Square(1), Square(2)]):
        with pytest.raises(Stalled, match=f"not complete after {len(tasks)} tasks") as caught:
            master.start_system(Never(tasks)).get(30)
        assert "generate_tasks gave none" in str(caught.value)
    assert master.start_system(Collect([])).get(30) == [], "asked for completeness where nothing is generated"


@pytest.mark.row("K28", "K29")
def test_several_systems_at_once(g: LocalGrid) -> None:
    with Master(g) as master:
        handles = [master.start_system(Collect(Square(n + k) for n in range(300))) for k in range(4)]
        for k, handle in enumerate(handles):
            assert handle.get(60) == [(n + k) ** 2 for n in range(300)]
            assert (handle.finished_tasks, handle.failed_tasks, handle.done()) == (300, 0, True)
        slaves = master.status()["slaves"]
        assert slaves["localhost"]["running"] == 0 and slaves["localhost"]["done"] == 1200


# -- tasks -------------------------------------------------------------------------------------------------------------


class Heavy(Task):
    """Has input that it drops, and leaves something on itself."""

    def __init__(self) -> None:
        self.input = bytes(1000)
        self.heard: list[Any] = []

    def __call__(self) -> int:
        self.pid = os.getpid()
        return len(self.input)

    def clean_up(self) -> None:
        del self.input
        self.cleaned = os.getpid()

    def finished(self, result: Any, error: BaseException | None) -> None:
        self.heard = [result, error, os.getpid()]


class Keep(Collect):
    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.outcomes[task.task_id] = task


@pytest.mark.row("K11", "K22", "K40")
def test_a_task_is_called_and_cleans_up_on_a_worker_and_finishes_on_the_master(master: Master) -> None:
    system = Keep([Heavy()])
    (task,) = run_system(system, master)
    assert task.pid == task.cleaned != os.getpid()
    assert not hasattr(task, "input"), "what it dropped there is dropped here"
    assert task.heard == [1000, None, os.getpid()]
    assert (task.system_id, task.slave_id) == (system.system_id, "localhost")


def fail_until(path: Path, times: int) -> str:
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= times:
        raise ValueError("not yet")
    return "at last"


class Clumsy(Task):
    def __call__(self) -> str:
        return "well"

    def clean_up(self) -> None:
        raise OSError("can't clean up")


@pytest.mark.row("K34", "K07")
def test_what_a_task_raises_goes_to_its_system_and_retries_are_counted(master: Master, tmp_path: Path) -> None:
    tasks = [
        Apply(fail_until, tmp_path / "once", 9),
        Apply(fail_until, tmp_path / "thrice", 2, retries=2),
        Apply(fail_until, tmp_path / "too-often", 9, retries=2),
        Apply(exit, 3),
        Clumsy(),
        Square(2),
    ]
    once, thrice, often, left, clumsy, square = run_system(Collect(tasks), master)
    assert isinstance(once, ValueError) and (tmp_path / "once").read_text() == "x"
    assert "fail_until" in str(once.__cause__), "with the remote traceback"
    assert thrice == "at last"
    assert isinstance(often, ValueError) and (tmp_path / "too-often").read_text() == "xxx"
    assert isinstance(left, RemoteError) and "SystemExit" in str(left)
    assert isinstance(clumsy, OSError)
    assert square == 4


class Misfits(Collect):
    """Among good tasks one that holds an open socket, and one whose result is a generator."""

    def __init__(self) -> None:
        super().__init__([])
        self.expected_tasks = 51

    def generate_tasks(self, master: Any) -> Iterable[Task]:
        self.socket = socket.socket()
        tasks: list[Task] = [Square(n) for n in range(50)]
        tasks[20] = Apply(print, {"socket": self.socket})
        tasks.append(Apply(lambda: (n for n in range(3))))
        self.order = [task.task_id for task in tasks]
        return tasks

    def gather_result(self, master: Any) -> Any:
        self.socket.close()
        return super().gather_result(master)


@pytest.mark.row("K34", "K30")
def test_a_task_or_result_that_cannot_travel_fails_alone(master: Master) -> None:
    outcomes = master.start_system(Misfits()).get(30)
    assert isinstance(outcomes[20], SerialisationError) and "['socket']" in str(outcomes[20])
    assert isinstance(outcomes[50], SerialisationError) and "the result of task Apply" in str(outcomes[50])
    assert [outcome for n, outcome in enumerate(outcomes[:50]) if n != 20] == [n**2 for n in range(50) if n != 20]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.row("K02", "K40")
def test_a_system_that_cannot_be_serialised_names_the_attribute(master: Master) -> None:
    system = Collect([])
    system.engine = {"lock": (n for n in range(3))}  # type: ignore[attr-defined]
    with pytest.raises(SerialisationError, match=r"task system Collect.*\.engine\['lock'\]"):
        master.start_system(system)
    with pytest.raises(TaskError, match="a str was given for a task system"):
        master.start_system("system")  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="hold no task system"):
        master.start_system(b"nonsense")
    assert master.start_system(Collect([Square(3)])).get(30) == [9], "the master goes on"


@pytest.mark.row("K40")
@pytest.mark.parametrize("level", [0, 6])
def test_a_system_travels_as_bytes(master: Master, level: int) -> None:
    system = Collect([Square(n) for n in range(200)])
    parcel = pack_system(system, level=level)
    assert unpack_system(parcel).system_id == system.system_id
    assert run_system(parcel, master) == [n**2 for n in range(200)]
    if level:
        assert len(parcel) < len(pack_system(system)) / 2
        with pytest.raises(TaskError, match="damaged"):
            unpack_system(parcel[:-20])


@pytest.mark.row("K37")
def test_the_same_system_twice_is_refused(master: Master, tmp_path: Path) -> None:
    system = Collect([Apply(wait_for, tmp_path / "go")])
    handle = master.start_system(system)
    with pytest.raises(DuplicateSystem, match=system.system_id):
        master.start_system(system)
    (tmp_path / "go").touch()
    assert handle.get(30) == ["seen"]
    assert master.start_system(system).get(30) == ["seen"], "once it is over it may run again"


@pytest.mark.row("K03", "K07", "K08", "K09")
@pytest.mark.parametrize("method", ["init_system", "generate_tasks", "task_finished", "is_complete", "gather_result"])
def test_an_error_in_a_method_ends_the_system_and_goes_to_its_originator(master: Master, method: str) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("oh dear")

    kind = type("Failing", (Collect,), {method: fail})
    with pytest.raises(TaskError, match=f"its {method} failed .KeyError: 'oh dear'") as caught:
        master.start_system(kind([Square(1)])).get(30)
    assert isinstance(caught.value.__cause__, KeyError)
    assert master.start_system(Collect([Square(2)])).get(30) == [4]


@pytest.mark.row("K07")
def test_a_system_that_says_exit_ends_itself_and_not_the_master(master: Master) -> None:
    class Leaving(Collect):
        def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
            raise SystemExit(3)

    with pytest.raises(TaskError, match=r"task_finished failed .SystemExit: 3"):
        master.start_system(Leaving([Square(1)])).get(30)
    assert master.start_system(Collect([Square(2)])).get(30) == [4]


@pytest.mark.row("K05")
@pytest.mark.parametrize(("generated", "word"), [(7, "returned a int"), ([7], "a int was given for a task")])
def test_what_is_generated_must_be_tasks(master: Master, generated: Any, word: str) -> None:
    class Odd(Collect):
        def generate_tasks(self, master: Any) -> Any:
            return generated

    with pytest.raises(TaskError, match=word):
        master.start_system(Odd([])).get(30)


@pytest.mark.row("K09")
def test_an_error_that_is_gathered_is_raised(master: Master) -> None:
    class Sad(Collect):
        def gather_result(self, master: Any) -> Any:
            return "half", ArithmeticError("no more")

    handle = master.start_system(Sad([]))
    with pytest.raises(ArithmeticError, match="no more"):
        handle.get(30)
    result, error = handle.pair()
    assert result == "half" and isinstance(error, ArithmeticError)


class Nonsense(TaskScheduleStrategy):
    def rate(self, slave: Any) -> float:
        return 0.0

    def get_next_slave(self) -> str:
        return "atlantis"


@pytest.mark.row("K25")
def test_a_strategy_that_answers_nonsense_ends_the_systems_with_its_name(g: LocalGrid) -> None:
    with pytest.raises(StrategyError, match="the strategy Nonsense named 'atlantis', which is no active slave"):
        run_system(Collect([Square(1)]), g, strategy=Nonsense(), timeout=30)


class Mine(RatedStrategy):
    def rate(self, slave: Any) -> float:
        assert (self.master is not None) and (self.scheduler is self.master.scheduler)
        return slave.running


@pytest.mark.row("K23", "K24", "K25", "K41")
@pytest.mark.parametrize("strategy", [LeastLoaded, Weighted, Locality, RoundRobin, Mine])
def test_every_strategy_brings_a_system_to_its_end(g: LocalGrid, strategy: type[RatedStrategy]) -> None:
    assert run_system(Collect(map(Square, range(60))), g, strategy=strategy()) == [n**2 for n in range(60)]


@pytest.mark.row("K36")
def test_a_timeout_says_how_far_it_is_and_withdraws_the_system(g: LocalGrid, tmp_path: Path) -> None:
    with pytest.raises(CallTimeout, match="0 tasks finished, 1 under way"):
        run_system(Collect([Apply(wait_for, tmp_path / "never")]), g, timeout=0.5)
    with Master(g) as master:
        handle = master.start_system(Collect([Apply(wait_for, tmp_path / "never")]))
        assert handle.cancel()
        with pytest.raises(CancelledError):
            handle.get(30)
        assert not handle.cancel()


# -- what is left over, lost, or not there -----------------------------------------------------------------------------


class First(Collect):
    """Complete when the first task is finished."""

    def is_complete(self, master: Any) -> bool:
        return len(self.outcomes) == 1

    def gather_result(self, master: Any) -> Any:
        return list(self.outcomes.values())


def sleep_long(path: Path) -> None:
    path.touch()
    try:
        time.sleep(60)
    finally:
        path.with_suffix(".stopped").touch()


@pytest.mark.row("K10")
def test_running_tasks_of_a_complete_system_are_told_to_stop_and_their_worker_goes_on(
    g: LocalGrid, tmp_path: Path
) -> None:
    with Master(g) as master:
        tasks = [Apply(sleep_long, tmp_path / "long"), Apply(wait_for, tmp_path / "long"), *map(Square, range(3))]
        assert master.start_system(First(tasks)).get(30) == ["seen"]
        began = time.monotonic()
        pids = {master.start_system(Collect([Apply(wait_for, tmp_path / "go"), Apply(wait_for, tmp_path / "go")]))}
        until((tmp_path / "long.stopped").exists)
        until(lambda: len(list(tmp_path.glob("go.waiting-*"))) == 2, 30)
        (tmp_path / "go").touch()
        assert [handle.get(30) for handle in pids] == [["seen", "seen"]]
        assert time.monotonic() - began < 40, "both workers are of use again"
        assert master.status()["slaves"]["localhost"]["running"] == 0
        assert master.status()["slaves"]["localhost"]["workers"] == 2


def note_and_die(path: Path, deaths: int) -> str:
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@pytest.mark.row("K33", "K30")
def test_tasks_of_a_lost_worker_go_to_others_and_one_that_kills_workers_fails(tmp_path: Path) -> None:
    with LocalGrid(2, limits=QUICK, output=None) as g:
        tasks: list[Task] = [Square(n) for n in range(30)]
        tasks[3] = Apply(note_and_die, tmp_path / "once", 1)
        tasks[7] = Apply(note_and_die, tmp_path / "always", 99)
        outcomes = run_system(Collect(tasks), g, timeout=60)
    assert outcomes[3] == "survived" and (tmp_path / "once").read_text() == "xx"
    assert isinstance(outcomes[7], ServerLost) and outcomes[7].signal == signal.SIGKILL
    assert (tmp_path / "always").read_text() == "xxx", "as often as TaskLimits.losses says"
    assert [v for n, v in enumerate(outcomes) if n not in (3, 7)] == [n**2 for n in range(30) if n not in (3, 7)]


@pytest.mark.row("K30", "K33")
def test_a_worker_that_died_while_it_had_nothing_to_do_is_noticed_and_replaced() -> None:
    with LocalGrid(2, limits=QUICK, output=None) as g, Master(g) as master:
        until(lambda: master.status()["slaves"].get("localhost", {}).get("workers") == 2)
        (pid,) = {worker.place.get(30)[1] for worker in master.managers["localhost"].staff.working[:1]}
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(master.managers["localhost"].staff.everybody) == 3)  # with the one that replaces it
        handle = master.start_system(Collect(Apply(time.sleep, 0.05) for _ in range(20)))
        assert handle.get(30) == [None] * 20
        assert master.status()["slaves"]["localhost"]["workers"] == 2


@pytest.mark.row("K25", "K27", "K35")
def test_without_a_host_systems_wait_without_burning_cpu_say_so_and_go_on_with_a_new_one() -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g, Master(g) as master:
        assert master.start_system(Collect([Square(5)])).get(30) == [25]
        for server in g.servers[master.service_id]:
            server.terminate()
        until(lambda: master.status()["slaves"]["localhost"]["workers"] == 0)
        handle = master.start_system(Collect(map(Square, range(3))))
        until(lambda: "no active host (no server is left" in handle.doing())
        burnt, began = time.process_time(), time.monotonic()
        with pytest.raises(CallTimeout, match="no active host"):
            handle.get(1.0)
        assert time.process_time() - burnt < 0.4 * (time.monotonic() - began)
        g.add_hosts([LocalGrid(2).hosts[0]])
        assert handle.get(60) == [0, 1, 4]


@pytest.mark.row("K17", "K27", "K35")
def test_the_pool_of_a_slave_shrinks_and_grows_while_tasks_run(g: LocalGrid) -> None:
    with Master(g) as master:
        handle = master.start_system(Collect(Apply(time.sleep, 0.01) for _ in range(100)))
        for n in (1, 2, 0, 2, 1):
            until(lambda: "localhost" in master.status()["slaves"])
            master.update_pool("localhost", n)
            until(lambda n=n: master.status()["slaves"]["localhost"]["workers"] == n)  # type: ignore[misc]
        assert handle.get(60) == [None] * 100
        with pytest.raises(TaskError, match="no slave 'elsewhere'"):
            master.update_pool("elsewhere", 1)


@pytest.mark.row("K38")
def test_when_master_or_grid_end_systems_fail_with_the_reason(tmp_path: Path) -> None:
    with LocalGrid(1, limits=QUICK, output=None) as g:
        with Master(g) as master:
            handle = master.start_system(Collect([Apply(wait_for, tmp_path / "never")]))
        with pytest.raises(GridStopped, match="before it was complete"):
            handle.get(0)
        with pytest.raises(TaskError, match="has ended"):
            master.start_system(Collect([]))
        with Master(g) as other:
            handle = other.start_system(Collect([Apply(wait_for, tmp_path / "never")]))
            until(lambda: other.status()["slaves"])
            g.terminate()
            with pytest.raises(GridStopped):
                handle.get(30)


# -- applications ------------------------------------------------------------------------------------------------------


class Listener(Application):
    def __init__(self, system: TaskSystem | None = None) -> None:
        self.system = system
        self.heard: list[Any] = []

    def get_task_system(self) -> TaskSystem | None:
        return self.system

    def start_processing(self, client: Client) -> None:
        self.heard.append("start")
        self.ids = client.push_tasks([Square(3), None, Square(4)])

    def work_finished(self, *facts: Any) -> None:
        self.heard.append(("work", *facts))

    def task_finished(self, *facts: Any) -> None:
        self.heard.append(("task", *facts))

    def push_system_response(self, *facts: Any) -> None:
        self.heard.append(("system taken", *facts))

    def push_system_failed(self, *facts: Any) -> None:
        self.heard.append(("system refused", *facts))

    def push_tasks_response(self, *facts: Any) -> None:
        self.heard.append(("tasks taken", *facts))

    def push_tasks_failed(self, *facts: Any) -> None:
        self.heard.append(("tasks refused", *facts))

    def master_disconnected(self, *facts: Any) -> None:
        self.heard.append(("end", *facts))


@pytest.mark.row("K36", "K29")
def test_an_application_hears_of_its_systems_and_single_tasks(g: LocalGrid) -> None:
    system = Collect([Square(2)])
    one, two = Listener(system), Listener()
    with Master(g) as master:
        with master.client(one) as client:
            client.wait(30)
        assert set(map(str, one.heard)) == {
            str(("system taken", system.system_id)),
            str(("work", [4], system.system_id)),
        }
        with master.client(two) as client:
            client.wait(30)
            assert two.heard[0] == "start" and ("tasks taken", two.ids) in two.heard
            told = [fact for fact in two.heard if fact[0] == "task"]
            assert sorted(told) == sorted([("task", two.ids[0], 9, None), ("task", two.ids[1], 16, None)])
            with pytest.raises(TaskError, match="a int was given"):
                client.push_tasks([Square(1), 5])  # type: ignore[list-item]
            assert two.heard[-1][0] == "tasks refused"
            with pytest.raises(TaskError):
                client.push_system(b"odd")
            assert two.heard[-1][0] == "system refused"
            left = master.client(three := Listener(Collect([Square(1)])))
            left.wait(30)
        master.close()
    assert three.heard[-1] == ("end", True)


@pytest.mark.row("K38")
def test_systems_of_a_client_that_goes_are_removed_but_for_those_it_detached(g: LocalGrid, tmp_path: Path) -> None:
    with Master(g) as master:
        gone, stays = (Collect([Apply(wait_for, tmp_path / "go")]) for _ in range(2))
        with master.client(Listener(gone)) as client:
            client.push_system(stays)
            assert client.detach(stays.system_id) == stays.system_id
            with pytest.raises(TaskError, match="none of ours"):
                client.detach("who")
        until(lambda: gone.system_id not in master.status()["systems"])
        assert stays.system_id in master.status()["systems"]
        with pytest.raises(CallTimeout):
            master.fetch(stays.system_id, 0.1)
        with pytest.raises(DuplicateSystem, match="runs already"):
            master.start_system(stays)
        (tmp_path / "go").touch()
        assert master.fetch(stays.system_id, 30) == ["seen"]
        with pytest.raises(TaskError, match="was fetched"):
            master.fetch(stays.system_id)


@pytest.mark.row("K36")
def test_single_tasks_fail_where_nothing_can_go_on(g: LocalGrid) -> None:
    listener = Listener()
    with Master(g, Nonsense()) as master, master.client(listener) as client:
        client.wait(30)
    told = [fact for fact in listener.heard if fact[0] == "task"]
    assert sorted(fact[1] for fact in told) == sorted(listener.ids)
    assert all(isinstance(fact[3], StrategyError) for fact in told)


@pytest.mark.row("K29")
def test_tasks_are_pushed_all_or_none(g: LocalGrid) -> None:
    with Master(g) as master, master.client(Application()):
        with pytest.raises(TaskError, match="a str was given"):
            master.push_tasks([Square(1), "x"])  # type: ignore[list-item]
        with pytest.raises(TaskError, match="not here"):
            master.push_tasks([Square(1)], "nobody")
        assert master.push_task(None) is False and master.push_tasks([None]) is False
        assert master.scheduler.schedule.waiting(None) == (0, 0)


class Insider(Collect):
    """Uses the scheduler's own methods, as a framework of one's own would."""

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        super().task_finished(master, task, result, error)
        scheduler = master.scheduler
        (slave,) = master.registry.slaves.values()
        if len(self.outcomes) == 1:
            before = slave.running
            scheduler._tasked_pushed(slave.slave_id)
            assert slave.running == before + 1 and scheduler.strategy.rate(slave) == slave.running / slave.workers
            ghost = Square(0)
            ghost.slave_id = slave.slave_id
            scheduler.task_finished(ghost, None, None)
            assert slave.running == before
            scheduler.rate_slaves()
            more = Square(7)
            more.system_id = self.system_id
            self.order.append(more.task_id)
            self.handled = scheduler.handle_task(more)
            self.sent_to = more.slave_id

    def gather_result(self, master: Any) -> Any:
        return [self.outcomes[task_id] for task_id in self.order], self.handled, self.sent_to


@pytest.mark.row("K26", "K27", "K30", "K31", "K32")
def test_the_schedulers_own_methods(g: LocalGrid) -> None:
    system = Insider([Square(2)])
    system.expected_tasks = 2
    assert run_system(system, g) == ([4, 49], True, "localhost")


@pytest.mark.row("K42")
def test_statistics_of_tasks_by_name(g: LocalGrid) -> None:
    with Master(g) as master:
        named = Apply(time.sleep, 0.02)
        named.name = "nap"
        master.start_system(Collect([named, Square(1), Square(2)])).get(30)
        table = master.status()["tasks"]
    assert table["Square"]["n"] == 2 and table["nap"]["n"] == 1
    assert 0.02 <= table["nap"]["min"] == table["nap"]["avg"] == table["nap"]["max"] < 5


# -- the task manager --------------------------------------------------------------------------------------------------


@pytest.mark.row("K12", "K13", "K14", "K15", "K16", "K18", "K19", "K20", "K21", "K22", "K39")
def test_a_task_manager_alone_is_a_pool_of_workers(tmp_path: Path) -> None:
    assert WorkerManager().get_num_workers() >= 1
    manager = WorkerManager(2)
    with pytest.raises(TaskError, match=r"Call init"):
        manager.start()
    manager.init("node1", ("master", 7000))
    assert (manager.identity, manager.address, manager.get_num_workers()) == ("node1", ("master", 7000), 2)
    with pytest.raises(TaskError, match="'node1' already"):
        manager.init("node2", None)
    assert manager.push_task(Square(1)) is False, "it does not run yet"
    with manager:
        with pytest.raises(TaskError, match="runs already"):
            manager.start()
        task = manager.create_task(Apply, wait_for, tmp_path / "go", retries=1)
        assert isinstance(task, Apply) and task.retries == 1 and task.task_id
        assert manager.push_task(task) and all(manager.push_task(Square(n)) for n in range(5))
        assert not manager.wait_for_all(0.2)
        (tmp_path / "go").touch()
        assert manager.wait_for_all(30)
        results = manager.get_results_queue()
        records = [results.get(timeout=5) for _ in range(6)]
        assert results.empty()
        assert {(task.task_id, result) for task, result, error in records if error is None} >= {(task.task_id, "seen")}
        assert sorted(result for _, result, _ in records if result != "seen") == [0, 1, 4, 9, 16]
        heavy = Heavy()
        manager.push_task(heavy)
        assert results.get(timeout=30)[1] == 1000 and heavy.heard == [1000, None, os.getpid()]
        manager.push_task(Apply(fail_until, tmp_path / "f", 9))
        assert isinstance(results.get(timeout=30)[2], ValueError)
    assert manager.push_task(Square(1)) is False
    manager.init("node2", None)


@pytest.mark.row("K16", "K17", "K33")
def test_a_pool_changes_its_size_without_losing_tasks_and_is_stopped_in_time(tmp_path: Path) -> None:
    manager = WorkerManager(1)
    manager.init("here", None)
    with manager:
        for n in range(20):
            manager.push_task(Apply(time.sleep, 0.02))
            if n == 5:
                manager.update_pool(3)
            if n == 15:
                manager.update_pool(1)
        manager.push_task(Apply(note_and_die, tmp_path / "x", 1))
        assert manager.wait_for_all(60) and manager.get_num_workers() == 1
        results = manager.get_results_queue()
        records = [results.get_nowait() for _ in range(21)]
        assert [error for _, _, error in records if error] == []
        manager.update_pool(2)
        until(lambda: manager.staff.size == 2)
        manager.push_task(Apply(wait_for, tmp_path / "never"))
        began = time.monotonic()
        manager.stop(0.3)
        assert time.monotonic() - began < 25
        with pytest.raises(queue.Empty):
            results.get_nowait()
    with pytest.raises(ValueError, match="num_workers"):
        WorkerManager(0)


@pytest.mark.row("K35")
def test_limits_of_a_master_can_be_set(g: LocalGrid) -> None:
    limits = TaskLimits(heartbeat_s=0.05, inactive_after=2, removed_after=4)
    with Master(g, limits=limits) as master:
        handle = master.start_system(Collect([Apply(time.sleep, 0.6)]))
        assert handle.get(30) == [None], "a host that answers is not removed, however long a task runs"
        assert master.status()["slaves"]["localhost"]["state"] == "active"


@pytest.mark.row("K42")
def test_grid_status_tells_the_durations_of_tasks_and_calls() -> None:
    def ask(*options: str) -> str:
        command = [sys.executable, "-m", "grid", "status", own.grid_id, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    with LocalGrid(1, output=None) as own:
        with Master(own) as master:
            assert len(master.start_system(Collect([Square(n) for n in range(20)])).get(30)) == 20
            rows = [line.split() for line in ask("--stats").splitlines() if " task " in line]
            assert len(rows) == 1 and int(rows[0][3]) == 20, rows
            (one,) = json.loads(ask("--json"))
            (told,) = one["status"]["masters"]
            (times,) = told["tasks"].values()
            assert times["n"] == 20 and times["min"] <= times["avg"] <= times["max"]
        assert " task " not in ask("--stats")
