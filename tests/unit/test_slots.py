"""What a host has, what a server needs, who gets what: all of it pure, or below a root of the test's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid import InventoryError, load_hosts
from grid.slots.choose import choose, lacks, left
from grid.slots.devices import ask_smi, find_devices, our_share
from grid.slots.find import find
from grid.slots.needs import Needs, shown, size
from grid.slots.resources import ANYWHERE, Device, Resources, Said, Slot, numbers_of, ranges
from grid.slots.threads import VARIABLES, ours_to_say

G = 1 << 30


# ---- needs ----------------------------------------------------------------------------------------------------------


@pytest.mark.row("O01")
def test_sizes_are_read_and_shown_as_people_write_them() -> None:
    texts = {"8G": 8 * G, "512M": G // 2, "1.5 GiB": 3 * G // 2, "2kb": 2048, "7": 7, 9: 9, "1t": 1024 * G}
    assert {text: size(text) for text in texts} == texts
    assert [shown(number) for number in (8 * G, 3 * G // 2, 2048, 7)] == ["8G", "1.5G", "2K", "7 bytes"]


@pytest.mark.row("O01")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"memory": "8 gigs"},
            "needs: memory must be a size such as '8G' or '512M', or a number of bytes, not '8 gigs'",
        ),
        ({"memory": "-1G"}, "needs: memory must be a size"),
        ({"memory": 0}, "needs: memory must be more than nothing, not 0"),
        ({"memory": True}, "needs: memory must be a size"),
        ({"cores": 0}, "needs: cores must be a whole number of at least 1, not 0"),
        ({"cores": 1.5}, "needs: cores must be a whole number"),
        ({"gpus": -1}, "needs: gpus must be a whole number of at least 0, not -1"),
        ({"gpus": True}, "needs: gpus must be a whole number"),
    ],
)
def test_needs_that_make_no_sense_are_refused_by_name(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match="needs") as caught:
        Needs(**wrong)  # type: ignore[arg-type]
    assert str(caught.value).startswith(says)


@pytest.mark.row("O01")
def test_needs_travel_and_tell_what_they_are() -> None:
    needs = Needs(cores=4, memory="8G", gpus=1)
    assert Needs(**needs.plain()) == needs
    assert (str(needs), str(Needs())) == ("4 cores, 8G of memory, 1 device", "nothing")


# ---- the choice -----------------------------------------------------------------------------------------------------


def a_device(number: int, node: int = ANYWHERE) -> Device:
    return Device("nvidia", f"GPU-{number:04}", node)


@st.composite
def hosts(draw: st.DrawFn) -> Resources:
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    nodes = draw(st.permutations(range(len(sizes)))) if draw(st.booleans()) else [ANYWHERE] * len(sizes)
    cores = [
        (number, node)
        for number, node in enumerate(node for node, n in zip(nodes, sizes, strict=True) for _ in range(n))
    ]
    of_nodes = st.sampled_from([ANYWHERE, *range(len(sizes))])
    devices = [a_device(number, node) for number, node in enumerate(draw(st.lists(of_nodes, max_size=6)))]
    memory = draw(st.none() | st.integers(1, 40))
    return Resources(tuple(cores), memory, tuple(devices), pinned=draw(st.booleans()))


some_needs = st.builds(
    Needs, cores=st.none() | st.integers(1, 6), memory=st.none() | st.integers(1, 20), gpus=st.integers(0, 3)
)


@pytest.mark.row("O02", "O04")
@given(hosts(), st.lists(st.tuples(some_needs, st.integers(0, 5)), max_size=4), st.sets(st.integers(0, 5)))
def test_nothing_is_given_twice_and_no_need_stays_unmet(
    host: Resources, wishes: list[tuple[Needs, int]], held: set[int]
) -> None:
    taken: list[Slot] = []
    busy = {a_device(number).id: "somebody" for number in held}
    node_of = dict(host.cores)
    sizes = [list(node_of.values()).count(node) for node in set(node_of.values())]
    for needs, count in wishes:
        slots = choose(host, needs, count, taken, busy)
        assert slots == choose(host, needs, count, list(taken), dict(busy))
        assert len(slots) <= count
        for slot in slots:
            assert len(slot.cores) == (needs.cores or 0)
            assert len(slot.devices) == needs.gpus
            assert slot.memory == needs.memory_bytes
            assert slot.threads == max(1, len(slot.cores)) or not slot.cores
            assert set(slot.near) <= node_of.keys()
            assert bool(slot.runs_on) <= host.pinned
            if needs.cores and max(sizes) >= needs.cores:
                assert len({node_of[core] for core in slot.cores}) == 1
        taken += slots
        if len(slots) < count:
            assert lacks(host, needs) or left(host, needs, taken, busy)
            assert not choose(host, needs, 1, taken, busy)
    cores = [core for slot in taken for core in slot.cores]
    devices = [device.id for slot in taken for device in slot.devices]
    assert len(set(cores)) == len(cores)
    assert set(cores) <= node_of.keys()
    assert len(set(devices)) == len(devices)
    assert set(devices) <= {device.id for device in host.devices} - busy.keys()
    assert host.memory is None or sum(slot.memory or 0 for slot in taken) <= host.memory
    assert [Slot.of(slot.plain()) for slot in taken] == taken
    assert Resources.of(host.plain()) == host


@pytest.mark.row("O04")
def test_cores_are_those_of_the_node_of_the_device() -> None:
    host = Resources(tuple((core, core // 4) for core in range(8)), None, (a_device(0, 1), a_device(1, 0)))
    first, second = choose(host, Needs(cores=2, gpus=1), 4)
    assert (first.devices[0].node, first.cores, second.devices[0].node, second.cores) == (0, (0, 1), 1, (4, 5))
    near = choose(host, Needs(gpus=1), 2)
    assert [(slot.near, slot.threads) for slot in near] == [((0, 1, 2, 3), 4), ((4, 5, 6, 7), 4)]


@pytest.mark.row("O02")
def test_a_large_server_spans_nodes_only_if_none_is_large_enough() -> None:
    host = Resources(tuple((core, core // 4) for core in range(8)))
    assert [slot.cores for slot in choose(host, Needs(cores=3), 3)] == [(0, 1, 2), (4, 5, 6)]
    assert [slot.cores for slot in choose(host, Needs(cores=6), 2)] == [(0, 1, 2, 3, 4, 5)]
    assert "several NUMA nodes" in left(host, Needs(cores=2), choose(host, Needs(cores=3), 2), {})


@pytest.mark.row("O03")
def test_the_work_for_a_slot_does_not_grow_with_their_number() -> None:
    host = Resources(
        tuple((core, core // 128) for core in range(2048)), 4096 * G, tuple(a_device(n, n // 128) for n in range(1000))
    )

    def calls(count: int) -> int:
        """Functions that are called; no clock decides here. How long it takes is in `benchmarks/slots.py`."""
        seen = 0

        def note(_frame: object, event: str, _arg: object) -> None:
            nonlocal seen
            seen += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            slots = choose(host, Needs(cores=2, memory="1G", gpus=1), count)
        finally:
            sys.setprofile(None)
        assert len(slots) == count
        return seen

    base = calls(0)
    assert calls(1000) - base < 50 * 1000


@pytest.mark.row("O02")
def test_what_a_host_lacks_is_told() -> None:
    host = Resources(((0, 0), (1, 0)), 4 * G, (a_device(0), a_device(1)))
    assert lacks(host, Needs(cores=4, memory="8G", gpus=3)) == (
        "4 cores are needed, and it has 2; 8G of memory is needed, and it has 4G; 3 devices are needed, and it has 2"
    )
    assert lacks(Resources(()), Needs(gpus=1)) == "1 device is needed, and it has none"
    assert lacks(host, Needs(cores=2, memory="4G", gpus=2)) == ""
    taken = choose(host, Needs(cores=1, gpus=1), 1)
    assert left(host, Needs(cores=2, gpus=1), taken, {"GPU-0001": "is used by anna (fit.py)"}) == (
        "2 cores are needed, and 1 of 2 are free; 1 device is needed, and none of 2 is free "
        "(GPU-0001 is used by anna (fit.py), 1 by this grid)"
    )


# ---- what its entry says --------------------------------------------------------------------------------------------


@pytest.mark.row("O06")
def test_what_the_entry_of_a_host_says_comes_before_what_is_found() -> None:
    found = Resources(((0, 0), (1, 0), (2, 1)), 8 * G, (a_device(0), a_device(1)))
    assert Said().of(found) == found
    fewer = Said(cores=2, memory=G, gpus=1).of(found)
    assert (fewer.cores, fewer.pinned, fewer.memory, fewer.devices) == (found.cores[:2], False, G, found.devices[:1])
    listed = Said(cores=(2, 0, 7), gpus=("1", "GPU-0000", "1", "GPU-none")).of(found)
    assert (listed.cores, listed.pinned) == (((2, 1), (0, 0)), True)
    assert [device.id for device in listed.devices] == ["GPU-0001", "GPU-0000"]
    assert listed.notes == (
        "cores 7 of its entry are not ours there",
        "device GPU-none of its entry was not found there",
    )
    assert Said(gpus="none").of(found).devices == ()
    assert len(Said(cores=5).of(found).cores) == 5


@pytest.mark.row("O06")
def test_a_hosts_file_says_resources_and_tags(tmp_path: Path) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(
        "hosts:\n"
        "  - a: {cores: 0-3, memory: 8G, gpus: [1, GPU-x], tags: [fast, a100]}\n"
        "  - b: {cores: [0, 2], gpus: none, groups: own}\n"
        "  - c: {cores: 4, gpus: 2}\n"
        "  - d\n"
        "groups: {all: [some, c], some: [a, b]}\n"
    )
    a, b, c, d = load_hosts(file)
    assert a.said == Said((0, 1, 2, 3), 8 * G, ("1", "GPU-x"))
    assert (b.said, c.said, d.said) == (Said((0, 2), None, "none"), Said(4, None, 2), Said())
    assert (a.words, b.words) == ({"a", "fast", "a100", "some", "all"}, {"b", "own", "some", "all"})
    assert load_hosts(file, "some")[0].words == a.words


@pytest.mark.row("O06")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("cores: 0", "host 'a': cores: must be 1..1000000, not 0"),
        ("cores: [0, 0]", "host 'a': cores: must be a number of cores, or a list of different ones"),
        ("cores: four", "host 'a': cores: must be a number of cores"),
        ("memory: 8 gigs", "host 'a': memory: it must be a size such as '8G' or '512M'"),
        (
            "gpus: all",
            "host 'a': gpus: must be auto, none, a number of devices, or a list of places or UUIDs, not 'all'",
        ),
        ("gpus: [[1]]", "host 'a': gpus: must be auto, none"),
        ("tags: {a: b}", "host 'a': tags: must be a list of names"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_by_name(tmp_path: Path, wrong: str, says: str) -> None:
    file = tmp_path / "hosts.yaml"
    file.write_text(f"hosts:\n  - a: {{{wrong}}}\n")
    with pytest.raises(InventoryError) as caught:
        load_hosts(file)
    assert says in str(caught.value)


@pytest.mark.row("O05")
def test_lists_of_cores_are_read_and_written_as_the_kernel_does() -> None:
    assert numbers_of("0-3,8\n") == (0, 1, 2, 3, 8)
    assert (ranges((8, 0, 1, 2, 3)), ranges(())) == ("0-3,8", "")
    for wrong in ("x", "0-99999999999"):
        with pytest.raises(ValueError, match=r"x|any machine"):
            numbers_of(wrong)


# ---- what a machine has ---------------------------------------------------------------------------------------------


def a_machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


NVIDIA = {
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t Fake A1\nIRQ: 5\nGPU UUID: \t GPU-aaaa\n",
    "proc/driver/nvidia/gpus/0000:41:00.0/information": "Model: \t\t Fake A1\nGPU UUID: \t GPU-bbbb\n",
    "sys/bus/pci/devices/0000:01:00.0/numa_node": "0\n",
    "sys/bus/pci/devices/0000:41:00.0/numa_node": "1\n",
}
SMI = "GPU-bbbb, 16384, Fake A1, 00000000:41:00.0\nGPU-aaaa, 8192, Fake A1, 00000000:01:00.0\n"


@pytest.mark.row("O05")
def test_devices_of_nvidia_are_found_with_their_memory_and_node(tmp_path: Path) -> None:
    root = a_machine(tmp_path, NVIDIA)
    full = (
        Device("nvidia", "GPU-aaaa", 0, 8 * G, "Fake A1"),
        Device("nvidia", "GPU-bbbb", 1, 16 * G, "Fake A1"),
    )
    assert find_devices(root, lambda: SMI) == full
    silent = find_devices(root, lambda: "")
    assert [(device.id, device.node, device.memory) for device in silent] == [
        ("GPU-aaaa", 0, None),
        ("GPU-bbbb", 1, None),
    ]
    # In a job of Slurm with ConstrainDevices=yes that has the second one, CUDA counts from it, and so do we.
    of_job = find_devices(root, lambda: SMI.splitlines()[0])
    assert of_job == full[1:] == our_share(of_job, {"CUDA_VISIBLE_DEVICES": "0", "SLURM_JOB_GPUS": "1"}, str)
    for name in NVIDIA:
        if "information" in name:
            (root / name).unlink()
    assert find_devices(root, lambda: SMI) == full  # as in a container without the driver's own /proc


@pytest.mark.row("O05")
def test_devices_of_amd_and_intel_are_found(tmp_path: Path) -> None:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    root = a_machine(
        tmp_path,
        {
            f"{nodes}/0/properties": "cpu_cores_count 8\nsimd_count 0\nunique_id 0\n",
            f"{nodes}/1/properties": "simd_count 256\nunique_id 4660\nlocation_id 16640\ndomain 0\n",
            f"{nodes}/1/name": "gfx90a\n",
            f"{nodes}/1/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {64 * G}\n",
            "sys/bus/pci/devices/0000:41:00.0/numa_node": "1\n",
            "sys/class/drm/card0/device/vendor": "0x8086\n",  # a part of the processor
            "sys/class/drm/card1/device/vendor": "0x8086\n",
            "sys/class/drm/card1/lmem_total_bytes": f"{hex(16 * G)}\n",
            "sys/class/drm/card1/device/numa_node": "1\n",
            "sys/class/drm/card1-DP-1/status": "connected\n",
        },
    )
    amd, intel = find_devices(root, lambda: pytest.fail("there is no driver of NVIDIA"))
    assert amd == Device("amd", "GPU-0000000000001234", 1, 64 * G, "gfx90a")
    assert intel == Device("intel", "0", 1, 16 * G)


@pytest.mark.row("O05")
@pytest.mark.parametrize(
    ("environ", "ours"),
    [
        ({}, "abc"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "b"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-c,0"}, "ca"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-c, GPU-none, 0"}, "c"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"CUDA_VISIBLE_DEVICES": "-1", "SLURM_JOB_GPUS": "0"}, ""),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ""),
        ({"SLURM_JOB_GPUS": "0,2"}, "ac"),
        ({"SLURM_STEP_GPUS": "2", "SLURM_JOB_GPUS": "0,2"}, "c"),
        # what Slurm 22.05 says: a job with --gres=gpu:1, a step with --gres=gpu:1 of a job with two, a job without
        (
            {"SLURM_JOB_ID": "3", "SLURM_JOB_GPUS": "1", "CUDA_VISIBLE_DEVICES": "1", "SLURM_GPUS_ON_NODE": "1"},
            "b",
        ),
        (
            {"SLURM_JOB_ID": "3", "SLURM_JOB_GPUS": "0,1", "SLURM_STEP_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0"},
            "a",
        ),
        ({"SLURM_JOB_ID": "3", "SLURM_CPUS_ON_NODE": "2"}, ""),
        ({"SLURM_JOB_ID": "3", "SLURM_GPUS_ON_NODE": "2"}, "abc"),  # gres.conf has a count and no files
        ({"SLURM_JOB_ID": "3", "CUDA_VISIBLE_DEVICES": "2"}, "c"),  # the user says it himself
        ({"PBS_GPUFILE": "/gpus"}, "bc"),
        ({"PBS_GPUFILE": "/none"}, "abc"),
        ({"ROCR_VISIBLE_DEVICES": "0"}, "abc"),
    ],
)
def test_a_batch_job_has_its_share_of_the_devices(environ: dict[str, str], ours: str) -> None:
    def read(path: str) -> str:
        if path != "/gpus":
            raise FileNotFoundError(path)
        return "node1-gpu1\nnode1-gpu2\n"

    found = [Device("nvidia", f"GPU-{letter}") for letter in "abc"]
    assert "".join(device.id[-1] for device in our_share(found, environ, read)) == ours


@pytest.mark.row("O05")
def test_cores_memory_and_nodes_are_found_and_a_share_is_a_share(tmp_path: Path) -> None:
    affinity = sorted(os.sched_getaffinity(0))
    root = a_machine(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 8388608 kB\nMemFree: 1 kB\n",
            "proc/self/cgroup": "0::/job\n",
            "sys/fs/cgroup/job/memory.max": f"{4 * G}\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/devices/system/node/node0/cpulist": f"{affinity[0]}\n",
            "sys/devices/system/node/node1/cpulist": f"{ranges(affinity[1:])}\n",
            "sys/devices/system/node/possible": "0-1\n",
        },
    )
    found = find(root, {}, lambda: "")
    assert found.cores == tuple((core, int(at > 0)) for at, core in enumerate(affinity))
    assert (found.memory, found.devices, found.pinned, found.notes) == (4 * G, (), True, ())
    if len(affinity) > 1:
        for environ in ({"SLURM_CPUS_ON_NODE": "1"}, {"SLURM_CPUS_PER_TASK": "1"}, {"PBS_JOBID": "1", "NCPUS": "1"}):
            share = find(root, environ, lambda: "")
            assert (share.cores, share.pinned) == (((affinity[0], 0),), False)
            assert "1 of" in share.notes[0]
        assert find(root, {"NCPUS": "1"}, lambda: "").pinned  # somebody's own variable
        a_machine(root, {"sys/fs/cgroup/cpu.max": "100000 100000\n"})
        assert (len(find(root, {}).cores), find(root, {}).pinned) == (1, False)


@pytest.mark.row("O05")
def test_what_is_broken_or_missing_is_not_there_and_nothing_raises(tmp_path: Path) -> None:
    assert find(tmp_path / "nothing", {"PBS_GPUFILE": "/nothing"}).devices == ()
    nonsense = dict.fromkeys((*NVIDIA, "proc/meminfo", "sys/devices/system/node/node0/cpulist"), "\x00\xff nonsense:\n")
    nonsense["sys/class/kfd/kfd/topology/nodes/1/properties"] = "simd_count x\nunique_id\n"
    nonsense["sys/class/drm/card0/device/vendor"] = "0x8086"
    nonsense["sys/class/drm/card0/lmem_total_bytes"] = "much"
    nonsense["sys/devices/system/node/nodes/cpulist"] = "0"
    found = find(a_machine(tmp_path / "broken", nonsense), {}, lambda: "nonsense\n,,,\nGPU-x, [N/A], , \n")
    assert (found.memory, [device.id for device in found.devices]) == (None, ["GPU-x"])
    assert find_devices(Path("/dev/null"), lambda: "") == ()


@pytest.mark.row("O05")
def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexec sleep 600\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert ask_smi(0.2) == ""
    smi.write_text("#!/bin/sh\necho GPU-x; exit 9\n")
    assert ask_smi() == ""
    monkeypatch.setenv("PATH", "/nothing")
    assert ask_smi() == ""


# ---- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.row("O02")
def test_variables_that_somebody_has_set_are_not_ours_to_say() -> None:
    assert ours_to_say({}) == VARIABLES
    assert ours_to_say({"MKL_NUM_THREADS"}) == tuple(name for name in VARIABLES if name != "MKL_NUM_THREADS")
    assert ours_to_say({"OMP_NUM_THREADS"}) == ()
