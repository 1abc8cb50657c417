"""The host's end of one link: sockets, numbering, acknowledgement, repeating. The counterpart of `wire/link.py`.

A server and an agent each have one. It takes a message only if it is the next in turn, so that no call runs twice, and
keeps what it sent until the client has it.

Lives here: binding, `take`, `reply`, `event`.
Elsewhere:  what a call does (`serve`, `agent`), the layout of messages (`wire/frames.py`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from grid.limits import Limits
from grid.wire.frames import Frame, FrameError, Kind, pack, unpack
from grid.wire.keys import Keys

logger = logging.getLogger(__name__)


_LINGER_MS = 2000


class HostEnd:
    """PULL for calls, PUSH for replies; both bound, the client connects. One thread at a time."""

    def __init__(self, context: zmq.Context[Any], peer: int, limits: Limits) -> None:
        self.peer = peer
        self.pull = context.socket(zmq.PULL)
        self.push = context.socket(zmq.PUSH)
        beat = int(limits.heartbeat_s * 1000)
        for socket in (self.pull, self.push):
            socket.linger = 0
            socket.sndhwm = socket.rcvhwm = 0  # the client bounds what is under way
            socket.maxmsgsize = 1 << 30
            socket.heartbeat_ivl = beat
            socket.heartbeat_timeout = socket.heartbeat_ttl = max(beat, int(limits.lost_s * 1000) - beat)
        self._taken = 0  # calls up to this one are here
        self._sent = 0
        self._kept: deque[tuple[int, bytes]] = deque()  # sent and not acknowledged
        self.said_bye = False
        self.said_hello = False

    def bind_sockets(self, directory: Path, name: str) -> tuple[str, str]:
        """Listen at UNIX sockets in a private directory; returns (inlet, outlet)."""
        ends = f"ipc://{directory / name}.i", f"ipc://{directory / name}.o"
        self.pull.bind(ends[0])
        self.push.bind(ends[1])
        return ends

    def bind_ports(self, address: str, keys: Keys) -> tuple[str, str]:
        """Listen at free TCP ports of `address`, for holders of the keys only; returns (inlet, outlet)."""
        keys.listen(self.pull)
        keys.listen(self.push)
        for socket in (self.pull, self.push):
            if ":" in address:
                socket.ipv6 = True
        shown = f"[{address}]" if ":" in address else address
        ends = []
        for socket in (self.pull, self.push):
            port = socket.bind_to_random_port(f"tcp://{shown}")
            ends.append(f"tcp://{shown}:{port}")
        return ends[0], ends[1]

    def take(self, data: bytes) -> Frame | None:
        """Look at a message that arrived: a call that is due, or None where nothing is to be done."""
        try:
            frame = unpack(bytearray(data) if len(data) > 65_536 or data[2] else data)
        except (FrameError, IndexError) as exc:
            logger.warning("dropped: %s", exc)
            return None
        while self._kept and self._kept[0][0] <= frame.ack:
            self._kept.popleft()
        if frame.kind == Kind.CALL:
            if frame.seq == self._taken + 1:
                self._taken = frame.seq
                return frame
            if frame.seq > self._taken + 1:  # one before it was lost on the way
                self._welcome()
        elif frame.kind == Kind.HELLO:
            self.said_hello = True
            self._welcome()
            for _, kept in list(self._kept):
                self._put(kept)
        elif frame.kind == Kind.BYE:
            self.said_bye = True
        return None

    def _welcome(self) -> None:
        # HELLO may overtake the connection for replies by a moment, so this one message is given time
        self.push.sndtimeo = 300
        try:
            self.push.send(pack(Kind.WELCOME, self.peer, 0, self._taken))
        except zmq.Again:
            pass  # the client asks again

    def _put(self, frame: bytes) -> None:
        try:
            self.push.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            pass  # the client is away; it will say HELLO

    def reply(
        self,
        call: int,
        data: bytes,
        buffers: Sequence[memoryview] = (),
        flags: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Send the outcome of `call`."""
        self._send(Kind.REPLY, call, data, buffers, flags, seconds)

    def event(self, data: bytes) -> None:
        """Send news that nobody asked for."""
        self._send(Kind.EVENT, 0, data, (), 0, 0.0)

    def _send(
        self, kind: int, call: int, data: bytes, buffers: Sequence[memoryview], flags: int, seconds: float
    ) -> None:
        self._sent += 1
        frame = pack(kind, self.peer, self._sent, self._taken, call, data, buffers, flags, seconds)
        self._kept.append((self._sent, frame))
        self._put(frame)

    def close(self) -> None:
        """Close both sockets; `flush` then waits a moment for what is still to be sent."""
        self.pull.close(0)
        self.push.close(_LINGER_MS)


def flush(context: zmq.Context[Any]) -> None:
    """Wait until what closed sockets still had to send is on its way, or `_LINGER_MS` is over."""
    thread = threading.Thread(target=context.term, daemon=True)
    thread.start()
    thread.join(_LINGER_MS / 1000 + 0.5)
