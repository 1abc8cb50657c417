"""How many tasks a second, against as many raw calls? Does handing one out depend on how many wait, or on the hosts?

And: with hosts of speeds 1 : 2 : 4, how far apart do they finish, in lengths of a task?

The limit of the first is the same work by `proxy.method()`, all in flight at once on the same servers, in the same run.
The second is the scheduler alone, without servers: one task handed out and taken back. The third runs on servers of
this machine that count as three hosts, by tasks that sleep longer on two of them.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from grid import Host, LocalGrid, Task, TaskSystem
from grid.grids.grid import Grid
from grid.tasks import LeastLoaded, Master, TaskLimits, Weighted
from grid.tasks.schedule import Pack, Schedule
from grid.tasks.slaves import SlaveRegistry
from grid.testing.probe import Probe

TASKS = 50_000
ROUNDS = 5
SPEEDS = {"slow": 1, "middle": 2, "fast": 4}
LENGTH_S = 0.4  # of a task on the slow host


class Add(Task):
    """As small as the call that it is compared with."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> int:
        return self.number + 1


class Count(TaskSystem):
    """Runs `number` tasks of a kind."""

    def __init__(self, number: int, kind: type[Task] = Add) -> None:
        self.number, self.kind, self.done = number, kind, 0
        self.ends: dict[str, float] = {}

    def init_system(self, master: Any) -> None: ...
    def generate_tasks(self, master: Any) -> Iterable[Task]:
        return (self.kind(n) for n in range(self.number))  # type: ignore[call-arg]

    def task_finished(self, master: Any, task: Task, result: Any, error: BaseException | None) -> None:
        self.done += 1
        if task.slave_id is not None:
            self.ends[task.slave_id] = time.monotonic()

    def is_complete(self, master: Any) -> bool:
        return self.done == self.number

    def gather_result(self, master: Any) -> Any:
        return self.ends


def compare(name: str, ours: Sequence[float], limit: Sequence[float], target: float) -> None:
    """Print medians in us, their ratio, and (in brackets) the target for that, at most."""
    one, other = statistics.median(ours), statistics.median(limit)
    verdict = "ok" if one / other <= target else "MISSED"
    print(f"  {name:40} {one * 1e6:8.1f} {other * 1e6:8.1f} us  ratio {one / other:.2f} ({target:.2f})  {verdict}")


def throughput() -> None:
    with LocalGrid(2, output=None) as g, Master(g) as master:
        sid = g.publish(Probe())
        proxies = [g.acquire_service(sid) for _ in range(2)]
        ours, limit = [], []
        for _ in range(ROUNDS + 1):
            began = time.perf_counter()
            master.start_system(Count(TASKS)).get()
            ours.append((time.perf_counter() - began) / TASKS)
            began = time.perf_counter()
            results = [proxies[n & 1].add(1) for n in range(TASKS)]
            for result in results:
                result.get()
            limit.append((time.perf_counter() - began) / TASKS)
        print("tiny tasks on two servers of this machine")
        compare("a task / a raw call", ours[1:], limit[1:], 1.25)
        rate, raw = (1 / statistics.median(values[1:]) for values in (ours, limit))
        print(f"  {rate:,.0f} tasks/s, {raw:,.0f} raw calls/s")


def hand_out(hosts: int, waiting: int, count: int = 3000) -> float:
    """Seconds to hand one task out and take it back, where so many wait."""
    registry, strategy = SlaveRegistry(), LeastLoaded()
    schedule = Schedule(strategy, registry, TaskLimits(largest_pack=1))
    strategy.setup(None, None)  # type: ignore[arg-type]
    for n in range(hosts):
        registry.register(f"h{n}", 2, 0.0)
    schedule.rerate()
    schedule.open("s")
    schedule.push("s", [Add(n) for n in range(waiting)])
    for _ in range(hosts):
        schedule.next()  # the first fills the heap
    began = time.perf_counter()
    for _ in range(count):
        pack = schedule.next()
        assert isinstance(pack, Pack)
        schedule.settled(pack, 1.0)
        for _ in pack.entries:
            schedule.finished(pack.slave)
    return (time.perf_counter() - began) / count


def hand_outs() -> None:
    few, many = [hand_out(10, 20_000) for _ in range(ROUNDS)], [hand_out(10, 1_000_000) for _ in range(2)]
    small, large = [hand_out(10, 40_000) for _ in range(ROUNDS)], [hand_out(10_000, 40_000) for _ in range(ROUNDS)]
    print("handing out one task, the scheduler alone")
    compare("1,000,000 waiting / 20,000 waiting", many, few, 1.5)
    compare("10,000 hosts / 10 hosts (log: 4)", large, small, 4.0)


class Nap(Task):
    """Takes as long as its host is slow."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> None:
        time.sleep(LENGTH_S / int(os.environ["BENCHMARK_SPEED"]))


def finish_times() -> None:
    hosts = [
        Host(name, n_cpu=2, ssh="local", python=sys.executable, env={"BENCHMARK_SPEED": str(speed)})
        for name, speed in SPEEDS.items()
    ]
    for strategy in (LeastLoaded, Weighted):
        with Grid(hosts, output=None, wait="all") as g, Master(g, strategy()) as master:
            while len(master.status()["slaves"]) < len(SPEEDS):
                time.sleep(0.01)
            apart = []
            for _ in range(3):
                ends = master.start_system(Count(150, Nap)).get()
                apart.append((max(ends.values()) - min(ends.values())) / LENGTH_S)
            shares = {name: slave["done"] for name, slave in master.status()["slaves"].items()}
        worst = max(apart)
        verdict = "ok" if worst < 2 else "MISSED"
        print(f"speeds 1:2:4, {strategy.__name__}: hosts finish within {worst:.2f} lengths of a task on the slow one")
        print(f"  target 2.00   {verdict}; tasks run: {shares}")


def main() -> None:
    throughput()
    hand_outs()
    finish_times()


if __name__ == "__main__":
    main()
