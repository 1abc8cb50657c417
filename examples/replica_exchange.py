"""Replica exchange Monte Carlo of a Lennard-Jones cluster: one published object, one temperature per server.

    python examples/replica_exchange.py                         13 atoms, servers on this machine
    python examples/replica_exchange.py --atoms 38              the hard one: two funnels
    python examples/replica_exchange.py --hosts node1,node2     over ssh

Every server holds a copy of one `Replica`. A round is: all servers walk at their temperature; then neighbours on
the ladder of temperatures may exchange them, by Metropolis' rule. Cold replicas search one basin, hot ones cross
between basins, and each replica wanders between the two. Temperatures are exchanged, not coordinates: a few bytes.

Lives here: the rounds. Elsewhere: the exchange (`grid.ensemble`), the physics (`lennard_jones.py`), the picture
(`replica_picture.py`).
Source of the method: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986) 2607.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from random import Random

from lennard_jones import GLOBAL_MINIMA, Replica, Report
from open_grid import add_options, open_grid
from replica_picture import Picture
from rich.console import Console
from rich.live import Live

from grid.ensemble import Ensemble, Exchange, geometric

__all__ = ["SMALL", "Exchange", "Picture", "Report", "main"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a cluster is searched."""

    method: str  # of `Replica`: `run` moves single atoms, `hop` goes from minimum to minimum
    steps: int  # in one round
    rounds: int
    coldest: float
    hottest: float
    at_minimum: str  # "stop", or "go on" to show how replicas mix


# Small clusters find their minimum by plain Monte Carlo within seconds. 38 atoms hardly ever do: their melt freezes
# into icosahedra, and the best cluster is a piece of fcc crystal. From minimum to minimum it takes minutes, and luck:
# about three seeds out of four arrive within 5,000 hops.
SMALL = Plan(method="run", steps=20_000, rounds=80, coldest=0.14, hottest=0.36, at_minimum="go on")
LARGE = Plan(method="hop", steps=10, rounds=400, coldest=0.4, hottest=1.0, at_minimum="stop")


def search(options: argparse.Namespace, console: Console) -> tuple[float, Exchange]:
    """Run all rounds; answer the best energy, and what was exchanged."""
    plan = SMALL if options.atoms < 20 else LARGE
    plan = replace(plan, rounds=options.rounds or plan.rounds, steps=options.steps or plan.steps)
    best = math.inf
    with open_grid(options, fewest=4) as g, ExitStack() as stack:
        sid = g.publish(Replica(options.atoms))
        temperatures = lambda count: geometric(plan.coldest, plan.hottest, count)  # noqa: E731 - of all servers
        replicas = stack.enter_context(Ensemble(g, sid, temperatures, rng=Random(options.seed)))
        ladder = replicas.ladder
        replicas.each("start", lambda i: (ladder.parameter(i), 1000 * options.seed + i))

        servers = [(server.name, server.host.name) for server in g.servers[sid]]
        picture = Picture(options.atoms, servers, ladder, plan, console.width)
        live = None
        if console.is_terminal and not options.plain:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        try:
            for number in range(1, plan.rounds + 1):
                reports = replicas.each(plan.method, lambda i: work(plan, ladder.rung[i], len(replicas)))
                was_found = is_found(options.atoms, best)
                best = min(best, *(report.lowest for report in reports))
                now_found = is_found(options.atoms, best) and not was_found
                picture.note()
                if live:
                    live.update(picture.table(number, reports, best), refresh=True)
                elif number % 10 == 1 or number == plan.rounds or now_found:
                    console.print(picture.line(number, reports, best), highlight=False, soft_wrap=True)
                if plan.at_minimum == "stop" and now_found:
                    break
                replicas.exchange([report.energy for report in reports], first=number % 2)
        except KeyboardInterrupt:
            console.print("stopped by hand")
    return best, ladder


def work(plan: Plan, rung: int, count: int) -> tuple[int, ...]:
    """Arguments of a round; where single atoms move, the colder half also looks how deep its basin is."""
    return (plan.steps, rung <= count // 2) if plan.method == "run" else (plan.steps,)


def is_found(atoms: int, best: float) -> bool:
    return abs(best - GLOBAL_MINIMA.get(atoms, math.inf)) < 1e-5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Replica exchange of a Lennard-Jones cluster over a grid.")
    add_options(parser)
    parser.add_argument("--atoms", type=int, default=13, help="13 and 38 have a published minimum (default: 13)")
    parser.add_argument("--rounds", type=int, help="how many, at most (default: 80, or 400 from 20 atoms)")
    parser.add_argument("--steps", type=int, help="in each round (default: 20000 moves, or 10 hops)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed and servers give the same run (default: 1)")
    parser.add_argument("--plain", action="store_true", help="lines instead of a picture")
    options = parser.parse_args(arguments)
    if options.atoms < 3:
        parser.error("--atoms: a cluster has at least 3")

    console = Console()
    best, exchange = search(options, console)
    console.print(f"\nLJ{options.atoms}  best energy found   {best:14.6f}", highlight=False)
    if options.atoms in GLOBAL_MINIMA:
        known = GLOBAL_MINIMA[options.atoms]
        console.print(f"      published minimum   {known:14.6f}   Cambridge Cluster Database", highlight=False)
        console.print(f"      difference          {round(best - known, 6) + 0.0:14.6f}", highlight=False)
    console.print(
        f"      exchanges accepted  {sum(exchange.made):7d} of {sum(exchange.tried)} ({exchange.share():.0%})",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
