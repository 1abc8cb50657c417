"""How many jobs per second are submitted and finished with SQLite, and what does a long queue cost? Rates, and ms.

Submissions are held against the same rows written by bare sqlite3 with the same durability (WAL, synchronous=FULL): one
transaction each, and in batches. With 10,000 jobs in the queue: listing them, one event that decides 10,000 conditions.
Then a chain of 1,000, from end to end; jobs run on two servers; one decision of the scheduler with 1,000 jobs.
"""

from __future__ import annotations

import logging
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from grid import LocalGrid
from grid.jobs import Service, Store, ThreadEngine, make_service
from grid.jobs.rules.credits import Ledger
from grid.jobs.rules.scheduler import Unit, UnitScheduler

logging.getLogger("grid.jobs").setLevel(logging.ERROR)


class Nothing(Service):
    version = "1"

    def run(self, handler):  # type: ignore[no-untyped-def]
        return self.request.n


class Absent(Service):
    """Submitted, and never started: the manager has no place for it."""

    version = "1"

    def run(self, handler):  # type: ignore[no-untyped-def]
        return None


class NoPlaces(ThreadEngine):
    """Jobs stay in the queue."""

    def runner(self, timeout: float) -> None:
        time.sleep(timeout)  # stands for waiting for a runner


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        print("submitting, jobs per second")
        bare_one, bare_batch = bare(Path(place))
        service = make_service(Path(place, "a"), engine=NoPlaces(1, 1), services=[Absent])
        one = rate(300, lambda n: service.submit(Absent.request(n=n)))
        began = time.perf_counter()
        for _ in range(10):
            service.submit_all([Absent.request(n=n) for n in range(100)])
        batch = 1000 / (time.perf_counter() - began)
        row("one by one", one, bare_one, 200)
        row("in batches of 100", batch, bare_batch, 1000)
        service.submit_all([Absent.request(n=n) for n in range(8700)])
        began = time.perf_counter()
        count = len(service.summaries())
        listed = time.perf_counter() - began
        began = time.perf_counter()
        last = len(service.summaries(last=50))
        print(f"listing {count} jobs: {listed * 1e3:.0f} ms; the last {last}: {ms(began):.0f} ms")
        service.close()
        began = time.perf_counter()
        store = Store(Path(place, "a"))
        print(f"loading {len(store.load())} jobs after a restart: {ms(began):.0f} ms")
        store.close()

        print("a queue of 10,000 that waits")
        service = make_service(Path(place, "b"), engine=NoPlaces(1, 1), services=[Absent])
        gate = service.submit(Absent.request(n=0))
        service.submit_all([(Absent.request(n=n), {"after": gate}) for n in range(10_000)])
        manager = service.calls.manager
        began = time.perf_counter()
        manager.cancel(gate.id, "for the benchmark")
        print(f"  one event that decides 10,000: {ms(began):.0f} ms")
        began = time.perf_counter()
        before = manager.submit("bench", [{"request": Absent.request(n=0).to_plain()}])[0].id
        for n in range(1000):
            wait = {"atom": "completed", "job": before}
            before = manager.submit("bench", [{"request": Absent.request(n=n).to_plain(), "when": wait}])[0].id
        print(f"  a chain of 1,000 submitted one by one: {ms(began):.0f} ms")
        first = f"job-{int(before.partition('-')[2]) - 1000}"
        began = time.perf_counter()
        manager.cancel(first, "for the benchmark")
        print(f"  its failure from end to end: {ms(began):.0f} ms, the last is {manager.record(before).state}")
        service.close()

        print("running, jobs per second from the first submission to the last end")
        with LocalGrid(2, output=None) as grid:
            service = make_service(Path(place, "c"), grid, services=[Nothing], at_once=4)
            began = time.perf_counter()
            jobs = service.submit_all([Nothing.request(n=n) for n in range(300)])
            for job in jobs:
                job.wait()
            print(f"  on two servers: {300 / (time.perf_counter() - began):.0f}")
            service.close()

    scheduler = UnitScheduler(Ledger(1e9))
    for n in range(1000):
        scheduler.add_job(f"j{n}", f"u{n % 40}", n % 4)
        scheduler.add_units(Unit(f"j{n}", (n, i)) for i in range(10))
    times = []
    for turn in range(5000):
        began = time.perf_counter()
        unit = scheduler.pick(f"w{turn % 64}", turn * 0.01)
        times.append(time.perf_counter() - began)
        assert unit is not None
        scheduler.done(unit.key)
    times.sort()
    median, late = times[2500] * 1e6, times[4950] * 1e6
    print(f"a unit handed out with 1,000 jobs: median {median:.0f} us, p99 {late:.0f} us (target: 1000)")


def bare(place: Path) -> tuple[float, float]:
    """What sqlite3 alone does."""
    connection = sqlite3.connect(place / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("create table jobs (id text primary key, request text)")
    text = "x" * 400

    def insert(n: int) -> None:
        connection.execute("begin immediate")
        connection.execute("insert into jobs values (?, ?)", (f"job-{n}", text))
        connection.execute("commit")

    one = rate(300, insert)
    began = time.perf_counter()
    for batch in range(10):
        connection.execute("begin immediate")
        connection.executemany("insert into jobs values (?, ?)", [(f"b-{batch}-{n}", text) for n in range(100)])
        connection.execute("commit")
    many = 1000 / (time.perf_counter() - began)
    connection.close()
    return one, many


def rate(count: int, work: Callable[[int], object]) -> float:
    began = time.perf_counter()
    for n in range(count):
        work(n)
    return count / (time.perf_counter() - began)


def ms(began: float) -> float:
    return (time.perf_counter() - began) * 1e3


def row(name: str, ours: float, limit: float, target: float) -> None:
    verdict = "ok" if ours >= target else "MISSED"
    print(f"  {name:20} {ours:8.0f}   sqlite3 alone {limit:8.0f}   target {target:6.0f}   {verdict}")


if __name__ == "__main__":
    main()
