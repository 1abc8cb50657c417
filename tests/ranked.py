"""Programs for ranks that tests run, also on hosts that lack what tests import."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grid.errors import RankError

OTHERS = 2
"""Ranks besides the one that ends."""


def tour(comm: Any) -> dict[str, Any]:
    """Every call once."""
    import numpy as np

    from grid.ranks.words import ANY_SOURCE, MAX, Status

    me, n = comm.rank, comm.size
    right, left = (me + 1) % n, (me - 1) % n
    status = Status()
    told = {
        "ring": comm.sendrecv({"from": me}, right, 7, source=left, recvtag=7, status=status),
        "status": (status.source, status.tag, status.count > 0),
        "bcast": comm.bcast(("a", me) if me == 1 else None, 1),
        "scatter": comm.scatter([i * i for i in range(n)] if me == 0 else None),
        "gather": comm.gather(me, 1),
        "allgather": comm.allgather(me),
        "alltoall": comm.alltoall([(me, i) for i in range(n)]),
        "reduce": comm.reduce(0.1 * (me + 1), root=2),
        "allreduce": comm.allreduce(me, MAX),
        "scan": (comm.scan(me + 1), comm.exscan(me + 1)),
        "code": comm.sendrecv(lambda: me, right, source=left)(),
    }
    comm.barrier()
    requests = [comm.irecv(source=left, tag=tag) for tag in (2, 1)]
    for tag in (1, 2):
        comm.isend(tag, right, tag)
    told["irecv"] = [request.wait() for request in requests]
    comm.send("to myself", me, 3)
    comm.probe(me, 3)
    told["self"] = (comm.iprobe(me, 3), comm.recv(source=me), comm.iprobe(ANY_SOURCE, 3))

    whole = np.arange(4.0) * (me + 1)
    summed = np.empty(4)
    comm.Allreduce(whole, summed)
    got = np.empty(4)
    comm.Sendrecv(whole, right, 0, got, left, 0)
    part = np.empty(me + 1)
    counts = ([1, 2, 3], [0, 1, 3])
    comm.Scatterv((np.arange(6.0), counts) if me == 0 else None, part)
    back = np.zeros(6)
    comm.Gatherv(part * 10, (back, counts), root=0)
    comm.Bcast(summed, 2)
    told["arrays"] = (summed.tolist(), got.tolist(), part.tolist(), back.tolist() if me == 0 else None)
    large = comm.sendrecv(np.full(500_000, me), right, source=left)
    large[0] = 5  # writable, and ours
    told["large"] = (large.nbytes, int(large[1]))
    half = comm.Split(me % 2, -me)
    told["split"] = (half.rank, half.allgather(me))
    return told


WAITS: dict[str, Callable[[Any], Any]] = {
    "recv": lambda comm: comm.recv(source=OTHERS),
    "probe": lambda comm: comm.probe(OTHERS),
    "barrier": lambda comm: comm.barrier(),
    "bcast": lambda comm: comm.bcast(None, OTHERS),
    "gather": lambda comm: comm.gather(1, 0) if comm.rank == 0 else comm.recv(source=OTHERS),
    "scatter": lambda comm: comm.scatter(None, OTHERS),
    "allgather": lambda comm: comm.allgather(1),
    "alltoall": lambda comm: comm.alltoall([1] * comm.size),
    "reduce": lambda comm: comm.reduce(1) if comm.rank == 0 else comm.recv(source=OTHERS),
    "allreduce": lambda comm: comm.allreduce(1),
    "split": lambda comm: comm.Split(0),
    "Bcast": lambda comm: comm.Bcast(bytearray(8), OTHERS),
}


def ends_within(comm: Any, which: str, how: str, place: str) -> Any:
    """The last rank ends, the others are in a call and write down what they are told."""
    ready = [comm.recv(source=rank) for rank in range(OTHERS)] if comm.rank == OTHERS else comm.send(1, OTHERS)
    if ready is not None:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "raises":
            raise KeyError("mine")
        return "early"
    try:
        return WAITS[which](comm)
    except RankError as exc:
        Path(place, str(comm.rank)).write_text(json.dumps([type(exc).__name__, exc.rank, str(exc)]))
        raise


def across(comm: Any) -> Any:
    import socket

    import numpy as np

    other = comm.size - 1 - comm.rank
    got = comm.sendrecv(("small", comm.rank), other, 1, source=other, recvtag=1)
    large = comm.sendrecv(np.full(300_000, comm.rank + 0.5), other, 2, source=other, recvtag=2)
    summed = np.empty(3)
    comm.Allreduce(np.arange(3.0) * (comm.rank + 1), summed)
    for count in range(200):
        comm.send(count, other, 3)
    assert [comm.recv(source=other, tag=3) for _ in range(200)] == list(range(200))
    comm.barrier()
    return got, float(large.sum()), summed.tolist(), comm.allgather(socket.gethostname())


def chatter(comm: Any) -> int:
    if comm.rank == 0:
        comm.send(b"x" * 100, 1, 77)
    return int(comm.rank)


def wrong(comm: Any) -> list[str]:
    told = []
    for attempt in (
        lambda: comm.send(1, 5),
        lambda: comm.send(1, 0, -3),
        lambda: comm.bcast(1, 9),
        lambda: comm.alltoall([1]),
    ):
        try:
            attempt()
        except RankError as exc:
            told.append(str(exc))
    return told


def crossed(comm: Any) -> Any:
    return comm.gather(1, 1) if comm.rank else comm.bcast(1, 0)


def wait_for_nobody(comm: Any) -> Any:
    return comm.recv()


def waits(comm: Any) -> Any:
    comm.barrier()
    return comm.recv(source=1 - comm.rank)
