"""Replicas that walk side by side and exchange: parallel tempering, umbrella windows, islands of populations.

    with Ensemble(g, service_id, temperatures, rng=Random(1)) as ensemble:
        for number in range(rounds):
            reports = ensemble.each("run", lambda replica: (steps,))
            ensemble.exchange([report.energy for report in reports], first=number % 2)

Lives here: `exchange` (who has which rung, acceptance: pure), `meeting` (who meets whom without a barrier: pure),
            `streams` (random numbers of replicas: pure), `ensemble` (the replicas on their servers).
Elsewhere:  what a replica is: an object of yours.
"""

from grid.ensemble.ensemble import Ensemble
from grid.ensemble.exchange import Exchange, geometric, tempering
from grid.ensemble.meeting import Meeting
from grid.ensemble.streams import stream_seeds, streams

__all__ = ["Ensemble", "Exchange", "Meeting", "geometric", "stream_seeds", "streams", "tempering"]
