"""Non-linear fits as jobs: a service that searches the best fit of one of NIST's data sets from ever more starts.

    grid serve examples/nist_service.py --local 4 --name fits
    python examples/nist_jobs.py --server fits

Lives here: the services. Elsewhere: the script that submits (`nist_jobs.py`), data and models (`nist_data.py`), the
method (`least_squares.py`).
"""

from __future__ import annotations

from random import Random

from least_squares import Fit, scattered
from nist_data import DataSet, agreeing_digits, load

from grid.jobs import Service


class FitFrom:
    """The function of the units: it has the data, which so go to each worker once; an item is a starting point."""

    def __init__(self, data: DataSet) -> None:
        self.data = data

    def __call__(self, start: list[float]) -> Fit:
        return self.data.fit(start, most_steps=200)


class FitSet(Service):
    """Request: `set`, and `cycles`, `tries` (starts in each cycle), `seed`. Result: parameters, rss, digits, cycles."""

    version = "1"
    memo = True

    def prepare(self, request) -> None:
        self.data = load()[request.set]
        self.cycle = 0
        self.best = None

    def run(self, handler):
        fit = FitFrom(self.data)
        while self.cycle < self.request.cycles:
            handler.ready()  # a safe point: messages are handled, checkpoints taken, an abort is raised
            found = min(handler.map(fit, self.starts()), key=lambda each: each.rss)
            self.cycle += 1
            if self.best is None or found.rss < self.best["rss"]:
                self.best = self.report(found)
                handler.improved(self.best)
        return {**self.best, "cycles": self.cycle}

    def starts(self) -> list[list[float]]:
        rng = Random(f"{self.request.seed}-{self.cycle}")
        given = self.data.starts if self.cycle == 0 else []
        return [*given, *(scattered(self.data.starts[1], rng) for _ in range(self.request.tries))]

    def report(self, fit: Fit) -> dict:
        pairs = zip(fit.parameters, self.data.certified, strict=True)
        return {
            "set": self.data.name,
            "parameters": fit.parameters,
            "rss": fit.rss,
            "digits": min(agreeing_digits(found, certified) for found, certified in pairs),
        }

    def progress(self):
        return self.cycle, self.request.cycles, "cycles"

    def checkpoint(self):
        return self.cycle, self.best

    def restore(self, state) -> None:
        self.data = load()[self.request.set]
        self.cycle, self.best = state

    def on_signal_get_best(self, message) -> None:
        self.handler.answer(message, self.best)


class Worst(Service):
    """Request: `results`, of other jobs. Result: the set with the fewest agreeing digits."""

    version = "1"

    def run(self, handler):
        return min(self.request.results, key=lambda result: result["digits"])
