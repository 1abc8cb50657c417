"""Measuring two things in turn, and saying how they compare.

Machines are shared: what counts is the ratio of medians of blocks that alternate. Each row of a table has what grid
took, what the limit took, their ratio, the range of the ratio over the blocks, and the target.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One case: seconds of ours and of the limit, in blocks that alternated; at most `target` times the limit."""

    name: str
    ours: list[list[float]] = field(default_factory=list)
    limit: list[list[float]] = field(default_factory=list)
    target: float | None = None

    def ratios(self) -> list[float]:
        """Of the medians, block by block."""
        return [
            statistics.median(a) / statistics.median(b) for a, b in zip(self.ours, self.limit, strict=True) if b and a
        ]


def in_turn(
    name: str,
    ours: Callable[[], object],
    limit: Callable[[], object],
    *,
    rounds: int,
    calls: int = 1,
    per: int = 1,
    target: float | None = None,
) -> Row:
    """Time `ours` and `limit` by turns: `rounds` blocks of `calls` each, each call counted as `per`."""
    row = Row(name, target=target)
    for _ in range(rounds):
        for what, blocks in ((ours, row.ours), (limit, row.limit)):
            block = []
            for _ in range(calls):
                began = time.perf_counter()
                what()
                block.append((time.perf_counter() - began) / per)
            blocks.append(block)
    return row


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(question: str, rows: Sequence[Row], *, unit: str = "us") -> None:
    """Print median and 99th percentile of ours and of the limit, their ratio with its range, and the target."""
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
    print(f"\n{question} [{unit}]")
    print(f"  {'case':44} {'grid':>9} {'p99':>9} {'limit':>9} {'p99':>9} {'ratio':>6} {'range':>11} {'target':>7}")
    for row in rows:
        ours, limit = list(itertools.chain(*row.ours)), list(itertools.chain(*row.limit))
        ratios = row.ratios()
        ratio = statistics.median(ratios)
        figures = [statistics.median(ours), quantile(ours, 0.99), statistics.median(limit), quantile(limit, 0.99)]
        cells = " ".join(f"{value * scale:9.4g}" for value in figures)
        verdict = "" if row.target is None else f"{row.target:7.2f} {'ok' if ratio <= row.target else 'MISSED'}"
        print(f"  {row.name:44} {cells} {ratio:6.2f} {min(ratios):5.2f}-{max(ratios):5.2f} {verdict}", flush=True)
