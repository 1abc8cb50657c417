"""Servers with their slots, real ones: threads as threadpoolctl counts them, cores as the kernel does.

There are no GPUs here: devices are a made tree of /proc and /sys and a stand-in for `nvidia-smi`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy
import pytest
import threadpoolctl

import grid.compat.joblib  # noqa: F401 - registers the backend "grid"
from grid import AcquireTimeout, Grid, Host, LocalGrid, Needs, NeedsError, PublishError, ServerLost
from grid.grids.choose import local_host
from grid.kernel.corelocks import CoreLocks
from grid.kernel.devices import Leases, holder, user_name
from grid.slots.resources import Device, ranges
from grid.slots.threads import VARIABLES
from tests.cards import A, B, make_devices

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


# ---- needs ----------------------------------------------------------------------------------------------------------


def a_host_with_devices(root: Path, cores: Sequence[int] = ALL) -> Path:
    """Two devices, each on a NUMA node of its own, with one half of the cores."""
    half = max(1, len(cores) // 2)
    return make_devices(root, [ranges(cores[:half]), ranges(cores[half:] or cores)], nodes=(1, 0))


def with_two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine has two devices, as far as grid can see; their locks are in a directory of this test."""
    monkeypatch.setenv("GRID_HOST_ROOT", str(a_host_with_devices(tmp_path / "root")))
    locks = tmp_path / "locks"
    locks.mkdir()
    locks.chmod(0o1777)
    monkeypatch.setenv("GRID_LOCKS_DIR", str(locks))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "PBS_GPUFILE"):
        monkeypatch.delenv(name, raising=False)
    return locks


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """See `with_two_devices`: where their locks are."""
    return with_two_devices(tmp_path, monkeypatch)


class Card(Desk):
    def slot(self) -> tuple[str, list[int]]:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "-"), self.cores()

    def pid(self) -> int:
        return os.getpid()

    def eat(self, megabytes: int) -> int:
        self.eaten = [bytearray(os.urandom(1 << 20)) for _ in range(megabytes)]
        time.sleep(60)
        return len(self.eaten)


def slots_of(g: Grid, service_id: str) -> list[tuple[str, list[int]]]:
    found: list[tuple[str, list[int]]] = g.gather(g.broadcast(service_id, "slot"))
    g.release_all(service_id)
    return sorted(found)


@pytest.mark.row("O10", "O04")
def test_four_servers_on_a_host_with_two_devices_become_two_with_cores_of_their_nodes(gpus: Path) -> None:
    half = len(ALL) // 2
    with LocalGrid(4, output=None) as g:
        service_id = g.publish(Card(), needs=Needs(gpus=1), wait="all", missing="fail")
        assert slots_of(g, service_id) == [(A, ALL[half:]), (B, ALL[:half])]
        assert g.failures == {}
        shown = {server["slot"] for server in g.status()["services"][service_id]["servers"]}
        assert shown == {f"devices {A}", f"devices {B}"}
        held = [g.acquire_service(service_id) for _ in range(2)]
        with pytest.raises(AcquireTimeout, match=r"as each needs a slot: on localhost .*device"):
            g.find_server(service_id, timeout=0.05)
        assert all(proxy.pid().get(60) for proxy in held)
        g.terminate(service_id)
        again = g.publish(Card(), needs=Needs(gpus=2, cores=1, memory="1G"), wait="all")
        assert [devices for devices, _ in slots_of(g, again)] == [f"{B},{A}"]
    assert list(gpus.iterdir()) == []


@pytest.mark.row("O11")
def test_the_second_grid_finds_no_device_and_says_who_has_it(gpus: Path) -> None:
    with LocalGrid(2, output=None) as first, LocalGrid(2, output=None) as second:
        holder_id = first.publish(Card(), needs=Needs(gpus=1), wait="all")
        with pytest.raises(PublishError) as caught:
            second.publish(Card(), needs=Needs(gpus=1))
        said = str(caught.value)
        assert "1 device is needed, and none of 2 is free" in said
        assert f"{A} is used by {user_name(os.getuid())} (" in said
        assert f"server {holder_id}/" in said
        assert re.search(r"process \d+", said)
        assert isinstance(caught.value.failures["localhost"], NeedsError)


@pytest.mark.row("O11")
def test_kill_9_of_a_holder_frees_its_device_at_once(gpus: Path) -> None:
    with LocalGrid(1, output=None) as first, LocalGrid(2, output=None) as second:
        service_id = first.publish(Card(), needs=Needs(gpus=2), wait="all")
        with first.acquire_service(service_id) as card:
            pid = card.pid().get(60)
        os.kill(pid, signal.SIGKILL)
        # no grid has to notice anything: the kernel drops the lock with the process
        taken = second.publish(Card(), needs=Needs(gpus=1), wait="all", busy="wait", timeout=60)
        assert [device for device, _ in slots_of(second, taken)] == [A, B]


