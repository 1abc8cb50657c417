"""Task systems as bytes, whole or compressed, and bytes that are none."""

from __future__ import annotations

from typing import Any

import pytest

from grid import Task, TaskError, TaskSystem
from grid.tasks import pack_system, unpack_system

pytestmark = pytest.mark.row("K02", "K22")


class Some(TaskSystem):
    made = 0

    def __init__(self, data: Any) -> None:
        type(self).made += 1
        self.data = data

    def init_system(self, master: Any) -> None: ...
    def generate_tasks(self, master: Any) -> list[Task]:
        return []

    def task_finished(self, master: Any, task: Task, result: Any, error: Any) -> None: ...
    def is_complete(self, master: Any) -> bool:
        return True

    def gather_result(self, master: Any) -> Any: ...


@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_system_comes_back_with_its_id_and_without_its_constructor(level: int) -> None:
    system = Some("x" * 10_000)
    before = Some.made
    parcel = pack_system(system, level=level)
    again = unpack_system(parcel)
    assert isinstance(again, Some) and again is not system and again.data == system.data
    assert again.system_id == system.system_id and Some.made == before
    assert (len(parcel) < 2_000) is (level > 0)


DAMAGED = pack_system(Some(1), level=5)[:-9]


@pytest.mark.parametrize("data", [b"", b"GTS", b"something else", b"GTSz" + b"damaged", DAMAGED])
def test_bytes_that_hold_no_system_are_refused(data: bytes) -> None:
    with pytest.raises(TaskError, match=r"no task system|damaged"):
        unpack_system(data)


def test_what_is_no_system_is_not_packed() -> None:
    with pytest.raises(TaskError, match="a dict was given for a task system"):
        pack_system({"n": 1})  # type: ignore[arg-type]
