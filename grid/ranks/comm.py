"""The communicator of a program's ranks, with the names that mpi4py gives them.

    def main(comm):
        part = comm.scatter(parts if comm.rank == 0 else None)
        return comm.allreduce(sum(part))

Lower-case calls send any object that grid can send, upper-case ones arrays, from buffer to buffer. A message counts as
sent once it is on its way: `send` does not wait for its receiver. One thread of a rank calls at a time.

Lives here: `Comm`. Elsewhere: messages (`post`), patterns (`collectives`), arrays (`arrays`), constants (`words`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from grid.errors import RankError
from grid.ranks import arrays
from grid.ranks.collectives import Circle, fold
from grid.ranks.mailbox import RankLetter
from grid.ranks.post import Post
from grid.ranks.requests import RankRequest
from grid.ranks.words import ANY_SOURCE, ANY_TAG, PROC_NULL, SUM, TAG_UB, UNDEFINED, Op, Status


class Comm:
    """See the module. `rank` counts from 0 to `size` - 1.

    Raises (all calls):
        RankLost, RankFailed: Another rank is lost, or its program raised. RankReturned: Those who should write have
            returned. RankError: A rank, a tag or a buffer that can't be.
    """

    def __init__(self, post: Post, group: Sequence[int], context: bytes = b"") -> None:
        self._post, self._group, self._context = post, list(group), context
        self.rank, self.size = self._group.index(post.rank), len(self._group)
        self._calls = self._splits = 0

    def Get_rank(self) -> int:
        """The number of this rank."""
        return self.rank

    def Get_size(self) -> int:
        """How many ranks there are."""
        return self.size

    def _next_call(self) -> int:
        self._calls += 1
        return self._calls

    # -- from rank to rank -----------------------------------------------------------------------------------------

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object. It is pickled before `send` returns."""
        if (to := self._other(dest, "dest", tag)) is not None:
            self._post.send(self._context, to, tag, self._post.pack(obj))

    ssend = bsend = send

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Wait for an object. `buf` is not used; `status` is told where it came from."""
        return self.irecv(buf, source, tag).wait(status)

    def isend(self, obj: Any, dest: int, tag: int = 0) -> RankRequest:
        """As `send`; the request is done."""
        self.send(obj, dest, tag)
        return RankRequest()

    issend = ibsend = isend

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> RankRequest:
        """Begin to receive an object: `wait` of the request gives it."""
        return self._begin(source, tag, self._post.unpack)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Send one object and receive another."""
        request = self.irecv(recvbuf, source, recvtag)
        self.send(sendobj, dest, sendtag)
        return request.wait(status)

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Wait for a message without receiving it."""
        if (sender := self._other(source, "source")) is not None:
            self._tell(status, self._post.await_letter(self._context, sender, tag, self._group))
        return True

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Whether there is a message to receive."""
        if (sender := self._other(source, "source")) is None:
            return True
        letter = self._post.probe(self._context, sender, tag, self._group)
        if letter is not None:
            self._tell(status, letter)
        return letter is not None

    Probe, Iprobe = probe, iprobe

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send an array; it may be changed when `Send` returns."""
        if (to := self._other(dest, "dest", tag)) is not None:
            self._post.send(self._context, to, tag, arrays.Buffer(buf).payload())

    Ssend = Bsend = Send

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Wait for an array, and fill `buf` with it."""
        self.Irecv(buf, source, tag).wait(status)

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> RankRequest:
        """As `Send`; the request is done."""
        self.Send(buf, dest, tag)
        return RankRequest()

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> RankRequest:
        """Begin to receive an array; `buf` is filled by `wait` of the request."""
        target = arrays.Buffer(buf, writable=True)
        return self._begin(source, tag, lambda letter: _no_value(target.fill(letter)))

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send one array and fill another."""
        request = self.Irecv(recvbuf, source, recvtag)
        self.Send(sendbuf, dest, sendtag)
        request.wait(status)

    # -- all together: objects -------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        Circle(self, "barrier").barrier()

    Barrier = barrier

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """The object of the root, on all ranks."""
        came = Circle(self, "bcast").bcast(self._post.pack(obj) if self.rank == root else None, root)
        return obj if self.rank == root else self._post.unpack(came)

    def scatter(self, sendobj: Sequence[Any] | None = None, root: int = 0) -> Any:
        """Element i of the root's sequence, on rank i."""
        payloads = None
        if self.rank == root:
            if sendobj is None or len(sendobj) != self.size:
                have = "nothing" if sendobj is None else f"{len(sendobj)} elements"
                raise RankError(f"scatter got {have} for {self.size} ranks", hint="Give one element for each rank")
            payloads = [self._post.pack(each) for each in sendobj]
        return self._post.unpack(Circle(self, "scatter").scatter(payloads, root))

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """At the root: the objects of all ranks, in their order. None on the others."""
        return self._gathered("gather", sendobj, root)

    def allgather(self, sendobj: Any) -> list[Any]:
        """The objects of all ranks, in their order, on all ranks."""
        circle = Circle(self, "allgather")
        return [self._post.unpack(came) for came in circle.alltoall([self._post.pack(sendobj)] * self.size)]

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Element i goes to rank i; what came, in the order of ranks."""
        if len(sendobj) != self.size:
            raise RankError(f"alltoall got {len(sendobj)} elements for {self.size} ranks", hint="Give one for each")
        payloads = [self._post.pack(each) for each in sendobj]
        return [self._post.unpack(came) for came in Circle(self, "alltoall").alltoall(payloads)]

    def reduce(self, sendobj: Any, op: Op = SUM, root: int = 0) -> Any:
        """At the root: the objects of all ranks joined by `op`, from rank 0 on. None on the others."""
        values = self._gathered("reduce", sendobj, root)
        return None if values is None else fold(values, op)

    def allreduce(self, sendobj: Any, op: Op = SUM) -> Any:
        """As `reduce`, on all ranks: the same object, to the last bit."""
        circle = Circle(self, "allreduce")
        came = circle.gather(self._post.pack(sendobj), 0)
        joined = None if came is None else self._post.pack(fold([self._post.unpack(each) for each in came], op))
        return self._post.unpack(circle.bcast(joined, 0))

    def scan(self, sendobj: Any, op: Op = SUM) -> Any:
        """The objects of ranks 0 to this one, joined by `op`."""
        circle = Circle(self, "scan")
        value = sendobj if self.rank == 0 else op(self._post.unpack(circle.receive(self.rank - 1)), sendobj)
        if self.rank + 1 < self.size:
            circle.send(self.rank + 1, self._post.pack(value))
        return value

    def exscan(self, sendobj: Any, op: Op = SUM) -> Any:
        """The objects of the ranks before this one, joined by `op`; None on rank 0."""
        circle = Circle(self, "exscan")
        before = None if self.rank == 0 else self._post.unpack(circle.receive(self.rank - 1))
        if self.rank + 1 < self.size:
            circle.send(self.rank + 1, self._post.pack(sendobj if self.rank == 0 else op(before, sendobj)))
        return before

    def _gathered(self, call: str, obj: Any, root: int) -> list[Any] | None:
        came = Circle(self, call).gather(self._post.pack(obj), root)
        return None if came is None else [self._post.unpack(each) for each in came]

    # -- all together: arrays --------------------------------------------------------------------------------------

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Fill `buf` on all ranks with that of the root."""
        arrays.bcast(self, buf, root)

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Equal shares of the root's array; with counts (`Scatterv`) shares of different lengths."""
        arrays.scatter(self, sendbuf, recvbuf, root)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """The arrays of all ranks one after another at the root; with counts (`Gatherv`) of different lengths."""
        arrays.gather(self, sendbuf, recvbuf, root)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """As `Gather`, on all ranks."""
        arrays.allgather(self, sendbuf, recvbuf)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Share i goes to rank i."""
        arrays.alltoall(self, sendbuf, recvbuf)

    Scatterv, Gatherv, Allgatherv, Alltoallv = Scatter, Gather, Allgather, Alltoall

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        """Fill the root's `recvbuf` with all arrays joined element by element, from rank 0 on."""
        arrays.reduce(self, sendbuf, recvbuf, op, root)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """As `Reduce`, on all ranks: the same bits."""
        arrays.allreduce(self, sendbuf, recvbuf, op)

    # -- communicators ---------------------------------------------------------------------------------------------

    def Split(self, color: int = 0, key: int = 0) -> Comm | None:
        """A communicator for the ranks of each color, in the order of their keys; None for UNDEFINED."""
        circle = Circle(self, "Split")
        came = circle.alltoall([self._post.pack((color, key))] * self.size)
        wishes = [self._post.unpack(each) for each in came]
        self._splits += 1
        if color == UNDEFINED:
            return None
        order = sorted((key, rank) for rank, (its, key) in enumerate(wishes) if its == color)
        context = self._context + f"/{self._splits}.{color}".encode()
        return Comm(self._post, [self._group[rank] for _, rank in order], context)

    def Dup(self) -> Comm:
        """The same ranks, whose messages are their own."""
        made = self.Split(0, self.rank)
        assert made is not None
        return made

    Clone = Dup

    def Free(self) -> None:
        """Nothing to do."""

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End all ranks: this one raises RankError, which the others are told."""
        raise RankError(f"rank {self._post.rank} called Abort({errorcode})", hint="Its program decided so")

    def Get_name(self) -> str:
        """What it is called."""
        return "COMM_WORLD" if not self._context else f"split{self._context.decode()}"

    name = property(Get_name)

    def Is_inter(self) -> bool:
        """Always False."""
        return False

    def __repr__(self) -> str:
        return f"<{self.Get_name()}: rank {self.rank} of {self.size} on {socket.gethostname()}>"

    def __reduce__(self) -> Any:
        raise TypeError("a communicator belongs to its rank and can't be sent")

    # -- within ----------------------------------------------------------------------------------------------------

    def _other(self, rank: int, what: str, tag: int = 0) -> int | None:
        """Among all ranks; None for PROC_NULL."""
        if not 0 <= tag <= TAG_UB:
            raise RankError(f"a tag is a number from 0 to {TAG_UB}, not {tag!r}", hint="Choose another")
        if rank == PROC_NULL:
            return None
        if rank == ANY_SOURCE and what == "source":
            return ANY_SOURCE
        if not 0 <= rank < self.size:
            raise RankError(f"{what} is {rank!r}, and there are {self.size} ranks", hint="Count from 0")
        return self._group[rank]

    def _begin(self, source: int, tag: int, read: Any) -> RankRequest:
        sender = self._other(source, "source")
        if sender is None:
            return RankRequest()

        def finish(letter: RankLetter, status: Status | None) -> Any:
            self._tell(status, letter)
            return read(letter)

        return RankRequest(self._post, self._post.want(self._context, sender, tag, self._group), finish)

    def _tell(self, status: Status | None, letter: RankLetter) -> None:
        if status is not None:
            status._set(self._group.index(letter.source), letter.tag, letter.nbytes)


def _no_value(_: object) -> None:
    """Arrays are filled and not returned."""
