"""Arrays from rank to rank, as the upper-case calls of MPI send them: bytes from buffer to buffer, without pickling.

A buffer is an array, any other object with one contiguous buffer, or what mpi4py takes besides: `[array, type]`,
`[array, count, type]`, and for the calls with a `v` `(array, counts, type)` or `(array, (counts, offsets), type)`.
Counts are of elements.

Lives here: reading those, the calls. Elsewhere: patterns of messages (`collectives`), how a program calls (`comm`).
"""

from __future__ import annotations

from typing import Any

from grid.errors import RankError
from grid.ranks.collectives import Circle, Members, fold
from grid.ranks.lane import KINDS, RAW
from grid.ranks.mailbox import RankLetter
from grid.ranks.post import Payload
from grid.ranks.words import Op

IN_PLACE = "<IN_PLACE>"


class Buffer:
    """Memory that is sent or filled. `counts`, `offsets`: of shares, in elements, if given."""

    def __init__(self, spec: Any, *, writable: bool = False) -> None:
        parts = list(spec) if isinstance(spec, (list, tuple)) else [spec]
        self.array = parts[0]
        layout = next((part for part in parts[1:] if _is_layout(part)), None)
        try:
            view = memoryview(self.array)
            self.itemsize = view.itemsize
            self.bytes = view.cast("B") if view.nbytes else memoryview(bytearray())
        except (TypeError, ValueError) as exc:
            raise RankError(
                f"{type(self.array).__name__} has no contiguous buffer ({exc})",
                hint="Send an array that is contiguous in C order, or use the lower-case call",
            ) from None
        if writable and view.readonly:
            raise RankError("the array to be filled is read-only", hint="Pass a writable one, np.empty(...) say")
        self.counts: list[int] | None = None
        self.offsets: list[int] | None = None
        if isinstance(layout, int):
            self.bytes = self.bytes[: layout * self.itemsize]
        elif layout is not None:
            counts, offsets = layout if _is_layout(layout[0]) and not isinstance(layout[0], int) else (layout, None)
            self.counts = [int(count) for count in counts]
            self.offsets = None if offsets is None else [int(offset) for offset in offsets]

    def payload(self) -> Payload:
        """All of it, to be sent."""
        return Payload(RAW, (self.bytes,))

    def fill(self, letter: Payload | RankLetter) -> int:
        """Take a message in; its length in bytes. RankError: It is longer than the buffer, or no array."""
        return _fill(self.bytes, letter)

    def shares(self, size: int) -> list[memoryview]:
        """Its part for each rank: as told, or equal ones. RankError: It has no such parts."""
        if self.counts is None:
            if len(self.bytes) % size:
                raise RankError(
                    f"an array of {len(self.bytes) // self.itemsize} elements has no equal shares for {size} ranks",
                    hint="Use the call with a v (Scatterv, Gatherv), which takes counts",
                )
            each = len(self.bytes) // size
            return [self.bytes[rank * each : (rank + 1) * each] for rank in range(size)]
        if len(self.counts) != size:
            raise RankError(f"there are {len(self.counts)} counts for {size} ranks", hint="Give one for each rank")
        offsets = self.offsets or [sum(self.counts[:rank]) for rank in range(size)]
        ends = [offset + count for offset, count in zip(offsets, self.counts, strict=True)]
        if max(ends) * self.itemsize > len(self.bytes) or min(*offsets, *self.counts) < 0:
            raise RankError("counts and offsets lead out of the array", hint="They count elements")
        pairs = zip(offsets, ends, strict=True)
        return [self.bytes[first * self.itemsize : end * self.itemsize] for first, end in pairs]


def _is_layout(part: Any) -> bool:
    return isinstance(part, (int, list, tuple)) or (hasattr(part, "__len__") and not isinstance(part, str))


def _fill(target: memoryview, letter: Payload | RankLetter) -> int:
    if letter.kind % KINDS != RAW:
        raise RankError("the message was sent as an object", hint="Receive it with recv, or send it with Send")
    source = memoryview(letter.parts[0]).cast("B") if memoryview(letter.parts[0]).nbytes else memoryview(b"")
    if len(source) > len(target):
        raise RankError(
            f"a message of {len(source)} bytes came, and the array to be filled has {len(target)}",
            hint="Both sides must agree on shape and dtype",
        )
    target[: len(source)] = source
    return len(source)


