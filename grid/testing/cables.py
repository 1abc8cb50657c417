"""Sockets without a network: what ZeroMQ does between a client and its hosts, one message at a time and by a seed.

A cable carries messages in one direction, in order. It may stall (nothing is lost), break (what was under way is lost;
what the sender still holds is not) and be mended (its ends find each other anew). Each end notices a break in its own
time:

- The client's PUSH keeps what it has not handed to the network, over any break.
- The host's PULL reads what an old connection brought and what the new one brings by turns: HELLO may overtake calls.
- The host's PUSH drops what it had for a connection that breaks, sends by turns to an old one that it does not know to
  be dead and to the new one, and refuses to send without any (zmq_socket(7), PUSH and PULL; zmq_tcp(7)).

`noise` adds what TCP excludes: single messages lost, repeated or cut.

Lives here: `Clock`, `Network`, and the few methods of sockets that `wire/zeromq.py` uses.
Elsewhere:  who sends what, and when cables break (`simulation.py`).
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from grid.limits import Limits
from grid.wire.zeromq import ClientSockets, HostSockets

_EVENT = struct.Struct("=Hi")


class Clock:
    """Time that passes when it is told to, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Socket:
    """Takes every option; sends and receives nothing."""

    closed = False

    def __init__(self, network: Network) -> None:
        self._network = network

    def _check(self) -> None:
        if self.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)

    def set(self, option: int, value: Any) -> None:
        """An option of the context."""

    def close(self, linger: int | None = None) -> None:
        """Later sends and receives raise ZMQError."""
        self.closed = True


class CallCable(Socket):
    """From a client's PUSH to a host's PULL; it is the client's socket, too."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.endpoint = ""
        self.queue: deque[bytes] = deque()  # not arrived yet
        self.pipes: list[deque[bytes]] = []  # arrived and not read, by connection
        self.up = self.stalled = False
        self.waker = False

    def connect(self, endpoint: str) -> None:
        """To a host's inlet, or as the client's own waker (`inproc:`)."""
        self.endpoint = endpoint
        if endpoint.startswith("inproc:"):
            self.waker = True
        else:
            self._network.calls[endpoint] = self
            self.mend()

    def send(self, data: bytes, flags: int = 0) -> None:
        """Queue a message; it travels when `carry` is called."""
        self._check()
        (self._network.inbox if self.waker else self.queue).append(data)

    def mend(self) -> None:
        """Connect (again)."""
        if not self.up and self.endpoint in self._network.bound:
            self.up = True
            self.pipes.append(deque())

    def break_(self) -> None:
        """The connection is lost, and with it what was under way."""
        if self.up:
            self.up = False
            for _ in range(self._network.rng.randint(0, len(self.queue))):
                self.queue.popleft()

    def carry(self, count: int) -> int:
        """Bring at most `count` messages over; returns how many came."""
        if not self.up or self.stalled:
            return 0
        count = min(count, len(self.queue))
        for _ in range(count):
            self.pipes[-1].extend(self._network.through(self.queue.popleft()))
        return count


class HostPull(Socket):
    """A host's PULL."""

    endpoint = ""

    def bind(self, endpoint: str) -> None:
        """From now on cables to this endpoint can connect."""
        self.endpoint = endpoint
        self._network.bound.add(endpoint)

    def recv(self, flags: int = 0) -> bytes:
        """The oldest message of one connection, chosen by chance. zmq.Again: none has arrived."""
        self._check()
        cable = self._network.calls.get(self.endpoint)
        pipes = [pipe for pipe in cable.pipes if pipe] if cable is not None else []
        if cable is None or not pipes:
            raise zmq.Again
        message = self._network.rng.choice(pipes).popleft()
        cable.pipes = [pipe for pipe in cable.pipes if pipe or pipe is cable.pipes[-1]]
        return message

    def close(self, linger: int | None = None) -> None:
        """Nobody can connect to it any more."""
        super().close(linger)
        self._network.bound.discard(self.endpoint)