@pytest.mark.row("O11")
def test_a_grid_waits_for_a_device_if_it_is_told_to(gpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalGrid(1, output=None) as first, LocalGrid(1, output=None) as second:
        held = first.publish(Card(), needs=Needs(gpus=2), wait="all")

        def let_go() -> None:
            while "waiting for room" not in caplog.text:
                time.sleep(0.01)
            first.terminate(held)

        helper = threading.Thread(target=let_go)
        helper.start()
        service_id = second.publish(Card(), needs=Needs(gpus=1), busy="wait", timeout=60)
        helper.join()
        assert slots_of(second, service_id)[0][0] == B
    assert "is used by" in caplog.text


@pytest.mark.row("O10")
def test_a_server_that_is_replaced_has_the_same_slot(gpus: Path) -> None:
    with LocalGrid(2, output=None) as g:
        service_id = g.publish(Card(), needs=Needs(gpus=1), restarts=1, wait="all")
        before = slots_of(g, service_id)
        with g.acquire_service(service_id) as card:
            mine, pid = card.slot().get(60), card.pid().get(60)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ServerLost) as caught:
                card.pid().get(60)
        assert mine[0] in caught.value.slot
        assert f"its slot was devices {mine[0]}" in str(caught.value)
        while len(g.servers[service_id]) < 2:
            time.sleep(0.01)
        assert slots_of(g, service_id) == before


@pytest.mark.row("O12")
@pytest.mark.parametrize(
    ("needs", "says"),
    [
        (Needs(gpus=3), "3 devices are needed, and it has 2"),
        (Needs(cores=len(ALL) + 1), f"{len(ALL) + 1} cores are needed, and it has {len(ALL)}"),
        (Needs(memory="5G"), "5G of memory is needed, and it has 4G"),
    ],
)
def test_needs_that_no_host_can_meet_are_named_before_anything_starts(gpus: Path, needs: Needs, says: str) -> None:
    with LocalGrid(2, output=None) as g, pytest.raises(PublishError, match=says):
        g.publish(Card(), needs=needs)


@pytest.mark.row("O12")
def test_where_says_which_hosts_and_a_word_that_means_none_is_named(gpus: Path) -> None:
    one = Host("localhost", n_cpu=1, ssh="local", tags=("gpu", "fast"), gpus=1)
    two = Host("localhost", n_cpu=1, ssh="local", groups=("desks",), gpus="none")
    with Grid([one, two], output=None) as g:
        assert len(g.servers[g.publish(Card(), where="gpu and not desks", wait="all")]) == 1
        assert len(g.servers[g.publish(Card(), where="localhost", servers=2, wait="all")]) == 4
        with pytest.raises(PublishError, match="1 device is needed, and it has none"):
            g.publish(Card(), where="desks", needs=Needs(gpus=1))
        with pytest.raises(NeedsError, match=r"no host has the name, tag or group 'gpus'. .*Did you mean 'gpu'"):
            g.publish(Card(), where="gpus")
        with pytest.raises(NeedsError, match="means none of the hosts"):
            g.publish(Card(), where="gpu and desks")
        with pytest.raises(ValueError, match=r"where: '\(gpu' can't be read: a bracket is not closed"):
            g.publish(Card(), where="(gpu")
        with pytest.raises(TypeError, match="needs must be a Needs or None"):
            g.publish(Card(), needs={"gpus": 1})  # type: ignore[arg-type]


@pytest.mark.row("O09")
def test_servers_of_another_size_have_their_threads_though_numpy_was_loaded_before() -> None:
    cores = len(ALL)
    with LocalGrid(cores, output=None) as g:
        few, many = Desk(), Desk()
        assert seen(g, "threads", few) == [[1]] * cores
        whole = g.publish(many, needs=Needs(cores=cores), wait="all")
        assert g.gather(g.broadcast(whole, "threads")) == [[cores]]
        g.release_all(whole)
        assert g.gather(g.broadcast(whole, "cores")) == [ALL]


@pytest.mark.row("O13")
def test_a_server_above_its_memory_limit_is_lost_with_that_cause_and_its_neighbour_goes_on() -> None:
    with LocalGrid(2, output=None) as g:
        service_id = g.publish(Card(), needs=Needs(memory="300M"), wait="all")
        with g.acquire_service(service_id) as hungry, g.acquire_service(service_id) as modest:
            lost = hungry.eat(800)
            with pytest.raises(ServerLost, match=r"took [\d.]+[MG] of memory, and may have 300M \(needs: memory\)"):
                lost.get(120)
            assert modest.pid().get(60)


