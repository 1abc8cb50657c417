"""A batch system on hosts of a lab: one of the stand-ins that grid ships, each node a host of its own.

Lives here: where its parts run.
Elsewhere:  the stand-ins (`grid/testing/standins/`), what all systems have in common (`cluster.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from grid.testing.standins import StandIn, command_names, command_text, part_text, write_base
from tests.lab.cluster import QUEUE, SLOTS, Cluster

if TYPE_CHECKING:
    from tests.lab.lab import Lab

BASE = "/batch/system"
PYTHON = "/usr/local/bin/python3"


class StandInCluster(Cluster):
    """Its server runs on `head`. `system` changes how it answers."""

    shares: ClassVar[Mapping[str, str]] = {"/batch": "batch"}
    system: StandIn

    def __init__(self, size: int, kind: str) -> None:
        super().__init__(size)
        self.kind = kind.removesuffix("-standin")

    def furnish(self, lab: Lab) -> None:
        base = lab.directory / "shares/batch/system"
        nodes = dict.fromkeys(self.names, SLOTS)
        config = write_base(
            base, self.kind, nodes, queue=QUEUE, programs="/usr/local/bin", scratch="/var/lib/scratch", login_shell=True
        )
        self.system = StandIn(self.kind, base)
        for host in self.hosts(lab):
            for name in command_names(config["system"]):
                text = command_text(BASE, name, python=PYTHON, root="/grid")
                host.write_file(f"/usr/local/bin/{name}", text, 0o755)
            part = ("server",) if host.name == "head" else ("mom", host.name)
            host.write_file("/usr/local/bin/start-part", part_text(BASE, *part, python=PYTHON, root="/grid"), 0o755)
            host.services[part[0]] = "/usr/local/bin/start-part"

    def wait_until_idle(self, limit_s: float = 60) -> None:
        """It is as soon as it is there."""
