"""What a doctor says about the facts that a host told."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from grid.care.doctor import batch_dialect, judge, size
from grid.care.probe import Facts, Interpreter, lacking
from grid.care.wheels import platform_tags
from grid.hosts import Host

HEALTHY: dict[str, Any] = {
    "version": [3, 11, 2],
    "executable": "/usr/bin/python3.11",
    "modules": {"zmq": {"version": "27.0.0"}, "dill": {"version": "0.4.0"}},
    "temp": {"path": "/tmp", "exists": True, "free_bytes": 50e9, "free_inodes": 10**6},
    "memory": {"MemTotal": 16e9, "MemAvailable": 12e9},
    "cores": 8,
    "load": 0.5,
    "batch": {"found": {}, "said": {}},
}


def facts(**changes: Any) -> Facts:
    python = copy.deepcopy(HEALTHY)
    for name in list(changes):
        if name in python:
            python[name] = changes.pop(name)
    told = {"shell": "/bin/sh", "python": python, "skew_s": 0.1, "round_trip_s": 0.01, "direct": True}
    return Facts(**{**told, **changes})


def step(name: str, found: Facts, host: Host | None = None) -> Any:
    return {step.name: step for step in judge(host or Host("n"), found, (3, 11))}[name]


@pytest.mark.row("H09")
def test_a_healthy_host() -> None:
    steps = judge(Host("n"), facts(), (3, 11))
    assert all(step.ok and not step.hint for step in steps)
    assert [step.name for step in steps] == [
        "shell", "python", "environment", "temp disk", "clock", "load", "route", "batch",
    ]  # fmt: skip


@pytest.mark.row("H09", "H12")
@pytest.mark.parametrize(
    ("name", "found", "ok", "says"),
    [
        ("shell", facts(shell=""), False, "no shell ran"),
        ("shell", facts(noise="Welcome!\nhave fun\n"), True, "prints 'Welcome!' and more"),
        ("python", facts(python=None), False, "none was found"),
        ("python", facts(python=None, pythons=[Interpreter((3, 12, 1), "/p")]), False, "none ran; found: 3.12.1 /p"),
        ("python", facts(version=[3, 9, 18]), False, "too old"),
        ("python", facts(version=[3, 12, 0]), True, "and here is 3.11"),
        ("environment", facts(modules={"zmq": {"error": "no"}, "dill": {"version": "0.4"}}), False, "pyzmq: no"),
        ("temp disk", facts(temp={"path": "/x", "error": "Read-only"}), False, "can't write to /x: Read-only"),
        ("temp disk", facts(temp={**HEALTHY["temp"], "free_bytes": 1e6}), False, "1.0 MB free"),
        ("temp disk", facts(temp={**HEALTHY["temp"], "free_bytes": 5e8}), True, "500 MB free"),
        ("temp disk", facts(temp={**HEALTHY["temp"], "free_inodes": 3}), False, "room for 3 files"),
        ("temp disk", facts(temp={**HEALTHY["temp"], "free_inodes": None}), True, "50 GB free"),
        ("temp disk", facts(temp={**HEALTHY["temp"], "exists": False}), True, "(will be made)"),
        ("clock", facts(skew_s=-75.0), True, "75.0 s behind"),
        ("load", facts(load=9.0), True, "8 cores, load 9.0"),
        ("route", facts(direct=False, address="10.0.0.7"), True, "no direct connection to 10.0.0.7"),
        ("route", facts(direct=None, address=None), True, "tunnel through ssh"),
    ],
)
def test_what_is_said_of_it(name: str, found: Facts, ok: bool, says: str) -> None:
    answer = step(name, found)
    assert answer.ok is ok and says in answer.detail, answer
    assert ok or answer.hint


@pytest.mark.row("H09")
def test_nothing_is_said_of_what_could_not_be_seen() -> None:
    assert [step.name for step in judge(Host("n"), facts(python=None), (3, 11))] == ["shell", "python"]


@pytest.mark.row("H09")
def test_a_direct_route_may_be_demanded() -> None:
    answer = step("route", facts(direct=False, address="10.0.0.7"), Host("n", transport="direct"))
    assert not answer.ok and "transport: auto" in answer.hint


@pytest.mark.row("H12")
@pytest.mark.parametrize(
    ("zmq", "dill", "faults"),
    [
        ("27.3.0", "0.4.1", []),
        ("25.1", "0.3.8", []),
        ("25.0.2", "0.3.8", ["pyzmq: 25.0.2 is older than 25.1"]),
        ("27.0.0b1", "0.3.7", ["dill: 0.3.7 is older than 0.3.8"]),
    ],
)
def test_versions_that_will_do(zmq: str, dill: str, faults: list[str]) -> None:
    assert lacking({"zmq": {"version": zmq}, "dill": {"version": dill}}) == faults


@pytest.mark.row("B06")
@pytest.mark.parametrize(
    ("found", "said", "dialect"),
    [
        ("", {}, ""),
        ("qsub qstat pbsdsh", {"qsub --version": "Version: 6.1.3\nCommit: 8e0f"}, "TORQUE 6.1.3"),
        ("qsub qstat", {"qsub --version": "pbs_version = 23.06.06"}, "PBS 23.06.06"),
        ("qsub qconf", {"qsub --version": "unknown option", "qsub -help": "SGE 8.1.9\nusage:"}, "Grid Engine 8.1.9"),
        ("sbatch srun", {"sbatch --version": "slurm 22.05.8"}, "Slurm 22.05.8"),
        ("sbatch qsub", {"sbatch --version": "slurm 22.05.8"}, "Slurm 22.05.8 with Torque's commands"),
        ("sbatch", {"sbatch --version": "sbatch: fatal: no config"}, "Slurm, whose sbatch does not work here"),
        ("qsub", {"qsub --version": "?"}, "qsub of a kind that we don't know"),
    ],
)
def test_batch_systems_are_told_apart(found: str, said: dict[str, str], dialect: str) -> None:
    assert batch_dialect({name: f"/usr/bin/{name}" for name in found.split()}, said) == dialect


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1500, "2 kB"), (2.5e6, "2.5 MB"), (5e10, "50 GB"), (2e12, "2.0 TB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.row("H09")
def test_platforms_of_wheels() -> None:
    tags = platform_tags("linux-x86_64", ("glibc", "2.17"))
    assert tags[0] == "manylinux_2_17_x86_64" and "manylinux2014_x86_64" in tags
    assert "manylinux_2_28_x86_64" not in tags
    assert platform_tags("linux-aarch64", ("", "")) == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"]
    assert platform_tags("macosx-11.0-arm64", ("", "")) == ["macosx_11_0_arm64"]
