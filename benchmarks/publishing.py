"""What does it cost to publish 100 MB to 4 servers of one host, against one server; and start to first result?

The limit of the latter: bare pyzmq processes, started side by side, that answer one call each.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.parts.bare import Bare
from benchmarks.parts.measure import in_turn, table
from grid import LocalGrid
from grid.testing.probe import Probe


class Heavy:
    """An instance with much to carry."""

    def __init__(self) -> None:
        self.data = np.ones(100_000_000, np.uint8)

    def first(self) -> int:
        return int(self.data[0])


def publish(g: LocalGrid) -> None:
    """Publish, have the first result of each server, withdraw."""
    sid = g.publish(Heavy())
    assert set(g.gather(g.broadcast(sid, "first"))) == {1}
    g.release_all()
    g.terminate(sid)


def start_grid(servers: int) -> None:
    """A grid from nothing to the first result of each server."""
    with LocalGrid(servers, output=None) as g:
        assert len(g.gather(g.broadcast(g.publish(Probe()), "add"))) == servers


def start_bare(servers: int) -> None:
    """The same of bare processes."""
    with ThreadPoolExecutor(servers) as pool:
        for each in list(pool.map(lambda _: Bare(), range(servers))):
            with each:
                each.call("add", 1)


def main() -> None:
    with LocalGrid(4, output=None) as four, LocalGrid(1, output=None) as one:
        four.publish(Probe())
        one.publish(Probe())
        rows = [
            in_turn("100 MB to 4 servers / to 1", lambda: publish(four), lambda: publish(one), rounds=5, target=1.3)
        ]
    for servers in 2, 8:
        rows.append(
            in_turn(
                f"{servers} servers: start, first result, end / bare",
                lambda servers=servers: start_grid(servers),
                lambda servers=servers: start_bare(servers),
                rounds=3,
                target=1.5,
            )
        )
    table("Publishing and starting", rows, unit="ms")


if __name__ == "__main__":
    main()
