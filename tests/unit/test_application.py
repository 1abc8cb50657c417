"""A client of a master: what its application hears, and what it waits for. Without a thread or a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from grid import Task, TaskError, TaskSystem
from grid.errors import CallTimeout
from grid.tasks.application import Application, Client
from grid.tasks.system import SystemHandle

pytestmark = pytest.mark.row("K36")


class Work(Task):
    def __call__(self) -> int:
        return 1


class Shell:
    """A master that only notes what it is asked for."""

    def __init__(self) -> None:
        self.pushed: list[Task | None] = []
        self.kept: list[SystemHandle] = []
        self.withdrawn: list[str] = []
        self.forgotten: list[Client] = []

    def start_system(self, system: TaskSystem | bytes) -> SystemHandle:
        if isinstance(system, bytes):
            raise TaskError("a damaged parcel")
        return SystemHandle(str(system), "a system", lambda key, error: self.withdrawn.append(key), str)

    def push_tasks(self, tasks: Iterable[Task | None]) -> bool:
        self.pushed += tasks
        return True

    def keep(self, handle: SystemHandle) -> None:
        self.kept.append(handle)

    def forget(self, client: Client) -> None:
        self.forgotten.append(client)


class Listener(Application):
    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        told = ("work_finished", "task_finished", "push_system_response", "push_system_failed")
        if name in (*told, "push_tasks_response", "push_tasks_failed"):
            return lambda *facts: self.heard.append((name, facts))
        return super().__getattribute__(name)


@pytest.fixture
def shell() -> Shell:
    return Shell()


def test_a_system_is_told_of_when_it_is_taken_and_when_it_is_complete(shell: Shell) -> None:
    listener = Listener()
    client = Client(shell, listener)
    handle = client.push_system("s1")  # type: ignore[arg-type]
    with pytest.raises(CallTimeout, match="1 systems and 0 tasks"):
        client.wait(0.0)
    for call in handle._settle(7, None):
        call(handle)
    client.wait(0.0)
    assert listener.heard == [("push_system_response", ("s1",)), ("work_finished", (7, "s1"))]


def test_a_system_that_is_refused_is_told_of_and_raised(shell: Shell) -> None:
    listener = Listener()
    with pytest.raises(TaskError, match="damaged"):
        Client(shell, listener).push_system(b"odd")
    assert [what for what, _ in listener.heard] == ["push_system_failed"]


def test_tasks_are_queued_all_or_none(shell: Shell) -> None:
    listener = Listener()
    client = Client(shell, listener)
    one, two = Work(), Work()
    with pytest.raises(TaskError, match="a int was given for a task"):
        client.push_tasks([one, 7])  # type: ignore[list-item]
    assert shell.pushed == [] and not client.owns_task(one.task_id)
    assert client.push_tasks([one, None, two]) == [one.task_id, two.task_id] and shell.pushed == [one, two]
    client.task_over(one, 1, None)
    client.give_up(error := TaskError("nothing goes on"))
    client.wait(0.0)
    assert [facts for what, facts in listener.heard if what == "task_finished"] == [
        (one.task_id, 1, None),
        (two.task_id, None, error),
    ]


def test_who_leaves_takes_along_what_was_not_detached(shell: Shell) -> None:
    with Client(shell, Listener()) as client:
        client.push_system("stays")  # type: ignore[arg-type]
        client.push_system("goes")  # type: ignore[arg-type]
        assert client.detach("stays") == "stays"
        with pytest.raises(TaskError, match="none of ours"):
            client.detach("stays")
    assert shell.withdrawn == ["goes"] and [handle.system_id for handle in shell.kept] == ["stays"]
    assert shell.forgotten == [client]


def test_what_an_application_raises_is_its_own_affair(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    class Sore(Application):
        def push_tasks_response(self, task_ids: list[str]) -> None:
            raise OSError("sore")

    client = Client(shell, Sore())
    assert client.push_tasks([Work()]) and "push_tasks_response of Sore failed" in caplog.text
