"""Task systems over ssh hosts: what the runner brings along, users' modules, another Python, hosts that go silent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grid import Host, Limits, SSHGrid
from grid.tasks import Master, TaskLimits
from tests.lab import Lab, LabHost

pytestmark = pytest.mark.lab

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=6.0, stop_s=1.0, start_s=20.0)
OTHER = next((minor for minor in ("3.12", "3.13", "3.10") if minor != f"3.{sys.version_info[1]}"), "3.12")

MODULE = """
from __future__ import annotations
import os, sys, time
from grid import Task, TaskSystem, run_system, LocalGrid
from grid.tasks import Master, Weighted

class Where(Task):
    def __init__(self, nap_s):
        self.nap_s = nap_s
    def __call__(self):
        time.sleep(self.nap_s)
        return os.uname().nodename, "%d.%d" % sys.version_info[:2]
    def clean_up(self):
        self.cleaned = True

class Places(TaskSystem):
    def __init__(self, tasks, nap_s=0.0):
        self.expected_tasks, self.nap_s, self.seen = tasks, nap_s, []
    def init_system(self, master):
        pass
    def generate_tasks(self, master):
        return (Where(self.nap_s) for _ in range(self.expected_tasks))
    def task_finished(self, master, task, result, error):
        self.seen.append((result, error, task.slave_id, getattr(task, "cleaned", False)))
    def is_complete(self, master):
        return len(self.seen) == self.expected_tasks
    def gather_result(self, master):
        return self.seen
"""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's own, which says `from grid import Task, LocalGrid` as such modules do."""
    (tmp_path / "users_places.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("users_places").Places
    del sys.modules["users_places"]


def until(condition: Callable[[], Any], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def good(seen: Iterable[Any]) -> list[Any]:
    assert all(error is None and cleaned for _, error, _, cleaned in seen), seen
    return [result for result, _, _, _ in seen]


@pytest.mark.row("K11", "K28", "K40", "K10")
def test_a_system_of_a_users_module_runs_on_ssh_hosts(lab: Lab, places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    with SSHGrid([Host("s1", n_cpu=2), Host("s2"), Host("s3", transport="tunnel")], wait="all", output=None) as g:
        with Master(g) as master:
            handles = [master.start_system(places(60, 0.01)), master.start_system(places(40))]
            seen, short = (handle.get(60) for handle in handles)
            assert {host for host, _ in good(seen)} == {"s1", "s2", "s3"} and len(good(short)) == 40
            assert {slave_id for _, _, slave_id, _ in seen} == {"s1", "s2", "s3"}
            slaves = master.status()["slaves"]
            assert {name: slave["workers"] for name, slave in slaves.items()} == {"s1": 2, "s2": 1, "s3": 1}
            # stopped where it runs: the workers are of use again long before their tasks would end
            long = master.start_system(places(4, 50.0))
            until(lambda: "4 under way" in long.doing())
            long.cancel()
            assert len(good(master.start_system(places(8)).get(40))) == 8


@pytest.mark.row("K40")
def test_a_host_with_another_python_runs_tasks_of_a_module(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lab([LabHost("here"), LabHost("there", pythons=(OTHER,))]) as net:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
        with SSHGrid(["here", "there"], wait="all", limits=QUICK, output=None) as g, Master(g) as master:
            seen = good(master.start_system(places(30, 0.02)).get(60))
        assert dict(seen)["there"] == OTHER
        assert len({host for host, _ in seen}) == 2


@pytest.mark.row("K33", "K35", "K27")
def test_tasks_of_a_host_that_goes_silent_go_to_others_until_it_is_back(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lab([LabHost("one"), LabHost("two")]) as net:
        monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
        slow_to_give_up = replace(QUICK, orphan_s=60.0)
        limits = TaskLimits(heartbeat_s=0.3, inactive_after=2, removed_after=6)
        with (
            SSHGrid(["one", "two"], wait="all", limits=slow_to_give_up, output=None) as g,
            Master(g, limits=limits) as master,
        ):
            until(lambda: len(master.status()["slaves"]) == 2)
            handle = master.start_system(places(24, 0.2))
            until(lambda: handle.finished_tasks >= 6)
            net.hosts["two"].cut()
            states: list[str] = []

            def removed() -> bool:
                slave = master.status()["slaves"].get("two")
                states.append(slave["state"] if slave else "removed")
                return slave is None

            until(removed)
            assert {"active", "inactive", "removed"} >= set(states) > {"removed"} and "inactive" in states
            seen = good(handle.get(90))
            assert len(seen) == 24, "each task ended once, though the silent host ran its last one, too"
            assert {host for host, _ in seen[-5:]} == {"one"}
            net.hosts["two"].mend()
            until(lambda: "two" in master.status()["slaves"])
            again = good(master.start_system(places(20, 0.05)).get(60))
            assert {host for host, _ in again} == {"one", "two"}
