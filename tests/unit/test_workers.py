"""Workers of task systems: how they are hired, and which one of a slave gets the next pack. Without a server."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from grid import HostError, NoServers, SerialisationError, ServerLost
from grid.services.hold import Hold
from grid.tasks.schedule import Pack, TaskEntry
from grid.tasks.slaves import Slave
from grid.tasks.workers import Hiring, SendFailed, Staff
from tests.unit.task_world import Work

LIMIT_S = 30.0


class Answer:
    """Of a pack; comes when it is told."""

    def add_done_callback(self, call: Any) -> None:
        self.come = lambda: call(self)


class Proxy:
    def __init__(self, number: int, error: BaseException | None = None) -> None:
        self._server = SimpleNamespace(name=f"runner/{number}")
        self._hold = Hold()
        self.error = error
        self.packs: list[tuple[int, int]] = []

    def register(self) -> str:
        return "here"

    def perform(self, tasks: list[Any], ticket: int) -> Answer:
        if self.error is not None:
            raise self.error
        self.packs.append((len(tasks), ticket))
        return Answer()


def lost() -> ServerLost:
    facts = {"server": "", "host": "n1", "exit_status": None, "signal": 9, "last_output": ""}
    return ServerLost("it was killed", service_id="s", **facts)


def pack(ticket: int = 1, tasks: int = 1, isolated: bool = False) -> Pack:
    return Pack("s", Slave("n1"), [TaskEntry(Work(n)) for n in range(tasks)], ticket, isolated)


def staff_of(*errors: BaseException | None) -> tuple[Staff, list[Proxy], list[Pack]]:
    back: list[Pack] = []
    staff = Staff(back.append)
    proxies = [Proxy(number, error) for number, error in enumerate(errors)]
    for proxy in proxies:
        staff.hire(proxy)  # type: ignore[arg-type]
    return staff, proxies, back


@pytest.mark.row("K12", "K31")
def test_the_least_busy_worker_gets_the_next_pack_and_its_answer_comes_back() -> None:
    staff, proxies, back = staff_of(None, None)
    packs = [pack(ticket) for ticket in range(1, 6)]
    for each in packs:
        staff.send(each)
    assert [len(proxy.packs) for proxy in proxies] == [3, 2] or [len(proxy.packs) for proxy in proxies] == [2, 3]
    packs[0].result.come()
    assert back == [packs[0]]
    staff.settle(packs[0].worker)
    staff.settle(packs[1].worker)
    assert sorted(worker.packs for worker in staff.working) == [1, 2]


@pytest.mark.row("K33")
def test_one_that_turns_out_to_be_lost_is_fired_and_the_next_is_tried() -> None:
    staff, proxies, _ = staff_of(lost(), None)
    staff.send(pack())
    assert staff.size == 1 and [len(proxy.packs) for proxy in proxies] == [0, 1]
    proxies[1].error = lost()
    with pytest.raises(SendFailed) as caught:
        staff.send(pack())
    assert staff.size == 0 and not caught.value.host and not caught.value.contents


@pytest.mark.row("K30")
def test_whose_fault_it_was_that_a_pack_was_not_sent_is_told() -> None:
    staff, _, _ = staff_of(HostError("no module there", host="n1", hint=""))
    with pytest.raises(SendFailed) as caught:
        staff.send(pack())
    assert caught.value.host and staff.size == 1, "its worker is none the worse"
    staff, _, _ = staff_of(SerialisationError("it can't travel"))
    with pytest.raises(SendFailed) as caught:
        staff.send(pack())
    assert caught.value.contents and staff.size == 1


@pytest.mark.row("K33")
def test_a_suspect_is_alone_with_its_worker() -> None:
    staff, proxies, _ = staff_of(None, None)
    suspect = pack(1, isolated=True)
    staff.send(suspect)
    for ticket in (2, 3):
        staff.send(pack(ticket))
    assert sorted(len(proxy.packs) for proxy in proxies) == [1, 2] and suspect.worker.packs == 1
    staff.settle(suspect.worker)
    later = pack(4)
    staff.send(later)
    assert later.worker is suspect.worker


@pytest.mark.row("K17")
def test_surplus_workers_rest_once_their_packs_are_done_and_come_back() -> None:
    staff, proxies, _ = staff_of(None, None, None)
    first = pack(1)
    staff.send(first)
    staff.want = 1
    staff.adjust()
    assert staff.size == 1 and len(staff.everybody) == 3 and first.worker in staff.working
    staff.hire(Proxy(3))  # type: ignore[arg-type]
    assert staff.size == 1 and len(staff.everybody) == 4
    staff.want = None
    staff.adjust()
    assert staff.size == 4 and sum(len(proxy.packs) for proxy in proxies) == 1


class Grid:
    """A grid that grants what it is given: proxies, or errors."""

    def __init__(self) -> None:
        self.grants: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(self) -> None: ...
    def publish(self, runner: Any) -> str:
        return "runner"

    def terminate(self, service_id: str) -> None:
        self.grants.put(NoServers("over", service_id="runner", hint=""))

    def acquire_service(self, service_id: str, timeout: float) -> Any:
        found = self.grants.get(timeout=LIMIT_S)
        if isinstance(found, BaseException):
            raise found
        found._hold.note_user()
        return found


@pytest.mark.row("K15", "K16", "K35")
def test_hired_servers_are_passed_on_and_a_service_without_any_is_told_of() -> None:
    g, came, empty = Grid(), queue.SimpleQueue(), queue.SimpleQueue()
    hiring = Hiring(g, came.put, empty.put, retry_s=0.001)  # type: ignore[arg-type]
    hiring.start()
    g.grants.put(proxy := Proxy(0))
    assert came.get(timeout=LIMIT_S) is proxy
    assert proxy._hold.thread == 0, "else the thread would be told that it waits for what it holds itself"
    g.grants.put(NoServers("all were killed", service_id="runner", hint=""))
    assert empty.get(timeout=LIMIT_S) == "all were killed"
    g.grants.put(Proxy(1))
    assert came.get(timeout=LIMIT_S)._server.name == "runner/1"
    hiring.stop(LIMIT_S)
    assert empty.empty() and "grid-tasks-hire" not in {thread.name for thread in threading.enumerate()}
