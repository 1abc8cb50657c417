"""Does anything grow: memory under millions of calls, threads, sockets, files and processes under many publications?

    python -m benchmarks.load                      1 million calls, 100 publications (a few minutes)
    python -m benchmarks.load 10000000 1000        a night

Prints the counts before, in the middle and after; ends with status 1 if the second half grew by more than a tenth.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from grid import LocalGrid
from grid.testing.probe import Probe

BLOCK = 20_000


def counts(pids: dict[str, int]) -> dict[str, int]:
    """Resident memory in MB, descriptors and threads of each process; our own runtime files."""
    found = {}
    for name, pid in pids.items():
        status = Path(f"/proc/{pid}/status").read_text()
        words = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        found[f"{name} MB"] = int(words["VmRSS"].split()[0]) // 1024
        found[f"{name} descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))
        found[f"{name} threads"] = int(words["Threads"])
    found["python threads"] = threading.active_count()
    return found


def grown(first: dict[str, int], second: dict[str, int]) -> list[str]:
    """What the second half added, beyond a tenth and a little."""
    return [f"{key}: {first[key]} -> {second[key]}" for key in first if second[key] > 1.1 * first[key] + 4]


def calls(total: int) -> list[str]:
    """So many calls on one server, a future each."""
    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Probe())) as proxy:
        pids = {
            "client": os.getpid(),
            "agent": g._engine.fleet.homes[0].report["pid"],
            "server": proxy.where().get()[1],
        }
        seen = []
        for block in range(total // BLOCK):
            for result in [proxy.add(1) for _ in range(BLOCK)]:
                result.get()
            if block in (total // BLOCK // 10, total // BLOCK // 2):
                seen.append(counts(pids))
        seen.append(counts(pids))
        assert proxy.add(0).get() == total // BLOCK * BLOCK, "a call was lost or run twice"
    for key in seen[0]:
        print(f"  {key:22} {' '.join(f'{look[key]:6}' for look in seen)}")
    return grown(seen[1], seen[2])


def publications(total: int) -> list[str]:
    """So many services published, used and withdrawn."""
    with LocalGrid(2, output=None) as g:
        g.publish([])
        pids = {"client": os.getpid(), "agent": g._engine.fleet.homes[0].report["pid"]}
        seen = []
        for turn in range(total):
            sid = g.publish(Probe())
            assert g.gather(g.broadcast(sid, "add")) == [1, 1]
            g.release_all()
            g.terminate(sid)
            if turn in (total // 10, total // 2):
                seen.append(counts(pids))
        seen.append(counts(pids))
    for key in seen[0]:
        print(f"  {key:22} {' '.join(f'{look[key]:6}' for look in seen)}")
    return grown(seen[1], seen[2])


def main() -> None:
    total, turns = (int(word) for word in (sys.argv[1:] or ("1000000", "100")))
    print(f"{total:,} calls: after a tenth, a half, all")
    worse = calls(total)
    print(f"{turns} publications: after a tenth, a half, all")
    worse += publications(turns)
    for line in worse:
        print(f"GROWS {line}")
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
