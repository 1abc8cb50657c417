"""A small class that both sides can import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Particle:
    """A position and a kind."""

    x: float
    y: int
