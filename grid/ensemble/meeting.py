"""Which replicas exchange, when each comes at its own time: no barrier, each waits for one neighbour only.

A replica that comes finds a neighbour waiting, and the two may exchange and go on; or it waits for the first of its
neighbours to come. Two neighbours never both wait, so somebody always runs, and the whole never stops. If both
neighbours of a replica wait, it takes the side that it did not meet last.

Lives here: the rule. Pure: replicas come in, and those that may go on come out. Elsewhere: calls (`ensemble`).
"""

from __future__ import annotations

from typing import Any

from grid.ensemble.exchange import Exchange


class Meeting:
    """See the module. `waiting`: replica -> its report."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.waiting: dict[int, Any] = {}
        self.finished: set[int] = set()
        self._met_above: dict[int, bool] = {}

    def _neighbours(self, replica: int) -> list[int]:
        """The replicas on the rung below and on the one above, without those that have finished."""
        rung = self._exchange.rung[replica]
        rungs = [near for near in (rung - 1, rung + 1) if 0 <= near < len(self._exchange.rung)]
        return [other for other in map(self._exchange.holder, rungs) if other not in self.finished]

    def come(self, replica: int, report: Any) -> list[int]:
        """A replica has walked its stretch; returns those that may go on now, with `Exchange.parameter` of each."""
        exchange, near = self._exchange, self._neighbours(replica)
        there = [other for other in near if other in self.waiting]
        if not there:
            if not near:
                return [replica]
            self.waiting[replica] = report
            return []
        last_above = self._met_above.get(replica)
        partner = next((o for o in there if (exchange.rung[o] > exchange.rung[replica]) != last_above), there[0])
        reports = {replica: report, partner: self.waiting.pop(partner)}
        low, high = sorted((replica, partner), key=exchange.rung.__getitem__)
        rung = exchange.rung[low]
        exchange.attempt(rung, reports[low], reports[high])
        for other in (replica, partner):  # seen from where it stands now
            self._met_above[other] = exchange.rung[other] == rung
        return [replica, partner]

    def finish(self, replica: int) -> list[int]:
        """A replica will not come again; returns those that waited for it in vain, and may go on."""
        self.finished.add(replica)
        self.waiting.pop(replica, None)
        alone = [other for other in self.waiting if not self._neighbours(other)]
        for other in alone:
            del self.waiting[other]
        return alone
