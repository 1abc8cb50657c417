"""Replica exchange molecular dynamics of a small peptide with OpenMM: one temperature per server.

    pip install openmm                                                   here, or on the hosts
    python examples/peptide_exchange.py --plot maps.svg                  servers on this machine
    python examples/peptide_exchange.py --hosts node1,node2              over ssh
    python examples/peptide_exchange.py --solvent vacuum --rounds 2000

Alanine dipeptide has two torsion angles, phi and psi, and basins between which it crosses seldom at 300 K and often
at 600 K. Every server runs a copy at a temperature; after each round neighbours on the ladder may exchange theirs, so
that the cold ones visit all basins. The run ends with how well replicas mixed, how the basins are populated at each
temperature, and maps of phi and psi.

The same seed and number of servers give the same output on the Reference platform; `alanine_dipeptide.py` says where
that ends.

Lives here: the rounds and the report. Elsewhere: the exchange (`grid.ensemble`), the physics (`alanine_dipeptide.py`),
regions and maps (`ramachandran.py`).
Source of the method: Y. Sugita and Y. Okamoto, Chem. Phys. Lett. 314 (1999) 141.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from alanine_dipeptide import GAS_CONSTANT, PLATFORMS, SAMPLE_EVERY, SOLVENTS, TIME_STEP, Peptide, Report
from open_grid import add_options, open_grid
from ramachandran import REGIONS, share, svg

from grid import PublishError
from grid.ensemble import Ensemble, Exchange, geometric, stream_seeds

SETTLE = 0.1  # of all rounds: they are left out of means and populations


def sample(options: argparse.Namespace) -> tuple[Exchange, list[list[Report]]]:
    """Run all rounds; answer what was exchanged, and for each rung its reports in order."""
    talk_every = max(1, options.rounds // 10)
    began = time.monotonic()
    with open_grid(options, fewest=4) as g:
        sid = g.publish(Peptide(options.solvent, options.platform), wait="all")
        temperatures = lambda count: geometric(options.coldest, options.hottest, count)  # noqa: E731 - of all servers
        with Ensemble(g, sid, temperatures, rng=Random(options.seed)) as replicas:
            ladder = replicas.ladder
            seeds = stream_seeds(options.seed, len(replicas))
            replicas.each("start", lambda i: (ladder.parameter(i), seeds[i]))
            seen: list[list[Report]] = [[] for _ in range(len(replicas))]
            try:
                for number in range(1, options.rounds + 1):
                    reports = replicas.each("run", lambda i: (options.steps,))
                    for rung, report in zip(ladder.rung, reports, strict=True):
                        seen[rung].append(report)
                    replicas.exchange([report.energy / GAS_CONSTANT for report in reports], first=number % 2)
                    if number % talk_every == 0:
                        took = time.monotonic() - began
                        print(f"round {number} of {options.rounds}, {took:.0f} s", file=sys.stderr)
            except KeyboardInterrupt:
                print("stopped by hand", file=sys.stderr)
    return ladder, seen


def show(ladder: Exchange, seen: list[list[Report]], options: argparse.Namespace) -> None:
    """Print the statistics of a run; draw the maps if a file is named."""
    rounds = len(seen[0])
    length = rounds * options.steps * TIME_STEP
    print(f"alanine dipeptide, {options.solvent}: {len(seen)} replicas, {rounds} rounds, {length:g} ps each\n")
    print("     T/K  motion/K  energy/(kJ/mol)  " + "".join(f"{name:^16}" for name in REGIONS) + " exchanged with next")
    settled = [reports[math.ceil(SETTLE * rounds) if rounds > 1 else 0 :] for reports in seen]
    for rung, reports in enumerate(settled):
        motion = math.fsum(report.kinetic for report in reports) / len(reports)
        energy = math.fsum(report.energy for report in reports) / len(reports)
        shares = [share([report.angles for report in reports], name) for name in REGIONS]
        cells = "".join(f"{mean:7.1%} ± {'?' if math.isnan(error) else f'{error:.1%}':<6}" for mean, error in shares)
        row = f"{ladder.parameters[rung]:8.1f}  {motion:8.1f}  {energy:15.2f}  {cells}"
        if rung + 1 < len(seen):
            made, tried = ladder.made[rung], ladder.tried[rung]
            row += f"  {made} of {tried}" + (f" ({made / tried:.0%})" if tried else "")
        print(row.rstrip())
    print(f"\nexchanges accepted  {sum(ladder.made)} of {sum(ladder.tried)} ({ladder.share():.0%})")
    print(f"round trips         {sum(ladder.round_trips)}: {' '.join(map(str, ladder.round_trips))} by replica")
    if options.plot:
        maps = [
            (f"{kelvin:.0f} K", [pair for report in reports for pair in report.angles])
            for kelvin, reports in zip(ladder.parameters, settled, strict=True)
        ]
        title = f"alanine dipeptide, {options.solvent}, {length:g} ps per replica"
        options.plot.write_text(svg(maps, title), encoding="utf-8")
        print(f"maps of phi and psi {options.plot}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Replica exchange molecular dynamics of a peptide over a grid.")
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=500, help="an exchange ends each (default: 500)")
    parser.add_argument("--steps", type=int, default=500, help=f"in each round, by {SAMPLE_EVERY} (default: 500, 1 ps)")
    parser.add_argument("--coldest", type=float, default=300.0, metavar="K", help="(default: 300)")
    parser.add_argument("--hottest", type=float, default=600.0, metavar="K", help="(default: 600)")
    parser.add_argument("--solvent", choices=SOLVENTS, default="obc2", help="(default: obc2, implicit water)")
    parser.add_argument("--platform", choices=list(PLATFORMS), default="Reference", help="(default: Reference)")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw maps of phi and psi into this file")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.steps < SAMPLE_EVERY or options.steps % SAMPLE_EVERY:
        parser.error(f"--steps: a multiple of {SAMPLE_EVERY}")
    if not 0 < options.coldest < options.hottest < math.inf:
        parser.error("--coldest, --hottest: the first above 0, the second above the first")
    if options.plot and (options.plot.suffix != ".svg" or not options.plot.parent.is_dir()):
        parser.error(f"--plot {options.plot}: a name that ends in .svg, in a directory that is there")

    try:
        ladder, seen = sample(options)
    except (ImportError, PublishError) as exc:  # a server's, or that of hosts that lack something: both say what to do
        print(f"peptide_exchange: {exc}", file=sys.stderr)
        return 1
    if not seen[0]:
        return 1
    show(ladder, seen, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
