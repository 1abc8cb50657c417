"""How long does one small call take, and how many go in a burst, against the same bytes over bare pyzmq with pickle?

On this machine, over UNIX sockets. One server, and two side by side.
"""

from __future__ import annotations

from benchmarks.parts.bare import Bare
from benchmarks.parts.measure import in_turn, table
from grid import LocalGrid
from grid.testing.probe import Probe

BURST = 10_000


def main() -> None:
    with LocalGrid(2, output=None) as g, Bare() as bare, Bare() as second:
        sid = g.publish(Probe())
        with g.group(sid) as (proxy, other):

            def burst_ours() -> None:
                for result in [proxy.add(1) for _ in range(BURST)]:
                    result.get()

            def burst_bare() -> None:
                for _ in range(BURST):
                    bare.send("add", 1)
                for _ in range(BURST):
                    bare.receive()

            def two_ours() -> None:
                for result in [which.add(1) for _ in range(BURST // 2) for which in (proxy, other)]:
                    result.get()

            def two_bare() -> None:
                for _ in range(BURST // 2):
                    bare.send("add", 1)
                    second.send("add", 1)
                for _ in range(BURST // 2):
                    bare.receive()
                    second.receive()

            for _ in range(500):
                bare.call("add", 1)
                proxy.add(1).get()
            table(
                "Small calls on this machine, against bare pyzmq over ipc with pickle",
                [
                    in_turn(
                        "one at a time",
                        lambda: proxy.add(1).get(),
                        lambda: bare.call("add", 1),
                        rounds=20,
                        calls=200,
                        target=1.25,
                    ),
                    in_turn(f"{BURST} in flight", burst_ours, burst_bare, rounds=9, per=BURST, target=2.5),
                    in_turn("the same on 2 servers", two_ours, two_bare, rounds=9, per=BURST, target=2.5),
                ],
            )


if __name__ == "__main__":
    main()
