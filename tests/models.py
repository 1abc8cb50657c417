"""Functions that the libraries in `edges/test_home_libraries.py` sample, minimise and fit.

In a module of their own, which travels to hosts that have neither pytest nor the libraries of the tests. Pure Python,
so that every machine gets the same bits.
"""

from __future__ import annotations

from typing import Any


def log_probability(x: Any) -> float:
    """A Gaussian valley around (1, -0.5)."""
    u, v = float(x[0]) - 1.0, float(x[1]) + 0.5
    return -0.5 * (u * u + 4.0 * v * v + u * v)


def prior(cube: Any) -> Any:
    """The unit square to [-5, 5] squared."""
    return 10.0 * cube - 5.0


def banana(x: Any) -> float:
    """Rosenbrock's function; 0 at (1, 1)."""
    a, b = float(x[0]), float(x[1])
    return 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2


def line(x: Any, m: float, b: float) -> Any:
    """A straight line."""
    return m * x + b
