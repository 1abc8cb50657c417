"""What do calls and arrays cost over the network, encrypted, against bare pyzmq over TCP with CURVE and without?

Needs the test hosts: root, on Debian. The host is a network namespace of this machine: the wire itself costs nothing.
"""

from __future__ import annotations

import os
import pickle
import sys

from benchmarks.parts.bare import Bare
from benchmarks.parts.measure import in_turn, table
from grid import SSHGrid
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost

MB = 1_000_000


class Arrays:
    """Published; made of plain memory, as the host has no NumPy."""

    def swallow(self, array: memoryview) -> int:
        return len(array)

    def make(self, size: int) -> pickle.PickleBuffer:
        return pickle.PickleBuffer(bytearray(size))


def main() -> None:
    with Lab([LabHost("far")]) as lab:
        os.environ["GRID_SSH_CONFIG"] = str(lab.ssh_config)
        far = lab.hosts["far"]
        there = {"address": far.address, "command": [*far._enter("--net"), sys.executable]}
        with (
            SSHGrid(["far"], output=None) as g,
            Bare(curve=True, **there) as curve,
            Bare(arrays=True, **there) as plain,
            Bare(arrays=True, curve=True, **there) as slow,
        ):
            proxy, arrays = g.acquire_service(g.publish(Probe())), g.acquire_service(g.publish(Arrays()))
            for _ in range(300):
                proxy.add(1).get()
                curve.call("add", 1)

            def burst_ours() -> None:
                for result in [proxy.add(1) for _ in range(5000)]:
                    result.get()

            def burst_curve() -> None:
                for _ in range(5000):
                    curve.send("add", 1)
                for _ in range(5000):
                    curve.receive()

            table(
                "Small calls over TCP with CURVE, against bare pyzmq with CURVE and pickle",
                [
                    in_turn(
                        "one at a time",
                        lambda: proxy.add(1).get(),
                        lambda: curve.call("add", 1),
                        rounds=15,
                        calls=200,
                        target=1.25,
                    ),
                    in_turn("5000 in flight", burst_ours, burst_curve, rounds=7, per=5000, target=2.5),
                ],
            )
            rows = []
            for size in 1, 16, 64:
                array = pickle.PickleBuffer(bytearray(size * MB))
                for name, limit, target in ("plain TCP", plain, 2.5), ("CURVE", slow, 0.2):
                    rows += [
                        in_turn(
                            f"{size} MB in / {name}",
                            lambda array=array: arrays.swallow(array).get(),
                            lambda limit=limit, array=array: limit.call("swallow", array),
                            rounds=3,
                            calls=3,
                            target=target,
                        ),
                        in_turn(
                            f"{size} MB out / {name}",
                            lambda array=array: arrays.make(len(array.raw())).get(),
                            lambda limit=limit, array=array: limit.call("make", len(array.raw())),
                            rounds=3,
                            calls=3,
                            target=target,
                        ),
                    ]
            table("Arrays over TCP, encrypted, against bare pyzmq over plain TCP, and with CURVE", rows, unit="ms")


if __name__ == "__main__":
    main()
