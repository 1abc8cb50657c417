"""Replica exchange of IMP over ranks, without MPI.

    # model.py, run by: grid run --hosts node1,node2 --ranks 8 model.py
    from grid.compat.imp import ReplicaExchange
    macro = IMP.pmi.macros.ReplicaExchange(model, ..., replica_exchange_object=ReplicaExchange())
    macro.execute_macro()

Each rank runs the whole script, as under `mpirun`, and has one replica. The macros of IMP.pmi take any object with the
ten methods of `IMP.mpi.ReplicaExchange`; this is one. They are written after the documentation of that class.

Replicas keep their coordinates and exchange their parameters (temperatures, say). A replica's *index* says which
parameters it has now; its rank never changes. In even steps the indices 0-1, 2-3, ... try to exchange, in odd steps
1-2, 3-4, ..., and the last with the first.

Lives here: `ReplicaExchange`. Elsewhere: the communicator (`ranks/comm.py`), ensembles of our own (`ensemble/`).
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from typing import Any

from grid.errors import RankError


class ReplicaExchange:
    """See the module.

    Args:
        comm: The communicator, as `g.ranks` gives it to a program; default: that of `grid run --ranks`. Without ranks
            there is one replica, and nothing is exchanged.
        seed: Of the random numbers that decide; the same on all ranks. Default: drawn by rank 0.
    Raises:
        RankError: The number of ranks is odd and not 1: the last would have nobody to exchange with.
    """

    def __init__(self, comm: Any = None, seed: int | None = None) -> None:
        if comm is None and "mpi4py.MPI" in sys.modules:
            comm = sys.modules["mpi4py.MPI"].COMM_WORLD
        self._comm = comm
        self._rank: int = 0 if comm is None else comm.rank
        self._size: int = 1 if comm is None else comm.size
        if self._size % 2 and self._size > 1:
            raise RankError(
                f"replica exchange needs an even number of ranks, not {self._size}",
                hint=f"Say --ranks {self._size + 1}, or {self._size - 1}",
            )
        if self._size > 1:
            seed = comm.bcast(random.randrange(2**62) if seed is None else seed)
        self._random = random.Random(seed)
        self._indices = list(range(self._size))  # of each rank
        self._exchanges = [0] * (self._size - 1)
        self._parameters: dict[str, list[float]] = {}
        self._was_used = False

    def get_number_of_replicas(self) -> int:
        """One for each rank."""
        return self._size

    def create_temperatures(self, tmin: float, tmax: float, nrep: int) -> list[float]:
        """A geometric ladder from `tmin` to `tmax`, `nrep` numbers; of one replica `tmin` alone.

        Raises:
            ValueError: A temperature is not above 0.
        """
        if not (tmin > 0 and tmax > 0):
            raise ValueError(f"temperatures must be above 0, not {tmin!r} and {tmax!r}")
        if self._size == 1 or nrep < 2:
            return [float(tmin)]
        return [tmin * math.exp(math.log(tmax / tmin) * at / (nrep - 1)) for at in range(nrep)]

    def get_my_index(self) -> int:
        """Which parameters this replica has now: 0 are those that index 0 began with."""
        return self._indices[self._rank]

    def set_my_parameter(self, key: str, values: Sequence[float]) -> None:
        """Give this replica parameters of a name."""
        self._parameters[key] = list(values)

    def get_my_parameter(self, key: str) -> list[float]:
        """What this replica has now.

        Raises:
            KeyError: Nobody has set it.
        """
        return list(self._parameters[key])

    def get_friend_index(self, step: int) -> int:
        """The index with which this replica's may change places in that step."""
        mine = self.get_my_index()
        if self._size == 1:
            return mine
        return (mine + (1 if mine % 2 == step % 2 else -1)) % self._size

    def get_friend_parameter(self, key: str, findex: int) -> list[float]:
        """What the replica of that index has. That one asks for ours at the same time."""
        friend = self._rank_of(findex)
        mine = self.get_my_parameter(key)
        if friend == self._rank:
            return mine
        return list(self._comm.sendrecv(mine, dest=friend, source=friend))

    def do_exchange(self, myscore: float, fscore: float, findex: int) -> bool:
        """Exchange parameters and indices with the replica of that index, or not; whether it was done.

        All replicas call it in each step. The rule is that of Metropolis: with probability
        min(1, exp(sum over both of myscore - fscore)).

        Args:
            myscore: The score of this replica's configuration with its own parameters, over kT.
            fscore: The score of the same configuration with the friend's.
        """
        if self._size == 1:
            return False
        friend = self._rank_of(findex)
        # Every rank draws, for each pair one number: all have drawn as many, and both of a pair the same.
        drawn = [self._random.random() for _ in range(self._size)]
        gains = self._comm.allgather((float(myscore) - float(fscore), friend))
        for rank, (_, other) in enumerate(gains):  # each rank looks at all, so that none waits for one that has raised
            if gains[other][1] != rank:
                raise RankError(
                    f"rank {rank} exchanges with rank {other}, which exchanges with rank {gains[other][1]}",
                    hint="All replicas must take get_friend_index of the same step",
                )
        accepted = {
            rank
            for rank, (gain, other) in enumerate(gains)
            if rank != other and self._is_accepted(gain + gains[other][0], drawn[min(rank, other)])
        }
        before = self._indices
        self._indices = [before[gains[rank][1]] if rank in accepted else before[rank] for rank in range(self._size)]
        for rank in accepted:
            low, high = sorted((before[rank], before[gains[rank][1]]))
            if rank < gains[rank][1] and high - low == 1:
                self._exchanges[low] += 1
        if self._rank not in accepted:
            return False
        # Scores tell all ranks who has which index now; parameters, which may be large, concern the pair alone.
        theirs = self._comm.sendrecv(self._parameters, dest=friend, source=friend)
        self._parameters = {key: list(values) for key, values in theirs.items()}
        return True

    def get_exchange_array(self) -> list[int]:
        """How often the indices n and n + 1 have changed places, for each n."""
        return list(self._exchanges)

    def set_was_used(self, status: bool) -> None:
        """A macro notes that it has used this object."""
        self._was_used = bool(status)

    def get_was_used(self) -> bool:
        """What was noted."""
        return self._was_used

    @staticmethod
    def _is_accepted(gain: float, drawn: float) -> bool:
        return gain >= 0 or drawn < math.exp(gain)

    def _rank_of(self, index: int) -> int:
        if index not in self._indices:
            raise RankError(f"there is no replica of index {index!r}", hint=f"They are 0 to {self._size - 1}")
        return self._indices.index(index)

    def __reduce__(self) -> Any:
        raise TypeError("a replica exchange belongs to its ranks and can't be sent")
