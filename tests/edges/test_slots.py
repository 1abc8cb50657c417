"""Servers with their slots, real ones: threads as threadpoolctl counts them, cores as the kernel does.

There are no GPUs here: devices are a made tree of /proc and /sys and a stand-in for `nvidia-smi`.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import numpy
import pytest
import threadpoolctl

from grid import Grid, Host, LocalGrid
from grid.grids.choose import local_host
from grid.slots.threads import VARIABLES

ALL = sorted(os.sched_getaffinity(0))


class Desk:
    """What a server sees of its slot. Uses NumPy, so that it is loaded before the fork."""

    def __init__(self) -> None:
        self.table = numpy.arange(3.0)

    def threads(self) -> list[int]:
        numpy.ones((300, 300)) @ numpy.ones((300, 300))  # where threads would start
        return [int(each["num_threads"]) for each in threadpoolctl.threadpool_info()]

    def variables(self) -> dict[str, str]:
        return {name: os.environ[name] for name in VARIABLES if name in os.environ}

    def cores(self) -> list[int]:
        return sorted(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def seen(g: Grid, what: str, instance: Any = None) -> list[Any]:
    service_id = g.publish(instance or Desk(), wait="all")
    found: list[Any] = g.gather(g.broadcast(service_id, what))
    g.release_all(service_id)
    return found


# ---- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.row("O07")
def test_threads_are_shared_out_and_servers_times_threads_are_no_more_than_cores() -> None:
    servers = len(ALL)
    with LocalGrid(servers, output=None) as g:
        assert seen(g, "threads") == [[1]] * servers
        assert seen(g, "variables") == [dict.fromkeys(VARIABLES, "1")] * servers
        assert seen(g, "cores") == [ALL] * servers


@pytest.mark.row("O07")
def test_one_server_has_all_cores_and_nothing_is_said_to_it() -> None:
    with LocalGrid(1, output=None) as g:
        assert seen(g, "variables") == [{}]
        assert seen(g, "threads") == [[len(ALL)]]


@pytest.mark.row("O07")
def test_the_number_of_cores_in_the_entry_counts_and_more_servers_than_cores_have_one_thread() -> None:
    with Grid([dataclasses.replace(local_host(3), cores=7)], output=None) as g:
        assert [each["OMP_NUM_THREADS"] for each in seen(g, "variables")] == ["2"] * 3
    with LocalGrid(len(ALL) + 1, output=None) as g:
        assert [each["OMP_NUM_THREADS"] for each in seen(g, "variables")] == ["1"] * (len(ALL) + 1)


@pytest.mark.row("O07")
def test_entries_of_one_machine_share_its_cores() -> None:
    hosts = [Host("localhost", ssh="local", cores=8, env={"MINE": str(number)}) for number in range(2)]
    with Grid(hosts, output=None) as g:
        assert [each["OMP_NUM_THREADS"] for each in seen(g, "variables")] == ["4", "4"]


@pytest.mark.row("O08")
@pytest.mark.parametrize(
    ("said", "rest"),
    [
        ({"OMP_NUM_THREADS": "3"}, {}),
        ({"MKL_NUM_THREADS": "3"}, {name: "1" for name in VARIABLES if name != "MKL_NUM_THREADS"}),
    ],
)
@pytest.mark.parametrize("where", ["entry", "script"])
def test_what_a_user_says_of_threads_stays(
    said: dict[str, str], rest: dict[str, str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = said if where == "entry" else {}
    if where == "script":
        for name, value in said.items():
            monkeypatch.setenv(name, value)
    host = Host("localhost", n_cpu=len(ALL) + 1, ssh="local", env=env)
    with Grid([host], output=None) as g:
        assert seen(g, "variables") == [said | rest] * host.n_cpu


@pytest.mark.row("O09")
def test_libraries_that_are_loaded_are_told_by_a_function_of_theirs() -> None:
    program = (
        "import numpy, threadpoolctl\n"
        "from grid.kernel.born import tell_libraries\n"
        "for n in (1, 3):\n"
        "    told = tell_libraries(n)\n"
        "    print(n, len(told), [each['num_threads'] for each in threadpoolctl.threadpool_info()])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1 [1]\n3 1 [3]\n"
