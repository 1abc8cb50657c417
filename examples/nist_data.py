"""Sets of data with certified answers, from NIST's Statistical Reference Datasets (StRD), and their models.

Lives here: the data as objects, the models, and the object that is published. Standard library alone.
Elsewhere:  the figures and their source (`nist_strd.json`), the method (`least_squares.py`).
"""

from __future__ import annotations

import json
from cmath import cos, exp, pi, sin
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10
from pathlib import Path
from random import Random

from least_squares import Fit, Model, fit, scattered


@dataclass(frozen=True)
class DataSet:
    """Measurements, where a fit shall start, and what it shall find."""

    name: str
    formula: str
    about: str
    starts: list[list[float]]
    certified: list[float]
    deviations: list[float]
    rss: float
    x: list[float]
    y: list[float]

    @property
    def model(self) -> Model:
        return MODELS[self.name]

    def fit(self, start: list[float], most_steps: int = 2000) -> Fit:
        found = fit(self.model, self.x, self.y, start, most_steps)
        canonical = CANONICAL.get(self.name)
        return found._replace(parameters=canonical(found.parameters)) if canonical else found


class Fitter:
    """Fits any of the data sets. Published once: the data travel once, and a call carries a name and a start."""

    def __init__(self, sets: dict[str, DataSet]) -> None:
        self.sets = sets

    def fit(self, name: str, start: list[float]) -> Fit:
        return self.sets[name].fit(start)

    def search(self, name: str, start: list[float], tries: int, seed: str) -> list[Fit]:
        """Fit from `tries` random points around `start`. The same seed draws the same points on any host."""
        data, rng = self.sets[name], Random(seed)
        return [data.fit(scattered(start, rng), most_steps=200) for _ in range(tries)]


def load() -> dict[str, DataSet]:
    text = Path(__file__).with_name("nist_strd.json").read_text(encoding="utf-8")
    sets = json.loads(text)["sets"]
    return {name: DataSet(name=name, **_as_floats(fields)) for name, fields in sets.items()}


def agreeing_digits(found: float, certified: float) -> float:
    """How many digits are right: -log10 of the relative error, at most 11, as many as are certified."""
    error = abs(found - certified) / abs(certified)
    return 0.0 if not isfinite(error) or error >= 1.0 else min(11.0, -log10(max(error, 1e-11)))


def _cubic_by_cubic(b: Sequence[complex], x: float) -> complex:
    return (b[0] + x * (b[1] + x * (b[2] + x * b[3]))) / (1.0 + x * (b[4] + x * (b[5] + x * b[6])))


def _cycles(b: Sequence[complex], x: float) -> complex:
    value = b[0]
    for period, even, odd in ((12.0, b[1], b[2]), (b[3], b[4], b[5]), (b[6], b[7], b[8])):
        angle = 2.0 * pi * x / period
        value += even * cos(angle) + odd * sin(angle)
    return value


# Functions of cmath throughout: the fit takes its derivatives by complex steps.
MODELS: dict[str, Model] = {
    "BoxBOD": lambda b, x: b[0] * (1.0 - exp(-b[1] * x)),
    "ENSO": _cycles,
    "Eckerle4": lambda b, x: b[0] / b[1] * exp(-0.5 * ((x - b[2]) / b[1]) ** 2),
    "Hahn1": _cubic_by_cubic,
    "MGH09": lambda b, x: b[0] * (x * x + b[1] * x) / (x * x + b[2] * x + b[3]),
    "MGH17": lambda b, x: b[0] + b[1] * exp(-b[3] * x) + b[2] * exp(-b[4] * x),
    "Rat43": lambda b, x: b[0] / (1.0 + exp(b[1] - b[2] * x)) ** (1.0 / b[3]),
    "Thurber": _cubic_by_cubic,
}


def _eckerle4_one_of_two(b: list[float]) -> list[float]:
    return b if b[1] > 0 else [-b[0], -b[1], b[2]]  # the width counts squared


def _enso_one_of_many(b: list[float]) -> list[float]:
    """A period may be negative, with its sine turned; and the two cycles may stand in either order."""
    cycles = [(p, even, odd) if p > 0 else (-p, even, -odd) for p, even, odd in (b[3:6], b[6:9])]
    (p1, even1, odd1), (p2, even2, odd2) = sorted(cycles, reverse=True)
    return [*b[:3], p1, even1, odd1, p2, even2, odd2]


def _mgh17_one_of_two(b: list[float]) -> list[float]:
    return b if b[3] < b[4] else [b[0], b[2], b[1], b[4], b[3]]  # the slower decay first


# Parameters that give the same curve, brought into the form that is certified.
CANONICAL = {"ENSO": _enso_one_of_many, "Eckerle4": _eckerle4_one_of_two, "MGH17": _mgh17_one_of_two}


def _as_floats(value):
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) else value
