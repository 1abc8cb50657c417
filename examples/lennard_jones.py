"""One replica of a Lennard-Jones cluster: Monte Carlo at a temperature, and the way down to the nearest minimum.

Lives here: energies, moves, local minimisation. Standard library alone, so that it runs on any host with Python.
Elsewhere:  many replicas and the exchange of their temperatures (`replica_exchange.py`).

Units are reduced: lengths in sigma, energies and temperatures in epsilon. E = sum over pairs of 4 (r^-12 - r^-6).
"""

from __future__ import annotations

import math
from collections import deque
from random import Random
from typing import NamedTuple

# Lowest energies known. Source: D. J. Wales and J. P. K. Doye, J. Phys. Chem. A 101 (1997) 5111, and the Cambridge
# Cluster Database, www-wales.ch.cam.ac.uk/CCD.html.
GLOBAL_MINIMA = {13: -44.326801, 38: -173.928427}

Point = tuple[float, float, float]


class Report(NamedTuple):
    """What one call of `run` or `hop` has to say."""

    energy: float  # of the present state, which decides about exchanges
    acceptance: float  # accepted moves, 0 to 1
    lowest: float  # the deepest minimum that this replica has ever reached


class Replica:
    """A cluster of atoms at one temperature. Published once; every server then goes its own way by its own seed."""

    def __init__(self, atoms: int) -> None:
        self.atoms = atoms
        self.radius = container_radius(atoms)
        self.temperature = 1.0
        self.lowest, self.best = math.inf, []

    def start(self, temperature: float, seed: int) -> float:
        """Draw a random cluster; answer its energy. The same seed gives the same run on every host."""
        self.rng = Random(seed)
        self.temperature = temperature
        self.lowest, self.best = math.inf, []
        points = []
        while len(points) < self.atoms:
            point = _in_sphere(self.rng, self.radius)
            if all(math.dist(point, other) > 0.75 for other in points):
                points.append(point)
        self.points = points
        return energy(points)

    def set_temperature(self, temperature: float) -> None:
        self.temperature = temperature

    def run(self, steps: int, quench: bool = False) -> Report:
        """Metropolis moves of one atom each; then, if asked, look how deep the minimum below us is."""
        accepted = self._move(steps)
        if quench:
            self._note(*minimise(self.points))
        return Report(energy(self.points), accepted / steps, self.lowest)

    def hop(self, steps: int) -> Report:
        """Moves from minimum to minimum: all atoms are shaken, the cluster relaxes, Metropolis decides.

        This is basin hopping. The landscape of minima has the same lowest point but none of the barriers.
        """
        if not self.best:
            self._note(*minimise(self.points))
            self.points = self.best
        here = energy(self.points)
        accepted = 0
        for _ in range(steps):
            there, points = minimise(self._shaken(), gradient_below=1e-2)
            if there < self.lowest + 1e-2:
                there, points = minimise(points)  # all digits, where they may count
            if self._takes(there - here):
                here, self.points = there, points
                accepted += 1
            self._note(there, points)
        return Report(here, accepted / steps, self.lowest)

    def best_points(self) -> list[Point]:
        """The deepest minimum reached so far."""
        return self.best

    def _move(self, steps: int) -> int:
        """`steps` trial moves of random atoms; answers how many were accepted.

        `pairs[i][j]` holds the energy of a pair in units of 4 epsilon: the old energy of an atom is then one sum,
        and only the new one must be computed. A move takes 6 us for 13 atoms.
        """
        random, points = self.rng.random, self.points
        reach = 0.35 * math.sqrt(self.temperature)  # two moves out of five are accepted, at most temperatures
        limit, beta = self.radius**2, 4.0 / self.temperature
        pairs = [_pairs(points, i, point) for i, point in enumerate(points)]
        accepted = 0
        for _ in range(steps):
            i = int(random() * len(points))
            x, y, z = points[i]
            x += reach * (random() - 0.5)
            y += reach * (random() - 0.5)
            z += reach * (random() - 0.5)
            if x * x + y * y + z * z > limit:  # nothing evaporates
                continue
            there = _pairs(points, i, (x, y, z))
            change = beta * (sum(there) - sum(pairs[i]))
            if change <= 0.0 or random() < math.exp(-change):
                points[i] = (x, y, z)
                pairs[i] = there
                for row, value in zip(pairs, there, strict=True):
                    row[i] = value
                there[i] = 0.0
                accepted += 1
        return accepted

    def _takes(self, change: float) -> bool:
        return change <= 0.0 or self.rng.random() < math.exp(-change / self.temperature)

    def _shaken(self) -> list[Point]:
        """All atoms moved a little; those that hardly hold on are put elsewhere on the surface."""
        bonds = [4.0 * sum(_pairs(self.points, i, point)) for i, point in enumerate(self.points)]
        deepest = min(bonds)
        far = max(math.hypot(*point) for point in self.points)
        reach = 0.36
        shaken = []
        for point, bond in zip(self.points, bonds, strict=True):
            if bond > 0.4 * deepest:
                shaken.append(_on_sphere(self.rng, far))
            else:
                shaken.append(tuple(value + reach * (2.0 * self.rng.random() - 1.0) for value in point))
        return shaken

    def _note(self, value: float, points: list[Point]) -> None:
        if value < self.lowest - 1e-9:
            self.lowest, self.best = value, points


