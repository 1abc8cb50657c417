"""Sockets between ranks: one inlet each, a line to each rank that is written to.

On one host they are UNIX sockets in the private directory of the servers; between hosts TCP under CURVE with the keys
of the grid's hosts, which each of them has: who writes shows that it holds them, and the gatekeeper of the reader
admits nobody else. Where a firewall or a tunnel is between two hosts, letters go to a desk on the sender's host, which
the client empties (`desk`).

Values that stay on their host (`wire/bulk.py`) are moved by the agents at the client's word, a round trip to it for
each: right for states of megabytes, and no way for messages of bytes that the client knows nothing of. So ranks have
sockets of their own, with the same keys, options, and rules about strangers as all others.

Lives here: `RankLane`, how a letter looks on the wire.
Elsewhere:  which letter is for whom (`mailbox`), who decides about ways (`launch`).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from grid.kernel.premises import Premises
from grid.ranks.mailbox import RankLetter
from grid.wire import monitor
from grid.wire.gatekeeper import Gatekeeper
from grid.wire.zeromq import bind_port, open_socket

HEAD = struct.Struct("<iiqBB")
"""Sender, receiver, tag, kind, whether large parts follow; then the name of the context."""

OBJECT, RAW, CUSTOM, NOTICE = range(4)
"""Kinds of letters: a pickle with its buffers, one buffer, a pickle by the user's own pickler, words of the client."""
KINDS = 8
"""A collective call adds its number times this, so that ranks in different calls are found out."""

LARGE = 1 << 16
"""Bytes from which on a part is not copied on its way into a socket or out of it."""
_WAITING = 1000
"""Letters that may wait in a socket for a rank that does not read; then its writers wait."""
_TICK_S = 0.02


class RankLane:
    """See the module. One thread at a time."""

    def __init__(self, premises: Premises, name: str) -> None:
        self._premises = premises
        self._context: zmq.Context[Any] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 65_000)
        self.patience_s = 2 * premises.limits.lost_s
        """The client has so long to name a rank that was lost, after a connection broke."""
        self._poller = zmq.Poller()
        self.ends = {"ipc": f"ipc://{premises.sockets / f'p{premises.peer}.{name}'}"}
        self._inlets = [self._inlet()]
        self._inlets[0].bind(self.ends["ipc"])
        if premises.keys is not None:  # a socket of its own: the gatekeeper watches all that comes to it
            inlet = self._inlet()
            self._gatekeeper = Gatekeeper(self._context, premises.keys.public, (inlet,))
            self.ends["tcp"] = bind_port(inlet, premises.address, premises.keys)
            self._inlets.append(inlet)
        self._lines: dict[str, zmq.Socket[Any]] = {}
        self._bells: dict[str, zmq.Socket[Any]] = {}

    def _inlet(self) -> zmq.Socket[Any]:
        inlet = open_socket(self._context, zmq.PULL, self._premises.limits)
        inlet.rcvhwm = _WAITING
        self._poller.register(inlet, zmq.POLLIN)
        return inlet

    def line(self, endpoint: str) -> zmq.Socket[Any]:
        """The socket to an inlet."""
        line = self._lines.get(endpoint)
        if line is None:
            line = open_socket(self._context, zmq.PUSH, self._premises.limits)
            line.sndhwm = _WAITING
            line.linger = -1  # what a rank has sent arrives, though it returns at once; `close` sets the limit
            if endpoint.startswith("tcp:"):
                keys = self._premises.keys
                assert keys is not None
                line.curve_secretkey, line.curve_publickey = keys.secret, keys.public
                line.curve_serverkey = keys.public
                line.ipv6 = True
                address = f"inproc://line-{len(self._lines)}"
                line.monitor(address, zmq.EVENT_DISCONNECTED)
                bell = self._context.socket(zmq.PAIR)
                bell.connect(address)
                self._bells[endpoint] = bell
            line.connect(endpoint)
            self._lines[endpoint] = line
        return line

    def reach(self, endpoints: Sequence[str], seconds: float) -> list[bool]:
        """Whether each inlet lets us in within that time: a socket has a way out once the keys were shown."""
        poller = zmq.Poller()
        tried: list[zmq.Socket[Any]] = []
        for endpoint in endpoints:
            line = open_socket(self._context, zmq.PUSH, self._premises.limits)
            keys = self._premises.keys
            if keys is not None:
                line.curve_secretkey, line.curve_publickey = keys.secret, keys.public
                line.curve_serverkey = keys.public
            line.ipv6, line.immediate = True, True
            line.connect(endpoint)
            poller.register(line, zmq.POLLOUT)
            tried.append(line)
        deadline = time.monotonic() + seconds
        ready: set[Any] = set()
        while len(ready) < len(tried) and (left := deadline - time.monotonic()) > 0:
            for line, _ in poller.poll(int(left * 1000) + 1):
                ready.add(line)
                poller.unregister(line)
        answer = [line in ready for line in tried]
        for line in tried:
            line.close(0)
        return answer

    # -- letters ---------------------------------------------------------------------------------------------------

    def send(self, endpoint: str, letter: RankLetter, receiver: int, meanwhile: Callable[[float], object]) -> None:
        """Send a letter; returns when its parts may be changed.

        `meanwhile(seconds)` is called while the other one does not read: it takes letters in, and may raise.
        """
        large = any(memoryview(part).nbytes >= LARGE for part in letter.parts)
        head = HEAD.pack(letter.source, receiver, letter.tag, letter.kind, large) + letter.context
        line = self.line(endpoint)
        frames = [head, *letter.parts]
        while True:
            try:
                if not large:
                    line.send_multipart(frames, zmq.NOBLOCK)
                    return
                tracker: Any = line.send_multipart(frames, zmq.NOBLOCK, copy=False, track=True)
                break
            except zmq.Again:
                meanwhile(_TICK_S)
        while not tracker.done:
            try:
                tracker.wait(_TICK_S)
            except zmq.NotDone:
                meanwhile(0.0)

    def receive(self, seconds: float) -> tuple[int, RankLetter] | None:
        """The next letter and whom it is for; None if none comes within that time."""
        while True:
            for inlet in self._inlets:
                try:
                    head = inlet.recv(zmq.NOBLOCK)
                except zmq.Again:
                    continue
                source, receiver, tag, kind, large = HEAD.unpack_from(head)
                parts: list[Any] = []
                while inlet.getsockopt(zmq.RCVMORE):
                    parts.append(inlet.recv(copy=False).buffer if large else inlet.recv())
                return receiver, RankLetter(head[HEAD.size :], source, tag, kind, parts)
            if seconds <= 0 or not self._poller.poll(int(seconds * 1000) + 1):
                return None
            seconds = 0.0

    def broken(self) -> list[str]:
        """Inlets to which a connection broke since the last look."""
        return [endpoint for endpoint, bell in self._bells.items() if monitor.read(bell) is not None]

    def close(self, linger_s: float = 0.0) -> None:
        """Close all."""
        for bell in self._bells.values():
            bell.close(0)
        for line in self._lines.values():
            line.close(int(linger_s * 1000))
        for inlet in self._inlets:
            inlet.close(0)
