"""A client of a kept grid in a process of its own, which tests kill. Commands on its standard input, one a line."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from grid import Grid, Host, Limits

LIMITS = Limits(heartbeat_s=0.5, lost_s=2.5, orphan_s=3.0, stop_s=2.0)


class Counter:
    """Each call is noted in a file of its server: so calls that ran twice are known."""

    def __init__(self, notes: str) -> None:
        self.notes, self.total = notes, 0

    def add(self, number: int, seconds: float = 0.0) -> tuple[int, int]:
        time.sleep(seconds)
        if self.notes:
            with open(f"{self.notes}/{os.getpid()}", "a") as file:
                file.write(f"{number}\n")
        self.total += number
        return number, number * number

    def fail(self) -> None:
        raise ValueError("on purpose")

    def value(self) -> int:
        return self.total

    def where(self) -> int:
        return os.getpid()

    def large(self, size: int) -> bytes:
        return bytes(size)


def two_hosts() -> list[Host]:
    """This machine twice, with an agent each."""
    return [Host("localhost", ssh="local", python=sys.executable, env={"WHICH": which}) for which in "ab"]


def new(name: str, keep: str, notes: str) -> Grid:
    g = Grid(two_hosts(), name=name, keep=keep, limits=LIMITS, output=None, wait="all")
    g.publish(Counter(notes))
    return g


def storm(name: str, notes: str, got: Path, calls: int) -> None:
    """Have `calls` results in a file, whatever happened before."""
    g = Grid.attach(name) if sys.argv[-1] == "again" else new(name, "10m", notes)
    (sid,) = g.servers
    done = {json.loads(line)[0] for line in got.read_text().splitlines()} if got.exists() else set()
    print("up", flush=True)
    with open(got, "a") as file:

        def note(result: Any) -> None:
            value = result.get(60)
            if value[0] not in done:
                done.add(value[0])
                file.write(json.dumps(value) + "\n")
                file.flush()

        for result in g.results():
            note(result)
        with g.group(sid):
            proxies = g._service(sid).hold_group(30)
            missing = [number for number in range(calls) if number not in done]
            made = [proxies[number % len(proxies)].add(number, 0.0003) for number in missing]
            for result in made:
                note(result)
            made.clear()
    print("through", flush=True)
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    role, name, notes = sys.argv[1:4]
    if role == "storm":
        storm(name, notes, Path(sys.argv[4]), int(sys.argv[5]))
        return
    g = new(name, sys.argv[4], notes)
    (sid,) = g.servers
    with g.acquire_service(sid) as proxy:
        proxy.add(5).get()
        running = proxy.add(7, 1.0).named("running")
        queued = [proxy.add(number) for number in range(20)]
        large = proxy.large(600_000).named("large")
        failing = proxy.fail().named("failing")
        print(json.dumps([sid, proxy.where().get() if role == "idle" else None]), flush=True)
        if role == "stay":
            sys.stdin.read()
        sys.stdin.readline()
        del running, queued, large, failing


if __name__ == "__main__":
    main()
