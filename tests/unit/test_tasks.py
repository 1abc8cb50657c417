"""What task systems are made of: the interfaces, packs, statistics, cores."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import grid.tasks
from grid.services.packing import Packing
from grid.slots.cores import quota, usable_cores
from grid.tasks import Task, TaskSystem, abstract
from grid.tasks.abstract import as_pair
from grid.tasks.statistics import Statistics
from tests.unit.task_world import Work

# -- the interfaces ----------------------------------------------------------------------------------------------------


@pytest.mark.row("K11", "K12", "K23", "K26")
def test_the_interfaces_have_the_methods_of_the_framework_and_their_other_names() -> None:
    methods = {
        "TaskSystem": "system_id get_system_id init_system generate_tasks task_finished is_complete gather_result",
        "Task": "name task_id system_id client_id slave_id __call__ clean_up finished",
        "TaskManager": "init get_num_workers start stop update_pool push_task wait_for_all get_results_queue "
        "create_task task_finished",
        "TaskScheduleStrategy": "setup rate get_next_slave",
        "TaskScheduler": "setup rate_slaves start_system push_task push_tasks handle_task _tasked_pushed task_finished",
    }
    for name, words in methods.items():
        kind = getattr(grid.tasks, name)
        assert getattr(grid.tasks, f"I{name}") is kind
        assert [word for word in words.split() if not hasattr(kind, word)] == []
        with pytest.raises(TypeError, match="abstract"):
            kind()
    assert set(grid.tasks.__all__) == set(dir(grid.tasks))
    assert all(getattr(grid.tasks, name) is not None for name in grid.tasks.__all__)


class Empty(TaskSystem):
    def init_system(self, master: Any) -> None: ...
    def generate_tasks(self, master: Any) -> list[Task]:
        return []

    def task_finished(self, master: Any, task: Task, result: Any, error: Any) -> None: ...
    def is_complete(self, master: Any) -> bool:
        return True

    def gather_result(self, master: Any) -> Any: ...


@pytest.mark.row("K01", "K04")
def test_a_system_has_an_id_of_its_own_that_travels_with_it() -> None:
    class Forgetful(Empty):
        def __init__(self) -> None:
            self.x = 1  # and no word to the base class

    one, two = Forgetful(), Forgetful()
    assert one.system_id != two.system_id and len(one.system_id) == 32
    assert one.get_system_id() == one.system_id
    empty = Empty()
    assert pickle.loads(pickle.dumps(empty)).system_id == empty.system_id


@pytest.mark.row("K11", "K21")
def test_a_task_has_a_unique_id_and_may_leave_the_rest_out() -> None:
    tasks = [Work(n) for n in range(100)]
    assert len({task.task_id for task in tasks}) == 100
    assert tasks[0].task_id == tasks[0].task_id == pickle.loads(pickle.dumps(tasks[0])).task_id
    assert (tasks[0].system_id, tasks[0].client_id, tasks[0].slave_id, tasks[0].retries) == (None, None, None, 0)
    tasks[0].clean_up()
    tasks[0].finished(None, None)


@pytest.mark.row("K09")
@pytest.mark.parametrize(
    ("gathered", "pair"),
    [
        ((1, None), (1, None)),
        (7, (7, None)),
        (None, (None, None)),
        ((1, 2), ((1, 2), None)),
        ((1, 2, None), ((1, 2, None), None)),
    ],
)
def test_a_bare_result_is_taken_for_a_pair(gathered: Any, pair: Any) -> None:
    assert as_pair(gathered) == pair


def test_an_error_in_a_pair_is_kept() -> None:
    error = ValueError("no")
    assert as_pair((None, error)) == (None, error)


# -- packs, statistics, cores ------------------------------------------------------------------------------------------


@pytest.mark.row("K30")
def test_packs_grow_for_short_tasks_stay_single_for_long_ones_and_shrink_at_the_end() -> None:
    packing = Packing(0.05, 2000)
    assert packing.take() == 1 and packing.ahead(packing.take()) == 1
    sizes = []
    for _ in range(8):
        sizes.append(packing.take())
        packing.took(sizes[-1], sizes[-1] * 1e-5, 0.0)
    assert sizes == [1, 4, 16, 64, 256, 1024, 2000, 2000] and packing.ahead(packing.take()) == 2
    assert packing.take(5, left=100) == 10 and packing.take(left=0) == 1
    assert packing.take(speed=0.1) < packing.take()
    for _ in range(20):
        packing.took(1, 2.0, 0.0)
    assert packing.take() == 1 and packing.ahead(packing.take()) == 1


@pytest.mark.row("K42")
def test_statistics_by_name() -> None:
    statistics = Statistics()
    for name, seconds in (("a", 1.0), ("a", 3.0), ("b", 0.5)):
        statistics.add(name, seconds)
    assert statistics.table() == {
        "a": {"avg": 2.0, "min": 1.0, "max": 3.0, "n": 2},
        "b": {"avg": 0.5, "min": 0.5, "max": 0.5, "n": 1},
    }


@pytest.mark.row("K14")
def test_cores_by_the_limit_of_a_cgroup() -> None:
    assert quota("200000 100000\n") == 2.0 and quota("50000 100000") == 0.5
    assert quota("max 100000\n") is None and quota("") is None and quota("1 0") is None
    assert usable_cores() >= 1


def test_the_part_for_hosts_stands_alone() -> None:
    source = Path(abstract.__file__).read_text()
    assert "from grid" not in source and "import grid" not in source