def container_radius(atoms: int) -> float:
    """A sphere with room for the compact cluster and a quarter more."""
    return 1.25 * 2 ** (1 / 6) * (0.5 + (3 * atoms / (4 * math.pi * math.sqrt(2))) ** (1 / 3))


def energy(points: list[Point]) -> float:
    return 2.0 * sum(sum(_pairs(points, i, point)) for i, point in enumerate(points))


def minimise(start: list[Point], gradient_below: float = 1e-5, rounds: int = 2000) -> tuple[float, list[Point]]:
    """Walk down to the minimum below `start` by limited-memory BFGS; answer its energy and points, centred.

    Source of the method: J. Nocedal, Math. Comp. 35 (1980) 773; no line search, but steps are bounded and are cut
    where they lead uphill.
    """
    x = [value for point in start for value in point]
    value, slope = _slope(x)
    past: deque[tuple[list[float], list[float], float]] = deque(maxlen=6)
    for _ in range(rounds):
        if _dot(slope, slope) < gradient_below**2 * len(x):
            break
        step = _lbfgs_step(slope, past)
        if _dot(step, slope) > 0.0:  # the memory has gone stale
            past.clear()
            step = _lbfgs_step(slope, past)
        longest = math.sqrt(_dot(step, step))
        scale = min(1.0, 0.4 / longest * math.sqrt(len(x) / 39))
        for _ in range(10):
            x_new = [a + scale * b for a, b in zip(x, step, strict=True)]
            value_new, slope_new = _slope(x_new)
            if value_new <= value + 1e-10:
                break
            scale *= 0.1
        moved = [a - b for a, b in zip(x_new, x, strict=True)]
        turned = [a - b for a, b in zip(slope_new, slope, strict=True)]
        curvature = _dot(moved, turned)
        if curvature > 1e-14:
            past.append((moved, turned, 1.0 / curvature))
        x, value, slope = x_new, value_new, slope_new
    middle = [sum(x[axis::3]) / len(start) for axis in range(3)]
    points = [(x[i] - middle[0], x[i + 1] - middle[1], x[i + 2] - middle[2]) for i in range(0, len(x), 3)]
    return value, points


def _lbfgs_step(slope: list[float], past: deque[tuple[list[float], list[float], float]]) -> list[float]:
    q = slope
    weights = []
    for moved, turned, rho in reversed(past):
        weight = rho * _dot(moved, q)
        weights.append(weight)
        q = [a - weight * b for a, b in zip(q, turned, strict=True)]
    if past:
        _, turned, rho = past[-1]
        scale = 1.0 / (rho * _dot(turned, turned))
    else:
        scale = 0.01 / max(1.0, math.sqrt(_dot(slope, slope)))
    q = [scale * a for a in q]
    for (moved, turned, rho), weight in zip(past, reversed(weights), strict=True):
        other = rho * _dot(turned, q)
        q = [a + (weight - other) * b for a, b in zip(q, moved, strict=True)]
    return [-a for a in q]


def _slope(x: list[float]) -> tuple[float, list[float]]:
    """Energy and its gradient. All pairs of one atom are one pass without names looked up: 0.4 us a pair."""
    xs, ys, zs = x[0::3], x[1::3], x[2::3]
    n = len(xs)
    gx, gy, gz = [0.0] * n, [0.0] * n, [0.0] * n
    total = 0.0
    for i in range(1, n):
        xi, yi, zi = xs[i], ys[i], zs[i]
        fx = fy = fz = 0.0
        for j in range(i):
            dx, dy, dz = xi - xs[j], yi - ys[j], zi - zs[j]
            s = 1.0 / (dx * dx + dy * dy + dz * dz)
            s3 = s * s * s
            total += s3 * (s3 - 1.0)
            f = s * s3 * (1.0 - 2.0 * s3)
            dx *= f
            dy *= f
            dz *= f
            fx += dx
            fy += dy
            fz += dz
            gx[j] -= dx
            gy[j] -= dy
            gz[j] -= dz
        gx[i] += fx
        gy[i] += fy
        gz[i] += fz
    slope = [0.0] * (3 * n)
    slope[0::3], slope[1::3], slope[2::3] = ([24.0 * a for a in axis] for axis in (gx, gy, gz))
    return 4.0 * total, slope


def _pairs(points: list[Point], i: int, point: Point) -> list[float]:
    """r^-12 - r^-6 of `point` with all others, 0 with itself, the atom i."""
    x, y, z = point
    points = points.copy()
    points[i] = (math.inf, 0.0, 0.0)
    return [
        (s := ((dx := a - x) * dx + (dy := b - y) * dy + (dz := c - z) * dz) ** -3) * (s - 1.0) for a, b, c in points
    ]


def _dot(a: list[float], b: list[float]) -> float:
    return math.fsum(map(float.__mul__, a, b)) if len(a) < 3 else sum(map(float.__mul__, a, b))


def _in_sphere(rng: Random, radius: float) -> Point:
    while True:
        point = (rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(-1, 1))
        if math.hypot(*point) <= 1.0:
            return point[0] * radius, point[1] * radius, point[2] * radius


def _on_sphere(rng: Random, radius: float) -> Point:
    x, y, z = (rng.gauss(0.0, 1.0) for _ in range(3))
    scale = radius / math.hypot(x, y, z)
    return x * scale, y * scale, z * scale
