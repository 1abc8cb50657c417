"""TORQUE. Written against records of 6.1.3; Slurm's imitation of its commands is `slurm_torque.py`.

nodes=2:ppn=4   two nodes, four lines of the node file each
pbsdsh -u       once on each node; -h HOST on one of them. Killed, it spoils those that come later
exit status     271 is SIGTERM, -11 the end of the walltime; 0 may be a node that crashed
"""

from __future__ import annotations

from collections.abc import Mapping

from grid.batch_systems.dialect import Launcher, Seen
from grid.batch_systems.pbs import Pbs, is_openpbs


class Torque(Pbs):
    """TORQUE."""

    name = "torque"
    title = "TORQUE"

    def is_here(self, seen: Seen) -> bool:
        """Whether there is a `qsub` that is none of the others."""
        others = seen.qsub_is_slurm or "qconf" in seen.commands or "pbs_version" in seen.version
        return "qsub" in seen.commands and not others

    def meaning_of(self, status: int) -> str:
        """-11: the walltime was up."""
        return "its walltime was up" if status == -11 else super().meaning_of(status)

    def speaks(self, environ: Mapping[str, str]) -> bool:
        """Whether these variables were set by TORQUE and not by OpenPBS."""
        return super().speaks(environ) and not is_openpbs(environ)

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """`pbsdsh -h`, by the node's name; to kill it harms others of the job (`may_be_killed`)."""
        return (Launcher("pbsdsh", lambda node, environ: ["pbsdsh", "-h", node], may_be_killed=False),)

    def pilot_lines(self, nodes: int) -> str:
        """Shell text: `pbsdsh -u`, once per node; without it this node alone."""
        return """\
if command -v pbsdsh >/dev/null 2>&1; then
    start pbsdsh -u /bin/sh "$here/rank.sh"
else
    over $(awk '!seen[$0]++' "$PBS_NODEFILE")
fi"""