class ReplyCable(Socket):
    """From a host's PUSH to the client's PULL; it is the host's socket, too."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.endpoint = ""
        self.outs: list[deque[bytes]] = []  # by connection that this end believes in
        self.current: deque[bytes] | None = None  # the one that lives
        self.stalled = False
        self.wanted = False  # the client wants to be connected
        self.noticed = True  # ... and knows that it is not
        self._turn = 0

    def bind(self, endpoint: str) -> None:
        """From now on the client can connect to this endpoint."""
        self.endpoint = endpoint
        self._network.bound.add(endpoint)
        self._network.replies[endpoint] = self

    @property
    def up(self) -> bool:
        """Whether there is a connection that lives."""
        return self.current is not None

    def get(self, option: int) -> int:
        """`zmq.EVENTS`: whether it can send. A connection whose handshake has not succeeded is no way out."""
        assert option == zmq.EVENTS, option
        return int(zmq.POLLOUT) if self.outs else 0

    def send(self, data: bytes, flags: int = 0) -> None:
        """Give a message to one of the connections that this end believes in. zmq.Again: there is none."""
        self._check()
        if not self.outs:
            raise zmq.Again
        self._turn += 1
        self.outs[self._turn % len(self.outs)].append(data)

    def mend(self) -> None:
        """The client connects (again), once it knows that it has to."""
        if self.current is None and self.wanted and self.noticed and self.endpoint in self._network.bound:
            self.current = deque()
            self.outs = [*(out for out in self.outs if self._network.rng.random() < 0.5), self.current]
            self.noticed = False
            self._network.tell(zmq.EVENT_HANDSHAKE_SUCCEEDED, self.endpoint)

    def break_(self) -> None:
        """The connection is lost; neither end knows it yet."""
        if self.current is not None:
            self.carry(self._network.rng.randint(0, len(self.current)))
            self.current = None

    def notice_here(self) -> None:
        """The host's end learns which connections are dead."""
        self.outs = [out for out in self.outs if out is self.current]

    def notice_there(self) -> None:
        """The client's end learns that the connection is dead."""
        if self.current is None and not self.noticed:
            self.noticed = True
            self._network.tell(zmq.EVENT_DISCONNECTED, self.endpoint)

    def carry(self, count: int) -> int:
        """Bring at most `count` messages over; returns how many came."""
        if self.current is None or self.stalled:
            return 0
        count = min(count, len(self.current))
        for _ in range(count):
            if self.wanted:
                self._network.inbox.extend(self._network.through(self.current.popleft()))
        return count

    def close(self, linger: int | None = None) -> None:
        """What was sent lingers and arrives; then the connection ends."""
        if not self.closed:
            super().close(linger)
            self._network.bound.discard(self.endpoint)
            self.carry(1 << 30)  # it lingers
            self.break_()


class ClientPull(Socket):
    """The client's PULL: all replies."""

    rcvtimeo = -1

    def bind(self, endpoint: str) -> None:
        """For the waker."""

    def connect(self, endpoint: str) -> None:
        """Want to hear what is sent there."""
        cable = self._network.replies.get(endpoint)
        if cable is not None:
            cable.wanted = True
            cable.mend()

    def disconnect(self, endpoint: str) -> None:
        """Want it no more. zmq.ZMQError: it was never connected."""
        cable = self._network.replies.pop(endpoint, None)
        if cable is None:
            raise zmq.ZMQError(zmq.ENOTCONN)
        cable.break_()
        cable.wanted = False

    def recv(self, flags: int = 0) -> bytes:
        """The next message; others go on `while_waiting` for at most `rcvtimeo` ms. zmq.Again: none came."""
        self._check()
        network = self._network
        if not network.inbox and not flags & zmq.NOBLOCK:
            network.while_waiting(self.rcvtimeo / 1000)
        if not network.inbox:
            raise zmq.Again
        return network.inbox.popleft()

    def get_monitor_socket(self, events: int) -> CableMonitor:
        """What tells of its connections."""
        return CableMonitor(self._network)

    def disable_monitor(self) -> None:
        """Nothing more is to be told."""


class CableMonitor(Socket):
    """What the client's PULL tells about its connections."""

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        """The next event: its number and value in one frame, the endpoint in another. zmq.Again: none."""
        self._check()
        if not self._network.news:
            raise zmq.Again
        return self._network.news.popleft()


class Network:
    """All cables of one client.

    Args:
        noise: Chance of each message to be lost, repeated or cut.
    """

    def __init__(self, rng: random.Random, clock: Clock, noise: float = 0.0) -> None:
        self.rng, self.clock, self.noise = rng, clock, noise
        self.inbox: deque[bytes] = deque()  # arrived at the client's PULL
        self.news: deque[list[bytes]] = deque()
        self.calls: dict[str, CallCable] = {}
        self.replies: dict[str, ReplyCable] = {}
        self.bound: set[str] = set()
        self.while_waiting: Callable[[float], None] = self._pass

    def client(self, limits: Limits) -> ClientSockets:
        """A carrier for `Link`."""
        context: Any = _Context({zmq.PUSH: CallCable, zmq.PULL: ClientPull}, self)
        return ClientSockets(limits, context)

    def host(self, limits: Limits) -> HostSockets:
        """A carrier for `HostEnd`."""
        context: Any = _Context({zmq.PUSH: ReplyCable, zmq.PULL: HostPull}, self)
        return HostSockets(context, limits)

    def tell(self, event: int, endpoint: str) -> None:
        """The client's monitor has news."""
        self.news.append([_EVENT.pack(event, 0), endpoint.encode()])

    def through(self, message: bytes) -> list[bytes]:
        """What arrives of a message."""
        if not self.noise or self.rng.random() >= self.noise:
            return [message]
        kind = self.rng.randrange(3)
        if kind == 0:
            return []
        if kind == 1:
            return [message, message]
        return [message[: self.rng.randrange(len(message) or 1)]]

    def _pass(self, seconds: float) -> None:
        self.clock.now += max(seconds, 0.0)


class _Context:
    def __init__(self, kinds: dict[int, type[Socket]], network: Network) -> None:
        self._kinds, self._network = kinds, network

    def socket(self, kind: int) -> Socket:
        return self._kinds[kind](self._network)

    def set(self, option: int, value: Any) -> None:
        """An option of the context."""

    def term(self) -> None:
        """Nothing waits here."""
