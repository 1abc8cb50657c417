"""Parallel tempering of a Metropolis sampler on real data: posterior means beside NIST's certified values.

    python examples/tempering.py                          Eckerle4, servers on this machine
    python examples/tempering.py BoxBOD --hosts node1,node2

Every server walks through the parameters of a fit at a temperature: 1 is the posterior, above it valleys and plains
between its peaks are crossed with ease. It starts anywhere in the prior's box; the certified values are used for the
comparison alone. Their standard deviations are those of the linearised problem. BoxBOD is far from linear and has six
measurements: its posterior has a long tail towards large b2, so that means lie off, and take many rounds to settle.

Posterior: normal errors of unknown size (Jeffreys' prior), and a flat prior from 0 to 4 times the larger of the two
starts that NIST gives. With the size of errors integrated out, -log p = n/2 log(RSS) for n measurements.

Lives here: the sampler, the rounds, the report. Elsewhere: the exchange (`grid.ensemble`), data (`nist_data.py`).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from random import Random
from statistics import fmean, stdev

from nist_data import DataSet, load
from open_grid import add_options, open_grid

from grid.ensemble import Ensemble, Exchange, geometric, stream_seeds

SETS = ("Eckerle4", "BoxBOD")  # of few parameters, all positive
HOTTEST = 8.0
SETTLE = 0.25  # of all rounds: steps are adapted, and nothing is counted


class Walker:
    """Metropolis moves of one parameter at a time. Published once; every server then goes its own way."""

    def __init__(self, data: DataSet) -> None:
        self.data = data
        self.box = [4.0 * max(values) for values in zip(*data.starts, strict=True)]

    def start(self, temperature: float, seed: int) -> float:
        """Begin anywhere in the box; answer the energy there. The same seed gives the same walk on every host."""
        self.rng, self.temperature = Random(seed), temperature
        self.reach: dict[float, list[float]] = {}  # of moves, for each temperature that was met
        self.here = [self.rng.uniform(0.0, width) for width in self.box]
        self.level = self.energy(self.here)
        return self.level

    def set_temperature(self, temperature: float) -> None:
        self.temperature = temperature

    def energy(self, point: Sequence[float]) -> float:
        """-log p, up to a constant; infinite outside of the box."""
        if not all(0.0 < value < width for value, width in zip(point, self.box, strict=True)):
            return math.inf
        model = self.data.model
        rss = math.fsum(abs(y - model(point, x)) ** 2 for x, y in zip(self.data.x, self.data.y, strict=True))
        return 0.5 * len(self.data.y) * math.log(rss)

    def walk(self, sweeps: int, adapt: bool) -> tuple[float, list[list[float]]]:
        """Move every parameter `sweeps` times; answer the energy at the end, and the points after each sweep."""
        reach = self.reach.setdefault(self.temperature, [width / 8.0 for width in self.box])
        points = []
        for _ in range(sweeps):
            for which, width in enumerate(self.box):
                there = self.here.copy()
                there[which] += self.rng.gauss(0.0, reach[which])
                level = self.energy(there)
                gain = (self.level - level) / self.temperature
                accepted = gain >= 0.0 or self.rng.random() < math.exp(gain)
                if accepted:
                    self.here, self.level = there, level
                if adapt:  # towards two accepted moves out of five
                    reach[which] = min(width, reach[which] * (1.09 if accepted else 0.944))
            points.append(self.here)
        return self.level, points


def sample(options: argparse.Namespace, data: DataSet) -> tuple[Exchange, list[list[float]]]:
    """Run all rounds; answer what was exchanged, and the points at temperature 1."""
    settled = math.ceil(SETTLE * options.rounds)
    points: list[list[float]] = []
    with open_grid(options, fewest=4) as g:
        sid = g.publish(Walker(data), wait="all")
        temperatures = lambda count: geometric(1.0, HOTTEST, count)  # noqa: E731 - of all servers
        with Ensemble(g, sid, temperatures, rng=Random(options.seed)) as replicas:
            ladder = replicas.ladder
            seeds = stream_seeds(options.seed, len(replicas))
            replicas.each("start", lambda i: (ladder.parameter(i), seeds[i]))
            for number in range(1, options.rounds + 1):
                answers = replicas.each("walk", lambda i: (options.sweeps, number <= settled))  # noqa: B023 - at once
                if number > settled:
                    points += answers[ladder.holder(0)][1]
                replicas.exchange([level for level, _ in answers], first=number % 2)
    return ladder, points


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Parallel tempering of the posterior of a NIST fit over a grid.")
    add_options(parser)
    parser.add_argument("set", nargs="?", choices=SETS, default=SETS[0], help=f"(default: {SETS[0]})")
    parser.add_argument("--rounds", type=int, default=200, help="an exchange ends each (default: 200)")
    parser.add_argument("--sweeps", type=int, default=50, help="in each round (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed and servers give the same run (default: 1)")
    options = parser.parse_args(arguments)
    if options.rounds < 2 or options.sweeps < 1:
        parser.error("--rounds: at least 2; --sweeps: at least 1")

    data = load()[options.set]
    ladder, points = sample(options, data)
    print(f"{data.name}: {data.formula}; {len(data.y)} measurements, {len(points)} points at temperature 1\n")
    print("         certified  deviation       mean  deviation  difference/deviation")
    for number, values in enumerate(zip(*points, strict=True)):
        certified, deviation = data.certified[number], data.deviations[number]
        mean, spread = fmean(values), stdev(values)
        off = (mean - certified) / deviation
        print(f"b{number + 1}  {certified:14.6f} {deviation:10.6f} {mean:10.5f} {spread:10.6f} {off:+21.2f}")
    print(f"\nexchanges accepted  {sum(ladder.made)} of {sum(ladder.tried)} ({ladder.share():.0%})")
    print(f"round trips         {sum(ladder.round_trips)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
