"""Shows a replica exchange: a table that redraws itself, or plain lines without a terminal.

Lives here: the picture. Elsewhere: the search (`replica_exchange.py`), the physics (`lennard_jones.py`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from lennard_jones import GLOBAL_MINIMA, Report
from rich.console import Group
from rich.table import Table
from rich.text import Text

from grid.ensemble import Exchange

TABLE_WIDTH = 84  # columns of the terminal; what is left shows the past rounds


class Picture:
    """See the module; `plan.rounds` is how many rounds there will be at most."""

    def __init__(
        self, atoms: int, servers: Sequence[tuple[str, str]], exchange: Exchange, plan: Any, width: int = 120
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
            cells = (f"{self._exchange.parameter(i):.3f}", f"{report.energy:.3f}", f"{report.acceptance:.0%}")
            deepest = Text(f"{report.lowest:.6f}", found)
            table.add_row(name, host, place, *(Text(cell, style) for cell in cells), deepest, trail)
        head = f"LJ{self._atoms}: round {number} of {self._plan.rounds}, {time.monotonic() - self._began:.0f} s"
        shares = " ".join("-" if share is None else f"{share:.0%}" for share in self._exchange.acceptance())
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
