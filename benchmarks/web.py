"""How soon do 200 open streams see a change, and how many requests are answered? In ms, and per second.

Server, streams and requests are on one machine, in two processes: a change is timed from the call that makes it (with
its fsync) to the last stream that has read it. Run: python -m benchmarks.web
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from grid.jobs import JobManager, Settings, Store, ThreadEngine
from grid.web.limits import WebLimits
from grid.web.server import WebServer
from grid.web.tokens import Tokens
from tests.edges.jobs_services import Square
from tests.edges.web_readers import Reader, load

STREAMS = 200
CHANGES = 50
JOBS = 1_000


class NoPlaces(ThreadEngine):
    """Jobs stay in the queue."""

    def runner(self, timeout: float) -> None:
        threading.Event().wait(timeout)  # stands for waiting for a runner


def main() -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        with JobManager(Store(place), NoPlaces(1, 1), Settings()) as manager:
            manager.register(Square)
            manager.submit("mara", [{"request": Square.request(value=n).to_plain()} for n in range(JOBS)])
            tokens = Tokens(manager.store.directory)
            web = WebServer(manager, tokens=tokens, limits=WebLimits())
            token = tokens.create("mara")
            child = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.web", "readers", str(web.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdin is not None and child.stdout is not None
            print(token, file=child.stdin, flush=True)
            child.stdout.readline()
            began = {}
            for n in range(CHANGES):
                now = time.time()
                (record,) = manager.submit("mara", [{"request": Square.request(value=n).to_plain()}])
                began[record.id] = now
                time.sleep(0.1)  # apart from each other
            print("end", file=child.stdin, flush=True)
            last = dict(line.split() for line in child.stdout)
            took = sorted((float(last[job]) - at) * 1e3 for job, at in began.items())
            print(f"{STREAMS} streams, {JOBS} jobs in the list: a change is seen by all after")
            most = f"95 % {took[int(0.95 * len(took))]:.1f} ms, most {took[-1]:.1f} ms"
            print(f"  median {statistics.median(took):.1f} ms, {most}")
            child.wait(30)
            for path in ("/api/v1/jobs/job-1/status", "/api/v1/jobs/job-1", "/api/v1/jobs?limit=20"):
                out = subprocess.run(
                    [sys.executable, "-m", "benchmarks.web", "load", str(web.port), path],
                    input=token,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                print(f"{path:32} {float(out):8.0f} requests/s")
            web.close()


def readers(port: int, token: str) -> None:
    """The other process: streams, told when to end."""

    async def run() -> None:
        all_of_them = [Reader(port, token, seed=n) for n in range(STREAMS)]
        end = asyncio.Event()
        tasks = [asyncio.ensure_future(reader.follow(end)) for reader in all_of_them]
        await asyncio.gather(*(reader.ready.wait() for reader in all_of_them))
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for _ in range(1000):
            if all(reader.changes >= CHANGES for reader in all_of_them):
                break
            await asyncio.sleep(0.01)
        end.set()
        await asyncio.gather(*tasks)
        last: dict[str, float] = {}
        for reader in all_of_them:
            assert not reader.wrong and reader.changes == CHANGES, (reader.wrong, reader.changes)
            for job, at in reader.times:
                last[job] = max(last.get(job, 0.0), at)
        for job, at in last.items():
            print(job, at)

    asyncio.run(run())


if __name__ == "__main__":
    if sys.argv[1:2] == ["readers"]:
        readers(int(sys.argv[2]), sys.stdin.readline().strip())
    elif sys.argv[1:2] == ["load"]:
        print(asyncio.run(load(int(sys.argv[2]), sys.stdin.readline().strip(), sys.argv[3], 16, 250)))
    else:
        main()
