"""Maps of phi and psi: which region a pair of angles is in, how populated regions are, and a picture as SVG.

Lives here: regions, shares with errors, the drawing. Pure, standard library alone. Angles in degrees, -180 to 180.
Elsewhere:  where the angles come from (`alanine_dipeptide.py`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

Angles = tuple[float, float]
REGIONS = ("alpha", "beta", "left")
BIN = 10  # degrees
BLOCKS = 5  # parts of a run that an error is taken from
SIDE, GAP = 216, 54  # of a map, and between maps, in pixels


def region(phi: float, psi: float) -> str:
    """alpha: right-handed helix; beta: extended, with polyproline II; left: phi from 0 up. No gaps."""
    if phi >= 0.0:
        return "left"
    return "alpha" if -120.0 <= psi < 50.0 else "beta"


def share(rounds: Sequence[Sequence[Angles]], name: str) -> tuple[float, float]:
    """Share of a region, and its standard error from BLOCKS parts of the run (nan where there are fewer rounds).

    Parts that are shorter than what the peptide takes to change its region make the error too small.
    """
    inside = [sum(region(*pair) == name for pair in pairs) / len(pairs) for pairs in rounds]
    mean = math.fsum(inside) / len(inside)
    if len(inside) < BLOCKS:
        return mean, math.nan
    edges = [len(inside) * block // BLOCKS for block in range(BLOCKS + 1)]
    parts = [math.fsum(inside[a:b]) / (b - a) for a, b in pairwise(edges)]
    middle = math.fsum(parts) / BLOCKS
    return mean, math.sqrt(math.fsum((part - middle) ** 2 for part in parts) / (BLOCKS * (BLOCKS - 1)))


def svg(maps: Sequence[tuple[str, Sequence[Angles]]], title: str, columns: int = 4) -> str:
    """A map for each (heading, angles): bins of 10 degrees, the darker the more populated, by their logarithm."""
    columns = min(columns, len(maps))
    lines = -(-len(maps) // columns)
    width, height = GAP + columns * (SIDE + GAP), GAP + lines * (SIDE + GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="11" text-anchor="middle">',
        f"<title>{_escaped(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{width / 2:g}" y="18" font-size="14">{_escaped(title)}</text>',
    ]
    for number, (heading, angles) in enumerate(maps):
        line, column = divmod(number, columns)
        parts += _map(heading, angles, GAP + column * (SIDE + GAP), GAP + line * (SIDE + GAP))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _map(heading: str, angles: Sequence[Angles], left: int, top: int) -> list[str]:
    counts = Counter((_bin(phi), _bin(psi)) for phi, psi in angles)
    most = math.log1p(max(counts.values(), default=1))
    cell = SIDE * BIN / 360
    parts = [f'<g transform="translate({left} {top})">', f'<text x="{SIDE / 2:g}" y="-6">{_escaped(heading)}</text>']
    for (across, up), count in sorted(counts.items()):
        depth = math.log1p(count) / most
        colour = f"rgb({215 - 190 * depth:.0f},{228 - 165 * depth:.0f},{245 - 110 * depth:.0f})"
        x, y = across * cell, SIDE - (up + 1) * cell
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="{cell:g}" height="{cell:g}" fill="{colour}"/>')
    borders = [(0, -180, 0, 180), (-180, -120, 0, -120), (-180, 50, 0, 50)]
    for phi, psi, to_phi, to_psi in borders:
        ends = f'x1="{_x(phi):g}" y1="{_y(psi):g}" x2="{_x(to_phi):g}" y2="{_y(to_psi):g}"'
        parts.append(f'<line {ends} stroke="#999" stroke-dasharray="3 3"/>')
    for name, phi, psi in (("α", -165, -35), ("β", -165, 155), ("left", 150, 155)):
        parts.append(f'<text x="{_x(phi):g}" y="{_y(psi):g}" fill="#a33">{name}</text>')
    for angle in (-180, -90, 0, 90, 180):
        parts.append(f'<text x="{_x(angle):g}" y="{SIDE + 14}">{angle}</text>')
        parts.append(f'<text x="-4" y="{_y(angle) + 4:g}" text-anchor="end">{angle}</text>')
    parts.append(f'<text x="{SIDE / 2:g}" y="{SIDE + 28}">φ</text>')
    parts.append(f'<text x="-38" y="{SIDE / 2 + 4:g}">ψ</text>')
    parts += [f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="black"/>', "</g>"]
    return parts


def _bin(angle: float) -> int:
    return min(360 // BIN - 1, int((angle + 180.0) // BIN))


def _x(phi: float) -> float:
    return (phi + 180) * SIDE / 360


def _y(psi: float) -> float:
    return (180 - psi) * SIDE / 360


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
