"""Does a call cost more where there are more servers; what do idle ones cost; and what does a group call cost?

The limit of the group calls: as many bare pyzmq processes, called one after the other, then heard one after the other.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.parts.bare import Bare
from benchmarks.parts.measure import Row, in_turn, table
from grid import LocalGrid
from grid.grids.abstract import AbstractGrid
from grid.testing.probe import Probe

CALLS = 2000


def cpu_of_calls(g: AbstractGrid, sid: str) -> float:
    """CPU seconds of the client for one call of a burst spread over all servers."""
    with g.group(sid) as proxies:
        began = time.process_time()
        for result in [proxies[n % len(proxies)].add(1) for n in range(CALLS)]:
            result.get()
        return (time.process_time() - began) / CALLS


def group_calls(servers: int) -> Row:
    """Broadcast and gather beside as many bare processes."""
    with LocalGrid(servers, output=None) as g, ExitStack() as stack:
        bare = [stack.enter_context(Bare()) for _ in range(servers)]
        sid = g.publish(Probe())

        def ours() -> None:
            g.gather(g.broadcast(sid, "add", 1))

        def theirs() -> None:
            for each in bare:
                each.send("add", 1)
            for each in bare:
                each.receive()

        ours()
        return in_turn(f"broadcast and gather, {servers} servers", ours, theirs, rounds=9, calls=20, target=1.5)


def main() -> None:
    groups = [group_calls(servers) for servers in (2, 8, 32)]
    table("Group calls, against bare pyzmq", groups)
    print("\nCPU of the client for one call of a burst, by the number of servers [us]; and of idle servers")
    with LocalGrid(1, output=None) as one, LocalGrid(8, output=None) as eight, LocalGrid(64, output=None) as many:
        services = [(g, g.publish(Probe())) for g in (one, eight, many)]
        cost: dict[int, list[float]] = {1: [], 8: [], 64: []}
        for _ in range(9):
            for g, sid in services:
                cost[g.size(sid)].append(cpu_of_calls(g, sid))
        for servers, values in cost.items():
            print(f"  {servers:3} servers {1e6 * sorted(values)[len(values) // 2]:6.1f}")
        began, used = time.perf_counter(), time.process_time()
        time.sleep(20)
        idle = (time.process_time() - used) / (time.perf_counter() - began)
        print(f"  73 idle servers use {100 * idle:.2f} % of a core at the client (target: less than 0.5 %)")


if __name__ == "__main__":
    main()
