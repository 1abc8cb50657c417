"""A busy job manager that is killed with -9 at random points, again and again: body of `test_jobs_kills`.

    python -m tests.edges.jobs_killed STORE LOG LIVES SEED

Each life is a forked child that has all modules already. It submits, steers and waits, and writes a line to LOG after
each acknowledgement: `submitted ID` once submit returned, `complete ID` when it was announced.
"""

from __future__ import annotations

import os
import queue
import random
import select
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from grid.jobs import JobManager, Server, ServerProxy, Settings, Store, ThreadEngine
from tests.edges.jobs_services import ALL, Add, Fail, Square, Steps

SETTINGS = Settings(tick_s=0.02, checkpoint_s=0.005)
EACH = 12  # submissions of one life, at most


def live(store: str, log: int, seed: int, ready: int) -> None:
    """One life, until it is killed; a byte to `ready` says that the manager is up, and one that a line was written."""

    def write(text: str) -> None:
        os.write(log, f"{text}\n".encode())
        os.write(ready, b".")

    rng = random.Random(seed)
    manager = JobManager(Store(store), ThreadEngine(2, 3), SETTINGS)
    for cls in ALL:
        manager.register(cls)
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def note() -> None:
        while True:
            message = heard.get()
            if message.kind == "JobChanged" and message.summary["state"] == "complete":
                write(f"complete {message.summary['id']}")

    threading.Thread(target=note, daemon=True).start()
    manager.streams.listen("jobs", heard)
    manager.start()
    os.write(ready, b"r")
    service = ServerProxy(Server(manager), "mara")
    jobs: list[Any] = []
    with service:
        for _ in range(EACH):
            after = rng.choice(jobs) if jobs and rng.random() < 0.5 else None
            kind = rng.random()
            if kind < 0.3:
                job = Steps.submit(n=rng.randrange(1, 30), pause=0.002, when=after)
            elif kind < 0.5 and jobs:
                job = Add.submit(a=1, b=2, when=rng.choice(jobs).iscompleted | rng.choice(jobs).failed)
            elif kind < 0.6:
                job = Fail.submit(when=after)
            else:
                job = Square.submit(values=list(range(rng.randrange(5))), when=after)
            write(f"submitted {job.id}")
            jobs.append(job)
            if rng.random() < 0.1:
                rng.choice(jobs).abort()
        time.sleep(60)


def main(store: str, path: str, lives: int, seed: int) -> None:
    """Kill that many children."""
    tempfile.gettempdir()  # found by writing a file: not in a child that may be killed over it
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    rng = random.Random(seed)
    for number in range(lives):
        up, ready = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(store, log, seed + number, ready)
            except BaseException as exc:
                os.write(log, f"broken {exc!r}\n".encode())
            os._exit(1)
        if rng.random() < 0.8:  # at work, after so many lines; the others while they open the store
            for _ in range(rng.randrange(1, 12)):
                if select.select([up], [], [], 20.0)[0]:
                    os.read(up, 1)
        time.sleep(rng.uniform(0.0, 0.02))
        os.close(up)
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.write(log, b"killed\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
