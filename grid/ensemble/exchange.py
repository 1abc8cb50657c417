"""Which replica has which rung of a ladder of parameters, and the rule by which two neighbours exchange.

Parameters are exchanged and not states: a few bytes. A replica wanders over the ladder, its server stays.

Lives here: the rungs, Metropolis' rule, what was tried and accepted. Pure: chance is an argument.
Elsewhere:  telling the servers (`ensemble`), when to try without a barrier (`meeting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Chance(Protocol):
    """`random.Random` and `numpy.random.Generator` are both."""

    def random(self) -> float:
        """A number from 0 up to 1, without 1."""
        ...


Rule = Callable[[Any, Any, Any, Any], float]
"""(parameter of a rung, that of the next, report of the replica on the first, on the next) -> log(ratio)."""


def tempering(low: float, high: float, energy_low: float, energy_high: float) -> float:
    """Logarithm of the ratio of probabilities after and before two temperatures are exchanged.

    Source: R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986) 2607.
    """
    return (1 / low - 1 / high) * (energy_low - energy_high)


def geometric(first: float, last: float, rungs: int) -> list[float]:
    """`rungs` values from `first` to `last`, each the same factor above the one before."""
    factor: float = (last / first) ** (1.0 / max(1, rungs - 1))
    return [first * factor**rung for rung in range(rungs)]


class Exchange:
    """The ladder: `rung[i]` belongs to replica i; `tried[r]` and `made[r]` count exchanges of rungs r and r + 1.

    Args:
        parameters: One for each rung, as many as there are replicas.
        rng: Decides; the same one gives the same exchanges.
        rule: Logarithm of the gain of an exchange, see `Rule`; default: `tempering`, reports being energies.
    """

    def __init__(self, parameters: Sequence[Any], rng: Chance, rule: Rule = tempering) -> None:
        self.parameters, self.rng, self.rule = list(parameters), rng, rule
        self.rung = list(range(len(self.parameters)))
        self.tried = [0] * len(self.parameters)
        self.made = [0] * len(self.parameters)
        self.round_trips = [0] * len(self.parameters)
        """How often each replica has been to the last rung and back at the first: whether the ladder mixes."""
        self._on_way_back = [False] * len(self.parameters)

    def holder(self, rung: int) -> int:
        """The replica that has a rung."""
        return self.rung.index(rung)

    def parameter(self, replica: int) -> Any:
        """The present parameter of a replica."""
        return self.parameters[self.rung[replica]]

    def attempt(self, low: int, report_low: Any, report_high: Any) -> bool:
        """Try to exchange rungs `low` and `low + 1`; whether they were.

        Accepted with probability min(1, exp(gain)), which leaves the distribution on every rung as it is.
        """
        gain = self.rule(self.parameters[low], self.parameters[low + 1], report_low, report_high)
        self.tried[low] += 1
        if not (gain >= 0.0 or self.rng.random() < math.exp(gain)):
            return False
        self.made[low] += 1
        a, b = self.holder(low), self.holder(low + 1)
        self.rung[a], self.rung[b] = low + 1, low
        for replica in (a, b):
            if self.rung[replica] == len(self.rung) - 1:
                self._on_way_back[replica] = True
            elif self.rung[replica] == 0 and self._on_way_back[replica]:
                self._on_way_back[replica] = False
                self.round_trips[replica] += 1
        return True

    def swap(self, reports: Sequence[Any], first: int) -> None:
        """Try rungs in pairs (first, first + 1), (first + 2, first + 3), ...; `reports[i]` is replica i's."""
        holder = sorted(range(len(self.rung)), key=self.rung.__getitem__)
        for low in range(first, len(holder) - 1, 2):
            self.attempt(low, reports[holder[low]], reports[holder[low + 1]])

    def acceptance(self) -> list[float | None]:
        """Share of accepted exchanges between each rung and the next; None where none was tried."""
        pairs = zip(self.made, self.tried, strict=True)
        return [made / tried if tried else None for made, tried in pairs][:-1]

    def share(self) -> float:
        """Of all that were tried, 0 to 1."""
        return sum(self.made) / max(1, sum(self.tried))
