"""Which batch systems there are, which of them a machine has, and whose job an environment is."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from grid.batch_systems.known import (
    DIALECTS,
    OURS,
    choose_dialect,
    detect_script,
    dialect_named,
    job_systems,
    launcher_named,
    launcher_names,
)
from grid.errors import AllocationError

pytestmark = pytest.mark.row("L01", "B06")


def test_ours_are_there_by_name() -> None:
    assert {kind.name for kind in OURS} <= set(DIALECTS) and len(DIALECTS) >= 5
    assert dialect_named("torque") is DIALECTS["torque"]
    with pytest.raises(AllocationError, match=r"no dialect 'lsf'.*torque"):
        dialect_named("lsf")


def has(*commands: str, more: str = "") -> str:
    return "".join(f"has {command} /usr/bin/{command}\n" for command in commands) + more


PBS = ("qsub", "qstat", "qdel")
SLURM = ("sbatch", "squeue", "scancel", "sacct", "scontrol", "sinfo", "srun")


@pytest.mark.parametrize(
    ("answer", "prefer", "name"),
    [
        (has(*PBS), "slurm", "torque"),
        (has(*PBS, more="version pbs_version = 23.06.06\n"), "slurm", "pbspro"),
        (has(*PBS, "qconf"), "slurm", "sge"),
        (has(*SLURM), "slurm", "slurm"),
        (has(*SLURM, *PBS, more="qsub is slurm\n"), "slurm", "slurm"),
        (has(*SLURM, *PBS, more="qsub is slurm\n"), "slurm-torque", "slurm-torque"),
    ],
)
def test_which_one_a_machine_has(answer: str, prefer: str, name: str) -> None:
    assert choose_dialect(answer, prefer=prefer).name == name


def test_none_and_two_are_errors_that_say_what_to_do() -> None:
    with pytest.raises(AllocationError, match=r"no batch system was found .looked for .*qsub"):
        choose_dialect("some motd")
    with pytest.raises(AllocationError, match=r"both slurm and torque are here.*GRID_DIALECT=slurm"):
        choose_dialect(has(*SLURM, *PBS))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("#!/bin/sh\n", "torque"),
        ("#!/bin/sh\necho pbs_version = 23.06\n", "pbspro"),
        ("#!/usr/bin/perl\n# Slurm\n", None),
    ],
)
def test_the_shell_finds_what_is_on_its_path(tmp_path: Path, text: str, name: str | None) -> None:
    for command in PBS:
        path = tmp_path / command
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("head", "grep", "sed"):
        found = next(
            Path(place, tool) for place in [*os.defpath.split(":"), "/usr/bin", "/bin"] if Path(place, tool).exists()
        )
        (tools / tool).symlink_to(found)
    done = subprocess.run(
        ["/bin/sh", "-c", detect_script()], env={"PATH": f"{tmp_path}:{tools}"}, stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0 and f"has qsub {tmp_path}/qsub" in done.stdout
    if name is None:
        assert "qsub is slurm" in done.stdout and "version" not in done.stdout
    else:
        assert choose_dialect(done.stdout).name == name


def test_a_job_of_two_faces_is_one() -> None:
    assert [each.name for each in job_systems({"SLURM_JOB_ID": "1"})] == ["slurm"]
    assert [each.name for each in job_systems({"PBS_JOBID": "1", "PBS_NP": "2"})] == ["torque"]
    assert job_systems({}) == []


def test_launchers_are_those_of_the_job() -> None:
    assert {"pbsdsh", "pbs_tmrsh", "srun", "qrsh"} <= set(launcher_names())
    assert len(launcher_names()) == len(set(launcher_names()))
    torque, openpbs = {"PBS_JOBID": "1", "PBS_NP": "2"}, {"PBS_JOBID": "1", "PBS_JOBDIR": "/x"}
    assert launcher_named("pbsdsh", torque).words("n1", torque) == ["pbsdsh", "-h", "n1"]
    assert launcher_named("pbsdsh", openpbs).may_be_killed and not launcher_named("pbsdsh", torque).may_be_killed
