"""Least squares for models that are not linear: Levenberg-Marquardt, and a search from many starting points.

Lives here: the method and the class that runs it on a host. Standard library alone.
Elsewhere:  models and data (`nist_data.py`), spreading fits over a grid (`nist_fits.py`).

Source of the method: J. J. More, The Levenberg-Marquardt algorithm: implementation and theory, Lecture Notes in
Mathematics 630 (1978) 105, for scaling and gain ratio; H. B. Nielsen, IMM-REP-1999-05 (Technical University of
Denmark), for the damping. Two things make for many agreeing digits: derivatives are exact to rounding (complex
steps: f'(b) = Im f(b + ih)/h has no difference that could cancel), and the linear problem is solved by reflections
of the matrix itself, not of its square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

Model = Callable[[Sequence[complex], float], complex]  # (parameters, x) -> y


class Fit(NamedTuple):
    """A minimum that was reached, and how."""

    parameters: list[float]
    rss: float  # sum of squared residuals
    steps: int


def fit(model: Model, x: Sequence[float], y: Sequence[float], start: Sequence[float], most_steps: int = 2000) -> Fit:
    """Descend from `start` until steps get lost in rounding; a poor start may end in a poor minimum."""
    b = [float(value) for value in start]
    here = _residuals(model, x, y, b)
    if here is None:
        return Fit(b, math.inf, 0)
    rss = _square(here)
    scale = [0.0] * len(b)
    damping, factor = 1e-3, 2.0
    for step in range(1, most_steps + 1):
        jacobian = _jacobian(model, x, b)
        if jacobian is None:
            return Fit(b, rss, step)
        scale = [max(old, math.sqrt(_square(column))) for old, column in zip(scale, jacobian, strict=True)]
        while True:
            move = _damped_step(jacobian, here, [math.sqrt(damping) * (s or 1.0) for s in scale])
            b_new = [a + d for a, d in zip(b, move, strict=True)]
            there = _residuals(model, x, y, b_new)
            rss_new = math.inf if there is None else _square(there)
            small = all(abs(d) <= 1e-14 * (abs(a) + 1e-30) for a, d in zip(b, move, strict=True))
            foreseen = _foreseen(jacobian, here, move)
            if rss_new < rss:
                gain = (rss - rss_new) / foreseen if foreseen > 0.0 else 1.0
                damping = max(1e-18, damping * max(0.1, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3))
                factor = 2.0
                b, here, rss = b_new, there, rss_new
                break
            if small or damping > 1e40:
                return Fit(*_polished(model, x, y, b, rss), step)
            damping *= factor
            factor *= 2.0
        if foreseen <= 1e-16 * rss:
            return Fit(*_polished(model, x, y, b, rss), step)
    return Fit(b, rss, most_steps)


def _polished(
    model: Model, x: Sequence[float], y: Sequence[float], b: list[float], rss: float
) -> tuple[list[float], float]:
    """Undamped steps, as long as they get shorter: at the bottom the sum of squares is too flat to steer by."""
    last = math.inf
    for _ in range(20):
        here, jacobian = _residuals(model, x, y, b), _jacobian(model, x, b)
        if here is None or jacobian is None:
            break
        move = _damped_step(jacobian, here, [0.0] * len(b))
        length = max(abs(d) / (abs(a) + 1e-30) for a, d in zip(b, move, strict=True))
        b_new = [a + d for a, d in zip(b, move, strict=True)]
        there = _residuals(model, x, y, b_new)
        if length >= last or there is None or _square(there) > rss * (1.0 + 1e-9):
            break
        b, rss, last = b_new, _square(there), length
    return b, rss


def _residuals(model: Model, x: Sequence[float], y: Sequence[float], b: Sequence[float]) -> list[float] | None:
    """y - model; None where the model can't be computed."""
    try:
        values = [model(b, point) for point in x]
    except (OverflowError, ZeroDivisionError, ValueError):
        return None
    found = [known - value.real for known, value in zip(y, values, strict=True)]
    real = all(abs(value.imag) <= 1e-12 * abs(value) for value in values)  # roots of negative numbers are not
    return found if real and all(map(math.isfinite, found)) else None


def _jacobian(model: Model, x: Sequence[float], b: Sequence[float]) -> list[list[float]] | None:
    """Column by column: the derivatives of the model by each parameter."""
    columns = []
    for k, value in enumerate(b):
        h = 1e-100 * (abs(value) or 1.0)
        point: list[complex] = list(b)
        point[k] = complex(value, h)
        try:
            column = [complex(model(point, place)).imag / h for place in x]
        except (OverflowError, ZeroDivisionError, ValueError):
            return None
        if not all(map(math.isfinite, column)):
            return None
        columns.append(column)
    return columns


def _damped_step(jacobian: list[list[float]], here: list[float], weights: list[float]) -> list[float]:
    """The d that minimises |here - J d|^2 + |weights d|^2, by Householder reflections of J with `weights` below."""
    n = len(jacobian)
    rows = [column + [0.0] * n for column in jacobian]  # each one a column of the matrix
    for k, weight in enumerate(weights):
        rows[k][len(here) + k] = weight
    right = here + [0.0] * n
    diagonal = [0.0] * n
    for k in range(n):
        column = rows[k]
        norm = math.sqrt(_square(column[k:]))
        if norm == 0.0:
            continue  # the parameter has no influence here: leave it alone
        diagonal[k] = -math.copysign(norm, column[k])
        mirror = column[k:]
        mirror[0] -= diagonal[k]
        half = _square(mirror) / 2.0
        for other in (*rows[k + 1 :], right):
            share = _product(mirror, other[k:]) / half
            other[k:] = [a - share * m for a, m in zip(other[k:], mirror, strict=True)]
    move = [0.0] * n
    largest = max(map(abs, diagonal))
    for k in reversed(range(n)):
        if abs(diagonal[k]) > 1e-16 * largest * 1e-4:
            known = sum(rows[j][k] * move[j] for j in range(k + 1, n))
            move[k] = (right[k] - known) / diagonal[k]
    return move


def _foreseen(jacobian: list[list[float]], here: list[float], move: list[float]) -> float:
    """By how much the linear model says that the sum of squares falls."""
    changes = [sum(map(float.__mul__, row, move)) for row in zip(*jacobian, strict=True)]
    return math.fsum(2.0 * r * c - c * c for r, c in zip(here, changes, strict=True))


def _square(values: Sequence[float]) -> float:
    try:
        return math.fsum(map(float.__mul__, values, values))
    except OverflowError:
        return math.inf


def _product(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(float.__mul__, a, b))


def scattered(start: Sequence[float], rng: Random) -> list[float]:
    """A point around `start`: each parameter up to three times as large or small, one in ten with its sign turned."""
    point = []
    for value in start:
        value *= math.exp(rng.uniform(-1.1, 1.1))
        point.append(-value if rng.random() < 0.1 else value)
    return point
