"""How start, calls, memory and idle CPU grow with the number of servers on one host.

    python -m benchmarks.scale 10 100 1000

Each size has a grid of its own. Memory is the proportional share (PSS), as servers share what was loaded before they
were forked. Idle CPU is that of the client, the agent, the zygote and all servers together.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from grid import LocalGrid
from grid.errors import ServerLost
from grid.testing.probe import Probe

IDLE_S = 20.0
_TICK = os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def cpu_s(processes: list[int]) -> float:
    """What they have used so far."""
    words = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in processes]
    return sum(int(each[11]) + int(each[12]) for each in words) / _TICK


def pss_mb(processes: list[int]) -> float:
    """Their memory, what is shared counted once."""
    total = 0
    for pid in processes:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def seconds(what: Callable[[], object], times: int = 1) -> float:
    """The best of some tries."""
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - began)
    return best


def figures(servers: int) -> dict[str, float]:
    """All figures of one size."""
    row: dict[str, float] = {}
    began = time.perf_counter()
    g = LocalGrid(servers, output=None)
    with g:
        sid = g.publish(Probe())
        row["start to all servers [s]"] = time.perf_counter() - began
        assert g.size(sid) == servers, g.failures
        row["broadcast and gather [ms]"] = 1e3 * seconds(lambda: g.gather(g.broadcast(sid, "add", 1), 300), 5)
        g.release_all()
        items = range(20 * servers)
        row["map, per item [us]"] = 1e6 * seconds(lambda: list(g.map(sid, "add", items)), 3) / len(items)
        with g.acquire_service(sid) as probe:
            row["one call [us]"] = 1e6 * seconds(lambda: [probe.add(1).get() for _ in range(200)], 5) / 200
        row["status [ms]"] = 1e3 * seconds(g.status, 5)
        processes = family(os.getpid())
        row["memory per server [MB]"] = pss_mb(processes[1:]) / servers
        row["descriptors of the client per server"] = len(os.listdir("/proc/self/fd")) / servers
        others, ours = cpu_s(processes[1:]), time.process_time()  # without what looking costs
        time.sleep(IDLE_S)
        used = time.process_time() - ours
        row["idle CPU of all [% of a core]"] = 100 * (cpu_s(processes[1:]) - others + used) / IDLE_S
        with g.acquire_service(sid) as probe:
            began = time.perf_counter()
            try:
                probe.kill().get(60)
            except ServerLost:
                row["death of one noticed [ms]"] = 1e3 * (time.perf_counter() - began)
        began = time.perf_counter()
    row["end [s]"] = time.perf_counter() - began
    return row


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [10, 100, 1000]
    found = [figures(size) for size in sizes]
    print(f"{'servers':40}" + "".join(f"{size:>10}" for size in sizes))
    for name in found[0]:
        print(f"{name:40}" + "".join(f"{row[name]:10.3g}" for row in found))


if __name__ == "__main__":
    main()
