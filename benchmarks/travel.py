"""What do objects of a script's own classes cost as arguments, beside loky? And what do importable ones, beside before?

    python -m benchmarks.travel                        ours beside loky, in this run
    python -m benchmarks.travel --beside CHECKOUT      ours beside the grid in another checkout, by turns

Limits: 10,000 objects of a dataclass of `__main__` with a closure at most 0.9 of loky's time; importable objects and
small calls at most 1.03 of the other state's. Besides the time on the clock, CPU time of caller and server together is
told: on a machine that has other work to do the clock says little.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 15

SCRIPT = """
import dataclasses, fractions, json, sys, time

@dataclasses.dataclass
class Point:
    x: float
    y: float
    name: str

def weighed(weight):
    return lambda point: weight * point.x

class Model:
    def total(self, points, weigh):
        return sum(map(weigh, points))
    def count(self, items):
        return len(items)
    def small(self, x):
        return x
    def cpu(self):
        return time.process_time()

def total(points, weigh):
    return sum(map(weigh, points))

def timed(call, rounds, cpu):
    found = []
    for _ in range(rounds):
        there, here, began = cpu(), time.process_time(), time.perf_counter()
        call()
        clock, here = time.perf_counter() - began, time.process_time() - here
        found.append((clock, here + cpu() - there))
    return found

if __name__ == "__main__":
    ROUNDS = int(sys.argv[1])
    points = [Point(float(i), 1.0, str(i)) for i in range(10_000)]
    importable = [fractions.Fraction(i, 7) for i in range(2_000)]
    weigh = weighed(2.0)
    from grid import LocalGrid
    times = {}
    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Model())) as p:
        p.total(points, weigh).get(), p.count(importable).get()
        loky = None
        if "--loky" in sys.argv:
            from joblib.externals.loky import get_reusable_executor
            loky = get_reusable_executor(max_workers=1)
            loky.submit(total, points, weigh).result()
        ours, theirs = [], []
        def cpu():
            return p.cpu().get()
        def cpu_of_loky():
            return loky.submit(time.process_time).result()
        for _ in range(ROUNDS):
            ours += timed(lambda: p.total(points, weigh).get(), 1, cpu)
            if loky is not None:
                theirs += timed(lambda: loky.submit(total, points, weigh).result(), 1, cpu_of_loky)
        times["10,000 objects and a closure"] = ours
        if loky is not None:
            times["loky: the same"] = theirs
            loky.shutdown(wait=True, kill_workers=True)
        times["2,000 importable objects"] = timed(lambda: p.count(importable).get(), ROUNDS, cpu)
        times["one object of __main__"] = timed(lambda: [p.count([points[0]]).get() for _ in range(100)], ROUNDS, cpu)
        one = importable[:1]
        times["one importable object"] = timed(lambda: [p.count(one).get() for _ in range(100)], ROUNDS, cpu)
        times["small call"] = timed(lambda: [p.small(1).get() for _ in range(300)], ROUNDS, cpu)
        burst = range(2000)
        times["burst of small calls"] = timed(lambda: [r.get() for r in [p.small(1) for _ in burst]], ROUNDS, cpu)
    print(json.dumps(times))
"""


def run(place: Path, *words: str) -> dict[str, list[list[float]]]:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    script = Path(os.environ.get("TMPDIR", "/tmp"), f"travel-{os.getpid()}.py")
    script.write_text(SCRIPT)
    try:
        command = [sys.executable, str(script), str(ROUNDS), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        script.unlink()
    found: dict[str, list[list[float]]] = json.loads(done.stdout)
    return found


def shares(ours: list[list[float]], theirs: list[list[float]]) -> str:
    """Ours as a share of theirs, by the clock and by CPU time: medians, and at best."""
    words = []
    for word, which in (("clock", 0), ("CPU", 1)):
        here, there = [each[which] for each in ours], [each[which] for each in theirs]
        middle = statistics.median(here) / statistics.median(there)
        words.append(f"{word} {middle:5.2f} (at best {min(here) / min(there):5.2f})")
    return ", ".join(words)


def main() -> None:
    if "--beside" not in sys.argv:
        times = run(ROOT, "--loky")
        for name, each in times.items():
            clock, cpu = (1000 * statistics.median(part) for part in zip(*each, strict=True))
            print(f"{name:32} {clock:9.2f} ms, CPU {cpu:9.2f} ms")
        print("beside loky:", shares(times["10,000 objects and a closure"], times["loky: the same"]))
        return
    other = Path(sys.argv[sys.argv.index("--beside") + 1])
    here: dict[str, list[list[float]]] = {}
    there: dict[str, list[list[float]]] = {}
    for turn in range(6):
        for place, into in ((ROOT, here), (other, there)) if turn % 2 else ((other, there), (ROOT, here)):
            for name, each in run(place).items():
                into.setdefault(name, []).extend(each)
    for name in here:
        print(f"{name:32} {shares(here[name], there[name])}")


if __name__ == "__main__":
    main()
