"""The life of a task system: the table, and the methods that are called because of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import Stalled, Task, TaskError, TaskSystem
from grid.tasks.life import MOVES, STEPS, SystemEvent, SystemLife, SystemStage, SystemStep, checked, hear, live


class Told(TaskSystem):
    """Notes what is called; complete after `n` tasks."""

    def __init__(self, n: int = 1, outcome: Any = "gathered") -> None:
        self.n, self.outcome, self.finished = n, outcome, 0
        self.calls: list[str] = []

    def init_system(self, master: Any) -> None:
        self.calls.append("init")

    def generate_tasks(self, master: Any) -> list[Task]:
        self.calls.append("generate")
        return []

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.finished += 1

    def is_complete(self, master: Any) -> bool:
        self.calls.append("ask")
        return self.finished >= self.n

    def gather_result(self, master: Any) -> Any:
        self.calls.append("gather")
        return self.outcome


class One(Task):
    def __call__(self) -> int:
        return 1


def step_on(life: SystemLife, system: Told) -> Any:
    def generate(system: TaskSystem) -> None:
        assert list(system.generate_tasks(None)) == []

    return live(life, system, None, generate)


@pytest.mark.row("K09")
def test_every_stage_has_a_step_or_waits_and_every_move_leads_on() -> None:
    waits = {SystemStage.WORKING, SystemStage.ENDED}
    assert STEPS.keys() | waits == set(SystemStage) and not STEPS.keys() & waits
    left = {stage for stage, _ in MOVES}
    assert left == set(SystemStage) - {SystemStage.STALLED, SystemStage.ENDED}
    reached, waiting = set(), [SystemStage.NEW]
    while waiting:
        stage = waiting.pop()
        if stage not in reached:
            reached.add(stage)
            waiting += [to for (of, _), to in MOVES.items() if of is stage]
    assert reached == set(SystemStage)


@pytest.mark.row("K09")
@given(st.lists(st.sampled_from(SystemEvent), max_size=12))
def test_a_move_that_is_not_in_the_table_is_a_bug(events: list[SystemEvent]) -> None:
    life = SystemLife()
    for event in events:
        stage = life.stage
        if (stage, event) in MOVES:
            life.move(event)
            assert life.stage is MOVES[stage, event]
        else:
            with pytest.raises(AssertionError):
                life.move(event)
            assert life.stage is stage


@pytest.mark.row("K09")
def test_a_system_lives_from_its_first_method_to_its_result() -> None:
    life, system = SystemLife(), Told(2)
    assert step_on(life, system) is None and system.calls == ["init", "generate"]
    system.task_finished(None, One(), 1, None)
    life.move(SystemEvent.FINISHED)
    assert step_on(life, system) is None and life.stage is SystemStage.WORKING
    life.move(SystemEvent.USED_UP)
    assert step_on(life, system) is None and system.calls[-1] == "generate"
    system.task_finished(None, One(), 1, None)
    life.move(SystemEvent.FINISHED)
    assert step_on(life, system) == ("gathered", None) and life.stage is SystemStage.ENDED
    assert system.calls == ["init", "generate", "ask", "generate", "ask", "gather"] and life.finished == 2


@pytest.mark.row("K09")
def test_one_that_generates_nothing_is_asked_and_stalls_only_if_it_is_not_complete() -> None:
    for n, stage in ((0, SystemStage.ENDED), (1, SystemStage.STALLED)):
        life, system = SystemLife(), Told(n)
        step_on(life, system)
        life.move(SystemEvent.DRY)
        result, error = step_on(life, system)
        assert life.stage is stage and (result == "gathered") is (n == 0)
        assert (error is None) if n == 0 else isinstance(error, Stalled) and "after 0 tasks" in str(error)


@pytest.mark.row("K09")
@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("init_system", SystemStep.INIT),
        ("generate_tasks", SystemStep.GENERATE),
        ("is_complete", SystemStep.ASK),
        ("gather_result", SystemStep.GATHER),
    ],
)
def test_after_an_error_the_step_says_which_method_it_was(method: str, step: SystemStep) -> None:
    life, system = SystemLife(), Told(0)

    def fail(*_: Any) -> None:
        raise OSError("no")

    setattr(system, method, fail)
    with pytest.raises(OSError, match="no"):
        step_on(life, system)
        life.move(SystemEvent.FINISHED)
        step_on(life, system)
    assert life.step is step and step.value == method


@pytest.mark.row("K09")
def test_a_pair_is_a_result_and_its_error() -> None:
    error = ValueError("bad")
    life = SystemLife(3, has_begun=True)
    assert step_on(life, Told(0, (None, error))) == (None, error)


@pytest.mark.row("K09")
def test_one_that_goes_on_from_a_checkpoint_is_asked_first_and_not_initialised() -> None:
    system = Told(0)
    assert step_on(SystemLife(4, has_begun=True), system) == ("gathered", None) and system.calls == ["ask", "gather"]
    fresh = Told(1)
    assert step_on(SystemLife(0), fresh) is None and fresh.calls == ["generate"]


@pytest.mark.row("K09")
def test_a_task_is_named_after_its_system_and_anything_else_refused() -> None:
    task = One()
    assert checked(task, "s1") is task and task.system_id == "s1" and task.task_id
    assert checked(task, None).system_id is None
    with pytest.raises(TaskError, match="a int was given for a task"):
        checked(7, "s1")


@pytest.mark.row("K09")
def test_what_a_tasks_finished_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Sore(One):
        def finished(self, result: Any, error: BaseException | None) -> None:
            raise OSError("sore")

    with caplog.at_level(logging.ERROR, "grid.tasks.life"):
        hear(Sore(), 1, None)
    assert "finished() of" in caplog.text and "sore" in caplog.text
