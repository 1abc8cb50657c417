"""Services of `across_servers.py`: one reduces raw counts on the server that has them, two work on the reduced data."""

from __future__ import annotations

import csv
import io
import math
import random
from typing import Any

from grid.jobs import Service, ServiceHandler

CHANNELS = 200
CENTRE, WIDTH = 80.0, 12.0
"""Of the peak that is in the raw data."""


class Reduce(Service):
    """Counts of many runs -> `reduced.csv`: channel, mean, error."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        runs = handler.map(one_run, range(self.request.runs))
        written = io.StringIO()
        table = csv.writer(written)
        for channel in range(CHANNELS):
            counts = [run[channel] for run in runs]
            table.writerow([channel, sum(counts) / len(counts), math.sqrt(sum(counts)) / len(counts)])
        handler.keep("reduced.csv", written.getvalue())
        return {"runs": len(runs), "counts": sum(map(sum, runs))}


def one_run(seed: int) -> list[int]:
    """Counts of one run: a Gaussian peak on a flat background, with noise that depends on the seed alone."""
    chance = random.Random(seed)
    return [max(0, round(chance.gauss(mean := peak(x, CENTRE, WIDTH), math.sqrt(mean)))) for x in range(CHANNELS)]


def peak(x: float, centre: float, width: float) -> float:
    """Expected counts in a channel."""
    return 10.0 + 100.0 * math.exp(-0.5 * ((x - centre) / width) ** 2)


class Simulate(Service):
    """A table of peaks for many centres and widths. Remembered: the same grid of values is not made twice."""

    version = "1"
    memo = True

    def run(self, handler: ServiceHandler) -> Any:
        pairs = [(centre, width) for centre in self.request.centres for width in self.request.widths]
        return {"pairs": pairs, "peaks": handler.map(one_peak, pairs)}


def one_peak(pair: tuple[float, float]) -> list[float]:
    """The expected counts of all channels."""
    return [peak(x, *pair) for x in range(CHANNELS)]


class Fit(Service):
    """The simulated peak that is nearest to the reduced data, by chi square."""

    version = "1"

    def run(self, handler: ServiceHandler) -> Any:
        with open(self.request.path) as file:
            table = [(float(mean), float(error)) for _, mean, error in csv.reader(file)]
        best = None
        for pair, values in zip(self.request.simulated["pairs"], self.request.simulated["peaks"], strict=True):
            handler.ready()
            pulls = [(mean - value) / (error or 1.0) for (mean, error), value in zip(table, values, strict=True)]
            chi2 = sum(pull**2 for pull in pulls)
            if best is None or chi2 < best["chi2"]:
                best = {"chi2": chi2, "centre": pair[0], "width": pair[1]}
                handler.improved(best)
        return best
