"""Calls that all ranks make together, over messages from rank to rank.

A broadcast and a barrier take log2(n) steps; what is gathered comes to one rank in the order of ranks, so that a
reduction has the same value in every run. Messages of the k-th such call carry k as their tag and the call's number, so
that ranks which are in different calls are told, where their messages meet.

Lives here: `Circle` (one such call), the patterns. Elsewhere: what is sent (`comm`: objects, `arrays`: buffers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from grid.errors import RankError
from grid.ranks.lane import KINDS
from grid.ranks.mailbox import RankLetter
from grid.ranks.post import Payload, Post

CALLS = (
    *("", "barrier", "bcast", "gather", "scatter", "allgather", "alltoall", "reduce", "allreduce", "scan", "exscan"),
    *("Barrier", "Bcast", "Gather", "Scatter", "Allgather", "Alltoall", "Reduce", "Allreduce", "Split"),
)
_NOTHING = Payload(0, (b"",))


class Members(Protocol):
    """A communicator, as far as its collective calls know it."""

    rank: int
    size: int
    _post: Post
    _context: bytes

    @property
    def _group(self) -> Sequence[int]: ...
    def _next_call(self) -> int: ...


class Circle:
    """One collective call of a communicator. Ranks count within it."""

    def __init__(self, comm: Members, call: str) -> None:
        self.rank, self.size = comm.rank, comm.size
        self._post, self._group = comm._post, comm._group
        self._context, self._tag = comm._context + b"!", comm._next_call()
        self._name, self._call = call, CALLS.index(call)

    def send(self, to: int, payload: Payload | RankLetter) -> None:
        """To one rank."""
        kind = payload.kind % KINDS
        self._post.send(self._context, self._group[to], self._tag, Payload(kind, payload.parts), self._call)

    def receive(self, source: int) -> RankLetter:
        """From one rank."""
        sender = self._group[source]
        wanted = self._post.want(self._context, sender, self._tag, (sender,))
        letter = self._post.wait(wanted, f"waits for it in {self._name}")
        theirs = CALLS[letter.kind // KINDS]
        if theirs != self._name:
            raise RankError(
                f"{self._post.place(self._post.rank)} is in {self._name}, and {self._post.place(sender)} in {theirs}",
                hint="All ranks must make the same collective calls in the same order",
            )
        return letter

    def check_root(self, root: int) -> None:
        """RankError: There is no such rank."""
        if not 0 <= root < self.size:
            raise RankError(f"{self._name} has the root {root}, and there are {self.size} ranks", hint="Count from 0")

    # -- patterns --------------------------------------------------------------------------------------------------

    def bcast(self, payload: Payload | RankLetter | None, root: int) -> Payload | RankLetter:
        """From the root to all, as a binomial tree."""
        self.check_root(root)
        me = (self.rank - root) % self.size
        step = 1
        while step < self.size:
            if me & step:
                payload = self.receive((me - step + root) % self.size)
                break
            step <<= 1
        assert payload is not None
        step >>= 1
        while step:
            if me + step < self.size:
                self.send((me + step + root) % self.size, payload)
            step >>= 1
        return payload

    def gather(self, payload: Payload, root: int) -> list[Payload | RankLetter] | None:
        """From all to the root, in the order of ranks."""
        self.check_root(root)
        if self.rank != root:
            self.send(root, payload)
            return None
        return [payload if rank == root else self.receive(rank) for rank in range(self.size)]

    def scatter(self, payloads: Sequence[Payload] | None, root: int) -> Payload | RankLetter:
        """One to each, from the root."""
        self.check_root(root)
        if self.rank != root:
            return self.receive(root)
        assert payloads is not None
        for rank in range(self.size):
            if rank != root:
                self.send(rank, payloads[rank])
        return payloads[root]

    def alltoall(self, payloads: Sequence[Payload]) -> list[Payload | RankLetter]:
        """One from each to each."""
        for shift in range(1, self.size):
            to = (self.rank + shift) % self.size
            self.send(to, payloads[to])
        return [payloads[rank] if rank == self.rank else self.receive(rank) for rank in range(self.size)]

    def barrier(self) -> None:
        """Until all are here: in step k each waits for the one 2**k before it."""
        step = 1
        while step < self.size:
            self.send((self.rank + step) % self.size, _NOTHING)
            self.receive((self.rank - step) % self.size)
            step <<= 1


def fold(values: Sequence[Any], op: Callable[[Any, Any], Any]) -> Any:
    """Join values from the left."""
    joined = values[0]
    for value in values[1:]:
        joined = op(joined, value)
    return joined
