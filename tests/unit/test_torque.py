"""What TORQUE does otherwise than PBS: which machines have it, its walltime, its launcher."""

from __future__ import annotations

import pytest

from grid.batch_systems.dialect import Seen
from grid.batch_systems.torque import Torque

pytestmark = pytest.mark.row("L01", "B07")
QSUB = frozenset({"qsub"})


@pytest.mark.parametrize(
    ("seen", "here"),
    [
        (Seen(QSUB, "Version: 6.1.3"), True),
        (Seen(QSUB), True),
        (Seen(QSUB | {"qconf"}), False),
        (Seen(QSUB, "pbs_version = 23.06"), False),
        (Seen(QSUB, qsub_is_slurm=True), False),
        (Seen(frozenset()), False),
    ],
)
def test_a_qsub_that_is_none_of_the_others(seen: Seen, here: bool) -> None:
    assert Torque().is_here(seen) is here


def test_its_jobs_and_its_own_exit_status() -> None:
    assert Torque().speaks({"PBS_JOBID": "1"}) and not Torque().speaks({"PBS_JOBID": "1", "PBS_JOBDIR": "/x"})
    assert Torque().meaning_of(-11) == "its walltime was up" and Torque().meaning_of(-29) == ""


def test_its_launcher_harms_others_when_it_is_killed() -> None:
    (launcher,) = Torque().launchers
    assert launcher.words("n1", {}) == ["pbsdsh", "-h", "n1"]
    assert not launcher.may_be_killed and not launcher.carries_streams
    assert "pbsdsh -u" in Torque().pilot_lines(2)
