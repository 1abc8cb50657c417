"""Fits with certified answers, spread over a grid: one published object, and the next free server takes the next fit.

    python examples/nist_fits.py                        servers on this machine
    python examples/nist_fits.py MGH17 BoxBOD           two of the eight sets
    python examples/nist_fits.py --hosts hosts.yaml     over ssh

Every set is fitted from NIST's two starting points, the first far from the answer, and from random points around
the second one. For each fit: how many digits agree with the certified ones (of eleven), that is
-log10(|found - certified| / |certified|).

Lives here: the work and its report. Elsewhere: data and models (`nist_data.py`), the method (`least_squares.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from least_squares import Fit
from nist_data import DataSet, Fitter, agreeing_digits, load
from open_grid import add_options, open_grid
from rich.console import Console
from rich.table import Table

CHUNK = 10  # random starts in one call


@dataclass
class Outcome:
    """All fits of one set."""

    data: DataSet
    from_starts: list[Fit]
    scattered: list[Fit]

    @property
    def best(self) -> Fit:
        return min((*self.from_starts, *self.scattered), key=lambda fit: fit.rss)

    def digits(self, fit: Fit) -> float:
        """Of the worst parameter."""
        return min(map(agreeing_digits, fit.parameters, self.data.certified))

    def arrived(self) -> int:
        """How many of the random starts ended at the certified minimum."""
        return sum(agreeing_digits(fit.rss, self.data.rss) > 6 for fit in self.scattered)


def run(options: argparse.Namespace) -> list[Outcome]:
    """Hand out all fits; answer them set by set."""
    sets = load()
    names = options.sets or list(sets)
    with open_grid(options) as g:
        sid = g.publish(Fitter({name: sets[name] for name in names}))
        work = {}
        for name in names:
            work[name] = [submit(g, sid, "fit", name, start) for start in sets[name].starts]
            for chunk in range(-(-options.tries // CHUNK)):
                tries = min(CHUNK, options.tries - chunk * CHUNK)
                seed = f"{options.seed}/{name}/{chunk}"
                work[name].append(submit(g, sid, "search", name, sets[name].starts[1], tries, seed))
        outcomes = []
        for name, results in work.items():
            first, second, *rest = g.gather(results)
            outcomes.append(Outcome(sets[name], [first, second], [fit for fits in rest for fit in fits]))
        return outcomes


def submit(g, sid: str, method: str, *arguments):
    """Call a method on the next free server. Released at once, the server is free again when the call has ended."""
    proxy = g.acquire_service(sid)
    result = getattr(proxy, method)(*arguments)
    g.release_service(proxy)
    return result


def report(console: Console, outcome: Outcome) -> None:
    data, best = outcome.data, outcome.best
    console.print(f"\n[bold]{data.name}[/]  {data.formula}\n{data.about}")
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("", "found", "certified", "digits"):
        table.add_column(column, justify="right")
    for number, (found, certified) in enumerate(zip(best.parameters, data.certified, strict=True), 1):
        digits = agreeing_digits(found, certified)
        table.add_row(f"b{number}", f"{found:.10E}", f"{certified:.10E}", f"{digits:.1f}")
    table.add_row("rss", f"{best.rss:.10E}", f"{data.rss:.10E}", f"{agreeing_digits(best.rss, data.rss):.1f}")
    console.print(table, highlight=False)


def summary(console: Console, outcomes: Sequence[Outcome]) -> None:
    table = Table(box=None, padding=(0, 2), header_style="dim", title="agreeing digits of the worst parameter")
    for column in ("set", "start 1", "start 2", "best of all", "random starts that arrived"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for outcome in outcomes:
        digits = [outcome.digits(fit) for fit in (*outcome.from_starts, outcome.best)]
        shown = [f"[{'green' if value >= 8 else 'red'}]{value:.1f}[/]" for value in digits]
        table.add_row(outcome.data.name, *shown, f"{outcome.arrived()} of {len(outcome.scattered)}")
    console.print("")
    console.print(table, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Non-linear fits of NIST's reference data over a grid.")
    parser.add_argument("sets", nargs="*", metavar="SET", help="names of data sets (default: all eight)")
    add_options(parser)
    parser.add_argument("--tries", type=int, default=30, help="random starts of each set (default: 30)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    known = load()
    for name in options.sets:
        if name not in known:
            parser.error(f"no data set {name!r}; there are {', '.join(known)}")

    console = Console()
    began = time.monotonic()
    outcomes = run(options)
    for outcome in outcomes:
        report(console, outcome)
    summary(console, outcomes)
    fits = sum(2 + len(outcome.scattered) for outcome in outcomes)
    console.print(f"\n{fits} fits in {time.monotonic() - began:.1f} s; certified values: NIST StRD", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
