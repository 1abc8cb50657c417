"""Replica exchange Monte Carlo of a Lennard-Jones cluster: one published object, one temperature per server.

    python examples/replica_exchange.py                         13 atoms, servers on this machine
    python examples/replica_exchange.py --atoms 38              the hard one: two funnels
    python examples/replica_exchange.py --hosts node1,node2     over ssh

Every server holds a copy of one `Replica`. A round is: all servers walk at their temperature; then neighbours on
the ladder of temperatures may exchange them, by Metropolis' rule. Cold replicas search one basin, hot ones cross
between basins, and each replica wanders between the two. Temperatures are exchanged, not coordinates: a few bytes.

Lives here: the rounds, the exchange, the picture. Elsewhere: the physics (`lennard_jones.py`).
Source of the method: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986) 2607.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

from lennard_jones import GLOBAL_MINIMA, Replica, Report
from open_grid import add_options, open_grid
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

TABLE_WIDTH = 84  # columns of the terminal; what is left shows the past rounds


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


def ladder(plan: Plan, rungs: int) -> list[float]:
    """Temperatures from cold to hot, each the same factor above the last."""
    factor = (plan.hottest / plan.coldest) ** (1.0 / max(1, rungs - 1))
    return [plan.coldest * factor**rung for rung in range(rungs)]


@dataclass
class Exchange:
    """Who has which temperature: `rung[i]` of the ladder belongs to server i."""

    temperatures: list[float]
    rng: Random
    rung: list[int] = field(init=False)
    tried: list[int] = field(init=False)
    made: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.rung = list(range(len(self.temperatures)))
        self.tried = [0] * len(self.temperatures)
        self.made = [0] * len(self.temperatures)

    def swap(self, energies: Sequence[float], first: int) -> None:
        """Try neighbouring rungs in pairs (first, first + 1), (first + 2, first + 3), ...

        Two replicas exchange with probability min(1, exp((1/T_a - 1/T_b) (E_a - E_b))), which leaves the
        distribution at every temperature as it is.
        """
        holder = sorted(range(len(self.rung)), key=self.rung.__getitem__)
        for low in range(first, len(holder) - 1, 2):
            a, b = holder[low], holder[low + 1]
            gain = (1 / self.temperatures[low] - 1 / self.temperatures[low + 1]) * (energies[a] - energies[b])
            self.tried[low] += 1
            if gain >= 0.0 or self.rng.random() < math.exp(gain):
                self.made[low] += 1
                self.rung[a], self.rung[b] = low + 1, low

    def temperature(self, server: int) -> float:
        return self.temperatures[self.rung[server]]

    def share(self) -> float:
        return sum(self.made) / max(1, sum(self.tried))


class Picture:
    """What is seen: a table that redraws itself, or plain lines where no terminal looks."""

    def __init__(
        self, atoms: int, servers: Sequence[tuple[str, str]], exchange: Exchange, plan: Plan, width: int = 120
    ) -> None:
        self._atoms, self._servers, self._exchange, self._plan = atoms, servers, exchange, plan
        self._past = [deque[int](maxlen=max(0, min(60, width - TABLE_WIDTH))) for _ in servers]
        self._began = time.monotonic()

    def note(self) -> None:
        for past, rung in zip(self._past, self._exchange.rung, strict=True):
            past.append(rung)

    def line(self, number: int, reports: Sequence[Report], best: float) -> str:
        rungs = " ".join(map(str, self._exchange.rung))
        spent = time.monotonic() - self._began
        return (
            f"round {number:3d}  {spent:5.1f} s  best {best:.6f}{difference(self._atoms, best)}"
            f"  exchanged {self._exchange.share():4.0%}  rungs of the servers: {rungs}"
        )

    def table(self, number: int, reports: Sequence[Report], best: float) -> Group:
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for name, side in (
            *(("server", "left"), ("host", "left"), ("cold-hot", "left"), ("T", "right"), ("energy", "right")),
            *(("moves", "right"), ("deepest", "right"), ("before", "left")),
        ):
            table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
        for i, ((name, host), report) in enumerate(zip(self._servers, reports, strict=True)):
            rung = self._exchange.rung[i]
            style = self._colour(rung)
            place = Text("·" * rung, "dim") + Text("●", style) + Text("·" * (len(reports) - 1 - rung), "dim")
            found = "bold" if report.lowest <= best + 1e-6 else ""
            trail = Text().join(Text("▄", self._colour(past)) for past in self._past[i])
            cells = (f"{self._exchange.temperature(i):.3f}", f"{report.energy:.3f}", f"{report.acceptance:.0%}")
            deepest = Text(f"{report.lowest:.6f}", found)
            table.add_row(name, host, place, *(Text(cell, style) for cell in cells), deepest, trail)
        head = f"LJ{self._atoms}: round {number} of {self._plan.rounds}, {time.monotonic() - self._began:.0f} s"
        pairs = zip(self._exchange.made, self._exchange.tried, strict=True)
        shares = " ".join(f"{made / tried:.0%}" if tried else "-" for made, tried in list(pairs)[:-1])
        found = f"best {best:.6f}{difference(self._atoms, best)}"
        foot = f"moves and exchanges accepted; exchanges from cold to hot: {shares}"
        return Group(Text(head, "bold"), Text(), table, Text(), Text(found), Text(foot, "dim"))

    def _colour(self, rung: int) -> str:
        """From blue through violet to red."""
        share = rung / max(1, len(self._servers) - 1)
        return f"rgb({int(70 + 185 * share)},{int(130 - 60 * share)},{int(255 - 195 * share)})"


def difference(atoms: int, best: float) -> str:
    known = GLOBAL_MINIMA.get(atoms)
    return "" if known is None else f" (published {known:.6f}, difference {round(best - known, 6) + 0.0:.6f})"


def search(options: argparse.Namespace, console: Console) -> tuple[float, Exchange]:
    """Run all rounds; answer the best energy, and what was exchanged."""
    plan = SMALL if options.atoms < 20 else LARGE
    plan = Plan(**{**vars(plan), "rounds": options.rounds or plan.rounds, "steps": options.steps or plan.steps})
    best = math.inf
    with open_grid(options, fewest=4) as g, ExitStack() as stack:
        sid = g.publish(Replica(options.atoms))
        count = len(g.gather(g.broadcast(sid, "set_temperature", plan.hottest)))  # of all servers, late ones too
        exchange = Exchange(ladder(plan, count), Random(options.seed))
        g.gather(g.scatter(sid, "start", [(exchange.temperature(i), 1000 * options.seed + i) for i in range(count)]))

        servers = [(server.name, server.host.name) for server in g.servers[sid]]
        picture = Picture(options.atoms, servers, exchange, plan, console.width)
        live = None
        if console.is_terminal and not options.plain:
            live = stack.enter_context(Live(console=console, auto_refresh=False))
        try:
            for number in range(1, plan.rounds + 1):
                if plan.method == "run":  # the colder half also looks how deep its basin is
                    work = [(plan.steps, rung <= count // 2) for rung in exchange.rung]
                else:
                    work = [(plan.steps,)] * count
                reports = g.gather(g.scatter(sid, plan.method, work))
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
                exchange.swap([report.energy for report in reports], first=number % 2)
                g.scatter(sid, "set_temperature", [exchange.temperature(i) for i in range(count)])  # done before `run`
        except KeyboardInterrupt:
            console.print("stopped by hand")
        g.release_all()
    return best, exchange


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
