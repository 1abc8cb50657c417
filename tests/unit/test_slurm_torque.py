"""Slurm behind its own `qsub`: what stands in the script and what on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from grid.batch_systems.dialect import Seen
from grid.batch_systems.job import JobSpec
from grid.batch_systems.slurm_torque import SlurmTorque
from grid.errors import AllocationError

pytestmark = pytest.mark.row("L01", "L11")
SYSTEM = SlurmTorque()


@pytest.mark.parametrize(
    ("spec", "lines", "words"),
    [
        ({}, ["-N grid", "-l nodes=1:ppn=1"], ["qsub", "-r", "n", "/s"]),
        (
            {"walltime_s": 60, "resources": ("mem=1gb",), "queue": "q"},
            ["-N grid", "-l nodes=1:ppn=1,walltime=00:01:00,mem=1gb", "-q q"],
            ["qsub", "-r", "n", "/s"],
        ),
        (
            {"join": True, "account": "a", "depend": "afterok:3", "export_all": True},
            ["-N grid", "-l nodes=1:ppn=1"],
            ["qsub", "-o", "grid.o%j", "-e", "grid.o%j", "-A", "a", "-W", "depend=afterok:3", "-r", "n", "-V", "/s"],
        ),
        (
            {"output": "o", "error": "e", "may_restart": True},
            ["-N grid", "-l nodes=1:ppn=1"],
            ["qsub", "-o", "o", "-e", "e", "-r", "y", "/s"],
        ),
    ],
)
def test_script_and_command_line(spec: dict[str, Any], lines: list[str], words: list[str]) -> None:
    job = JobSpec(command="x", **spec)
    assert SYSTEM.directives(job) == lines and SYSTEM.submit_command(job, "/s") == words


@pytest.mark.parametrize(
    ("line", "restarts"), [("#PBS -r y", True), ("#PBS -r n", False), ("#SBATCH --requeue", True), ("# -r y", False)]
)
def test_lines_of_the_user_may_say_that_it_restarts(line: str, restarts: bool) -> None:
    assert SYSTEM.restarts(JobSpec(command="x", lines=(line,))) is restarts


def test_it_is_there_with_slurms_own_qsub_only() -> None:
    assert SYSTEM.is_here(Seen(frozenset({"qsub"}), qsub_is_slurm=True))
    assert not SYSTEM.is_here(Seen(frozenset({"qsub"}))) and not SYSTEM.is_here(Seen(frozenset(), qsub_is_slurm=True))


def test_an_option_of_sbatch_that_its_qsub_would_pass_over_is_refused() -> None:
    with pytest.raises(AllocationError, match="Slurm's qsub takes no '--gres=gpu:1'"):
        SYSTEM.directives(JobSpec(command="x", resources=("mem=1gb", "--gres=gpu:1")))
