"""A batch system on hosts of a lab: what all of them have in common.

Lives here: `Cluster`, its head and nodes, what they share, the list of systems.
Elsewhere:  the hosts (`host.py`), the systems (`slurm.py`, `gridengine.py`, `standins.py`).

Users log in on `head` and submit there; `n1`, `n2`, ... run the jobs. They share /home, as a cluster does by NFS.
Nothing is in the machine's own /etc, and two labs never meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tests.lab.host import LabHost, RunningHost
from tests.lab.pythons import is_installed

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CLIENT_PACKAGES = (
    *("pyzmq", "cloudpickle", "dill", "numpy", "click", "PyYAML", "rich", "markdown-it-py", "mdurl", "Pygments"),
    "typing_extensions",
    *("paramiko", "cryptography", "bcrypt", "PyNaCl", "cffi", "pycparser", "invoke"),
)
"""All that grid itself needs: scripts run within jobs. Its code is in /grid (`PYTHONPATH=/grid`)."""
SLOTS = 4  # per node, whatever the machine has
QUEUE = "batch"
SLURM_COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo", "qsub", "qstat", "qdel", "qhold", "qrls")
"""Of the machine; a host with another batch system has them not."""


class Cluster:
    """`size` nodes and their head, to be furnished once the lab has given them addresses."""

    shares: ClassVar[Mapping[str, str]] = {}
    """Directories that its hosts share besides /home: path there -> name, or path here."""
    hidden: ClassVar[tuple[str, ...]] = SLURM_COMMANDS
    freezer = False

    def __init__(self, size: int) -> None:
        self.names = [f"n{number}" for number in range(1, size + 1)]
        shares = {"/home": "home", "/grid": str(Path(__file__).parents[2]), **self.shares}
        packages = tuple(name for name in CLIENT_PACKAGES if is_installed(name))
        head, *nodes = (
            LabHost(name, packages=packages, shares=shares, hidden=self.hidden, freezer=self.freezer and name != "head")
            for name in ("head", *self.names)
        )
        self.specs = (head, *nodes)

    def furnish(self, lab: Lab) -> None:
        """Write what the system needs; say which services its hosts run."""
        raise NotImplementedError

    def wait_until_idle(self, limit_s: float = 60) -> None:
        """Until all nodes have reported to it and run nothing."""
        raise NotImplementedError

    def hosts(self, lab: Lab) -> list[RunningHost]:
        return [lab.hosts[name] for name in ("head", *self.names)]


def cluster(system: str, size: int) -> Cluster:
    """`slurm` and `gridengine` are real; `KIND-standin` is a stand-in of that kind.

    Raises:
        MissingPart: This machine can't have it.
    """
    from tests.lab.gridengine import GridEngine
    from tests.lab.slurm import Slurm
    from tests.lab.standins import StandInCluster

    if system == "slurm":
        return Slurm(size)
    return GridEngine(size) if system == "gridengine" else StandInCluster(size, system)
