"""Two servers exchange states of 64 MB: left on their hosts, against through the client. On one machine, and over ssh.

Over ssh needs the test hosts: root, on Debian. Run with `python -m benchmarks.swapping`.
"""

from __future__ import annotations

import os
from random import Random

from benchmarks.parts.measure import Row, in_turn, table
from grid import LocalGrid, SSHGrid
from grid.ensemble import Ensemble
from grid.grids.abstract import AbstractGrid
from tests.lab import Lab, LabHost
from tests.models import Replica

SIZE = 64_000_000
ROUNDS = 7


def swap(name: str, g: AbstractGrid) -> Row:
    """One row: `swap_states` against the same by `get` and a call."""
    sid = g.publish(Replica(), wait="all")
    with Ensemble(g, sid, [1.0, 2.0], rng=Random(1)) as ensemble:
        one, other = ensemble.replicas
        g.gather([proxy._call("start", (index, SIZE), {}) for index, proxy in enumerate((one, other))])

        def through_here() -> None:
            mine, theirs = g.gather([one.get_state(), other.get_state()])
            g.gather([one.set_state(theirs), other.set_state(mine)])

        return in_turn(name, lambda: ensemble.swap_states([(0, 1)]), through_here, rounds=ROUNDS)


def main() -> None:
    with LocalGrid(2, output=None) as g:
        rows = [swap("2 servers of one machine", g)]
    with Lab([LabHost("one"), LabHost("two")]) as lab:
        os.environ["GRID_SSH_CONFIG"] = str(lab.ssh_config)
        with SSHGrid(["one", "two"], output=None) as g:
            rows.append(swap("2 hosts", g))
    table("states of 64 MB change places / through the client", rows, unit="s")


if __name__ == "__main__":
    main()
