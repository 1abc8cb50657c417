"""Measuring two things in turn, and saying how they compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def in_turn(ours: Callable[[], None], limit: Callable[[], None], *, rounds: int, calls: int) -> tuple[list[float], ...]:
    """Seconds of each call of `ours` and of `limit`, measured in alternating blocks of `calls`."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for what, kept in ((ours, times[0]), (limit, times[1])):
            for _ in range(calls):
                began = time.perf_counter()
                what()
                kept.append(time.perf_counter() - began)
    return times


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(
    question: str, rows: Sequence[tuple[str, Sequence[float], Sequence[float], float]], *, unit: str = "us"
) -> None:
    """Print median and 99th percentile of ours and of the limit, their ratio, and the target (at most)."""
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
    print(question)
    print(f"  {'case':40} {'grid':>10} {'p99':>10} {'limit':>10} {'p99':>10} {'ratio':>7} {'target':>7}   [{unit}]")
    for name, ours, limit, target in rows:
        ratio = statistics.median(ours) / statistics.median(limit)
        figures = [statistics.median(ours), quantile(ours, 0.99), statistics.median(limit), quantile(limit, 0.99)]
        cells = " ".join(f"{value * scale:10.1f}" for value in figures)
        print(f"  {name:40} {cells} {ratio:7.2f} {target:7.2f}   {'ok' if ratio <= target else 'MISSED'}")
