"""The systems of a master: which method is called when, and what becomes of one that fails. No thread, no server."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

import pytest

from grid import Stalled, Task, TaskError, TaskSystem
from grid.tasks import LeastLoaded, TaskLimits
from grid.tasks.application import Application, Client
from grid.tasks.schedule import Failed, Idle, Pack, Schedule
from grid.tasks.slaves import SlaveRegistry
from grid.tasks.system import SystemHandle
from grid.tasks.systems import Systems


class Work(Task):
    def __call__(self) -> int:
        return 1


class Rounds(TaskSystem):
    """Generates `n` tasks, and again, until it has `wanted`; fails where it is told."""

    def __init__(self, n: int = 2, wanted: int = 2, fails: str = "") -> None:
        self.n, self.wanted, self.fails = n, wanted, fails
        self.done = 0

    def _do(self, method: str) -> None:
        if self.fails == method:
            raise OSError(method)

    def init_system(self, master: Any) -> None:
        self._do("init_system")

    def generate_tasks(self, master: Any) -> list[Task]:
        self._do("generate_tasks")
        return [Work() for _ in range(self.n)]

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self._do("task_finished")
        self.done += 1

    def is_complete(self, master: Any) -> bool:
        self._do("is_complete")
        return self.done >= self.wanted

    def gather_result(self, master: Any) -> int:
        self._do("gather_result")
        return self.done


class World:
    """Systems over a schedule with one slave, driven by hand as a scheduler does."""

    def __init__(self) -> None:
        self.registry = SlaveRegistry()
        strategy = LeastLoaded()
        self.schedule = Schedule(strategy, self.registry, TaskLimits())
        strategy.setup(None, None)  # type: ignore[arg-type]
        self.stopped: list[Pack] = []
        self.systems = Systems(self, self.schedule, self.stopped.extend)
        self.registry.register("here", 1, 0.0)
        self.schedule.rerate()

    def start(self, system: TaskSystem) -> SystemHandle:
        handle = SystemHandle(system.system_id, "a system", self.withdraw, self.systems.doing)
        self.systems.add(system, handle)
        self.systems.begin(system.system_id)
        return handle

    def withdraw(self, key: str, error: BaseException) -> None:
        self.systems.end(key, None, error)

    def run(self, most: int = 100) -> None:
        for _ in range(most):
            step = self.schedule.next()
            if step is None:
                return
            if isinstance(step, Idle):
                self.systems.idle(step)
            elif isinstance(step, Failed):
                self.systems.source_failed(step.key, step.error)
            else:
                self.finish(step)

    def finish(self, pack: Pack) -> None:
        if self.schedule.settled(pack, 1.0):
            for entry in pack.entries:
                has_heard = self.systems.tell(pack.key, entry.task, 1, None)
                self.schedule.finished(pack.slave)
                if has_heard and pack.key is not None:
                    self.systems.advance(pack.key)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.row("K05", "K06", "K07", "K08", "K09")
def test_systems_generate_in_rounds_until_they_are_complete(world: World) -> None:
    one, two = world.start(Rounds(2, 5)), world.start(Rounds(3, 3))
    world.run()
    assert (one.get(0), one.finished_tasks, two.get(0)) == (5, 5, 3)
    assert list(world.systems) == []


@pytest.mark.row("K06")
def test_one_that_generates_nothing_and_is_not_complete_is_stalled(world: World) -> None:
    handle, done = world.start(Rounds(0, 1)), world.start(Rounds(0, 0))
    world.run()
    with pytest.raises(Stalled, match="not complete after 0 tasks"):
        handle.get(0)
    assert done.get(0) == 0


@pytest.mark.row("K34")
@pytest.mark.parametrize("method", ["init_system", "generate_tasks", "task_finished", "is_complete", "gather_result"])
def test_what_a_method_raises_ends_that_system_with_its_name_and_no_other(world: World, method: str) -> None:
    bad, good = world.start(Rounds(fails=method)), world.start(Rounds())
    world.run()
    with pytest.raises(TaskError, match=rf"its {method} failed \(OSError: {method}\)") as caught:
        bad.get(0)
    assert isinstance(caught.value.__cause__, OSError) and good.get(0) == 2


@pytest.mark.row("K05")
def test_a_source_that_fails_while_it_is_read_ends_its_system(world: World) -> None:
    class Leaky(Rounds):
        def generate_tasks(self, master: Any) -> Any:
            yield Work()
            raise OSError("leak")

    class Odd(Rounds):
        def generate_tasks(self, master: Any) -> Any:
            return 7

    leaky, odd = world.start(Leaky(wanted=9)), world.start(Odd())
    world.run()
    with pytest.raises(TaskError, match="its generate_tasks failed"):
        leaky.get(0)
    with pytest.raises(TaskError, match="returned a int"):
        odd.get(0)


@pytest.mark.row("K10")
def test_one_that_is_withdrawn_drops_what_waits_and_stops_what_runs(world: World) -> None:
    handle = world.start(Rounds(5, 5))
    step = world.schedule.next()
    assert isinstance(step, Pack) and "1 under way, 4 waiting" in handle.doing()
    assert handle.cancel() and not handle.cancel() and world.stopped == [step]
    with pytest.raises(CancelledError):
        handle.get(0)
    world.finish(step)
    assert handle.finished_tasks == 0 and world.schedule.next() is None


@pytest.mark.row("K28")
def test_a_call_back_that_fails_holds_up_nobody(world: World) -> None:
    handle, heard = world.start(Rounds()), []
    handle.add_done_callback(lambda _: 1 / 0)
    handle.add_done_callback(heard.append)
    world.run()
    assert heard == [handle]


@pytest.mark.row("K36")
def test_when_nothing_can_go_on_everybody_hears_the_same(world: World) -> None:
    class Ours(Application):
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def task_finished(self, task_id: str, result: Any, error: BaseException | None) -> None:
            self.heard.append(error)

        def start_processing(self, client: Client) -> None: ...

    class Shell:
        """What a client needs of its master."""

        def push_tasks(self, tasks: Any) -> bool:
            world.schedule.push(None, tasks)
            return True

    handle, ours = world.start(Rounds(1, 9)), Ours()
    client = Client(Shell(), ours)  # type: ignore[arg-type]
    world.systems.clients.append(client)
    client.push_tasks([Work(), Work()])
    error = OSError("the grid is gone")
    world.systems.end_all(error)
    assert handle.pair(0) == (None, error) and ours.heard == [error, error]
    assert world.schedule.next() is None, "single tasks are dropped, too"
    client.push_tasks([Work()])
    world.run()
    assert ours.heard == [error, error, None], "and new ones may come"