@pytest.mark.row("O11")
def test_locks_that_cant_be_trusted_are_named_with_their_owner(tmp_path: Path) -> None:
    place = tmp_path / "locks"
    place.mkdir()
    device = Device("nvidia", A)
    leases, path = Leases(place, "me"), place / f"grid-device-nvidia-{A}"
    me = user_name(os.getuid())
    (tmp_path / "target").write_text("precious")
    path.symlink_to(tmp_path / "target")
    assert leases.take(device) == f"can't be locked: {path} is a link (it belongs to {me})"
    path.unlink()
    os.link(tmp_path / "target", path)
    assert f"is no plain file of its own (it belongs to {me})" in str(leases.take(device))
    path.unlink()
    os.mkfifo(path)
    assert "is no plain file of its own" in str(leases.take(device))
    path.unlink()
    assert (tmp_path / "target").read_text() == "precious"
    fd = leases.take(device)
    assert isinstance(fd, int)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert leases.take(device) == "is used by me"
    assert holder(place, device) == "me"
    os.close(fd)
    assert holder(place, device) == ""
    leases.tidy([device])
    assert not path.exists()
    place.chmod(0o777)
    assert f"can't be locked: {place} is not sticky" in str(leases.take(device))
    if not os.getuid():
        os.chown(place, 65534, -1)
        assert f"{place} belongs to nobody, who could remove the locks of others" in str(leases.take(device))


# ---- pools and their kin --------------------------------------------------------------------------------------------


def where_it_runs(_: object = None) -> tuple[int, str]:
    return len(os.sched_getaffinity(0)), os.environ.get("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.row("O14")
def test_needs_of_a_grid_count_for_pools_executors_joblib_and_maps(gpus: Path) -> None:
    with LocalGrid(4, output=None, needs=Needs(gpus=1, cores=1), where="localhost") as g:
        with g.pool() as pool:
            found = set(pool.map(where_it_runs, range(40), chunksize=1))
        assert {devices for _, devices in found} <= {A, B}
        assert {cores for cores, _ in found} == {1}
        with g.executor() as executor:
            assert executor.submit(where_it_runs).result(60) in found
        with joblib.parallel_config(backend="grid", grid=g):
            assert set(joblib.Parallel()(joblib.delayed(where_it_runs)(n) for n in range(4))) <= found
        (crew,) = g.servers
        assert len(g.servers[crew]) == 2


@pytest.mark.row("O14", "O12")
def test_needs_of_a_grid_are_checked_when_it_is_made() -> None:
    with pytest.raises(TypeError, match="needs must be"):
        LocalGrid(1, needs="gpu")
    with pytest.raises(ValueError, match="where: 'gpu and' can't be read: a word is missing"):
        LocalGrid(1, where="gpu and")


@pytest.mark.row("O16")
def test_grids_avoid_cores_of_each_other_as_long_as_there_are_others(gpus: Path) -> None:
    with LocalGrid(1, output=None) as first, LocalGrid(len(ALL), output=None) as second:
        one = first.publish(Card(), needs=Needs(cores=1), wait="all")
        assert first.gather(first.broadcast(one, "cores")) == [[ALL[0]]]
        first.release_all()
        if len(ALL) > 1:
            other = second.publish(Card(), needs=Needs(cores=1), servers=1, wait="all")
            assert second.gather(second.broadcast(other, "cores")) == [[ALL[1]]]
            second.release_all()
            second.terminate(other)
        every = second.publish(Card(), needs=Needs(cores=1), wait="all")
        found = second.gather(second.broadcast(every, "cores"))
        second.release_all()
        assert sorted(found) == [[core] for core in ALL]  # one of them is shared: nobody is refused for that
    assert list(gpus.iterdir()) == []


@pytest.mark.row("O16")
def test_locks_of_cores_end_with_who_holds_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    mine, theirs = CoreLocks(tmp_path), CoreLocks(tmp_path)
    fd = mine.take([0, 2])
    assert fd is not None
    assert theirs.others(range(4)) == {0, 2}
    second = theirs.take([2, 3])
    assert second is not None
    assert mine.others(range(4)) == {0, 2, 3}
    os.close(fd)
    assert theirs.others(range(4)) == {3}
    mine.tidy()
    assert list(tmp_path.iterdir())
    os.close(second)
    mine.tidy()
    assert not list(tmp_path.iterdir())
    (tmp_path / "grid-cores").symlink_to("/etc/passwd")
    assert (mine.take([0]), mine.others([0])) == (None, set())


@pytest.mark.row("O21")
def test_ps_tells_which_cores_devices_and_memory_the_servers_of_each_grid_have(gpus: Path) -> None:
    def ps(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "grid", "ps", *words], capture_output=True, text=True, timeout=60, check=True
        ).stdout

    with LocalGrid(1, output=None) as plain, LocalGrid(2, output=None) as g:
        plain.publish(Desk())
        sid = g.publish(Desk(), needs=Needs(gpus=1, memory="200M"), wait="all")
        slots = {name: str(server.slot) for name, server in g._service(sid).servers.items()}
        assert len(slots) == 2 and all("devices" in slot and "memory" in slot for slot in slots.values())
        deadline = time.monotonic() + 60  # the lease follows within a second
        while True:
            leases = {lease["grid"]: lease["slots"] for lease in json.loads(ps("--json"))["leases"]}
            if leases.get(g.grid_id) == slots or time.monotonic() > deadline:
                break
        assert leases[g.grid_id] == slots and leases[plain.grid_id] == {}
        table = ps().splitlines()
        assert table[0].split()[-1] == "slots"
        (line,) = [line for line in table if line.startswith(g.grid_id)]
        assert all(slot in line for slot in slots.values())
