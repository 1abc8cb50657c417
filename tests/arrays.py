"""What needs NumPy on its host: apart from `models`, for a host must have all that a module imports anywhere in it."""

from __future__ import annotations


class Sum:
    """Needs NumPy on its host."""

    def __init__(self) -> None:
        import numpy

        self.values = numpy.arange(4.0)

    def total(self) -> float:
        """6.0."""
        return float(self.values.sum())