def bcast(comm: Members, buffer: Any, root: int) -> None:
    """See `Comm.Bcast`."""
    mine = Buffer(buffer, writable=comm.rank != root)
    came = Circle(comm, "Bcast").bcast(mine.payload() if comm.rank == root else None, root)
    if comm.rank != root:
        mine.fill(came)


def scatter(comm: Members, send: Any, receive: Any, root: int) -> None:
    """See `Comm.Scatter`, `Comm.Scatterv`."""
    payloads = None
    if comm.rank == root:
        payloads = [Payload(RAW, (share,)) for share in Buffer(send).shares(comm.size)]
    came = Circle(comm, "Scatter").scatter(payloads, root)
    if not _in_place(receive):
        Buffer(receive, writable=True).fill(came)


def gather(comm: Members, send: Any, receive: Any, root: int) -> None:
    """See `Comm.Gather`, `Comm.Gatherv`."""
    shares = Buffer(receive, writable=True).shares(comm.size) if comm.rank == root else []
    mine = Payload(RAW, (bytes(shares[root]),)) if _in_place(send) else Buffer(send).payload()
    came = Circle(comm, "Gather").gather(mine, root)
    for share, letter in zip(shares, came or (), strict=True):
        _fill(share, letter)


def allgather(comm: Members, send: Any, receive: Any) -> None:
    """See `Comm.Allgather`."""
    whole = Buffer(receive, writable=True)
    shares = whole.shares(comm.size)
    mine = Payload(RAW, (bytes(shares[comm.rank]),)) if _in_place(send) else Buffer(send).payload()
    circle = Circle(comm, "Allgather")
    came = circle.alltoall([mine] * comm.size)
    for share, letter in zip(shares, came, strict=True):
        _fill(share, letter)


def alltoall(comm: Members, send: Any, receive: Any) -> None:
    """See `Comm.Alltoall`."""
    shares = Buffer(receive, writable=True).shares(comm.size)
    mine = [Payload(RAW, (share,)) for share in Buffer(send).shares(comm.size)]
    for share, letter in zip(shares, Circle(comm, "Alltoall").alltoall(mine), strict=True):
        _fill(share, letter)


def reduce(comm: Members, send: Any, receive: Any, op: Op, root: int, call: str = "Reduce") -> None:
    """See `Comm.Reduce`."""
    joined = _joined(Circle(comm, call), _array(receive if _in_place(send) else send), op, root)
    if comm.rank == root:
        Buffer(receive, writable=True).fill(Payload(RAW, (joined,)))


def allreduce(comm: Members, send: Any, receive: Any, op: Op) -> None:
    """See `Comm.Allreduce`: reduced at rank 0, so that all have the same bits."""
    circle = Circle(comm, "Allreduce")
    joined = _joined(circle, _array(receive if _in_place(send) else send), op, 0)
    came = circle.bcast(Payload(RAW, (joined,)) if comm.rank == 0 else None, 0)
    Buffer(receive, writable=True).fill(came)


def _joined(circle: Circle, mine: Any, op: Op, root: int) -> Any:
    came = circle.gather(Payload(RAW, (mine.tobytes(),)), root)
    if came is None:
        return None
    import numpy as np

    values: list[Any] = []
    for letter in came:
        raw = memoryview(letter.parts[0])
        if raw.nbytes != mine.nbytes:
            raise RankError(
                f"arrays of {mine.nbytes} and of {raw.nbytes} bytes can't be reduced", hint="Send the same shape"
            )
        values.append(np.frombuffer(raw, mine.dtype).reshape(mine.shape))
    return np.ascontiguousarray(fold(values, op.of_arrays), mine.dtype).tobytes()


def _array(spec: Any) -> Any:
    try:
        import numpy as np
    except ImportError:
        raise RankError("this host has no NumPy, which reduces arrays", hint="Use the lower-case call") from None
    array = spec[0] if isinstance(spec, (list, tuple)) else spec
    return np.ascontiguousarray(array).reshape(-1)


def _in_place(buffer: Any) -> bool:
    return buffer is None or (isinstance(buffer, str) and buffer == IN_PLACE)
