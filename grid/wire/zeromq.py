"""Frames over sockets of ZeroMQ: PUSH and PULL, calls one way and replies the other.

The client connects both; a process on a host binds both, to UNIX sockets in a private directory or to TCP ports that
only holders of the keys get into (CURVE). No send ever waits, and but for one nothing bounds a queue here:
`Limits.in_flight` bounds what is under way, and two bounds can lock each other. The one is the inlet of an agent
(`bound_inlet`). It can't lock, for an agent takes requests in whatever else is full: its own sends do not wait, and no
request waits for another. Heartbeats of ZeroMQ notice connections that are cut. Between two processes of one machine
nothing can be cut; there the client's inbox alone asks, as a stopped server has to be noticed. (Measured with 100 idle
servers: 0.23 % of a core at the client, and 0.36 % where both ends of both sockets ask.)

Lives here: options of sockets, both ends of the carrier, the last moment of a context.
Elsewhere:  what a carrier is (`carrier`), who may come in (`gatekeeper`), keys (`keys`), events (`monitor`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from grid.limits import Limits
from grid.wire import monitor
from grid.wire.carrier import Closed
from grid.wire.frames import MAX_FRAME
from grid.wire.gatekeeper import patient
from grid.wire.keys import Keys

RECONNECT_S = 2.0
"""Between two attempts to connect again, at most."""
_LINGER_MS = 2000
_SOON_MS = 300
"""HELLO may overtake the connection for replies by a moment, so its answer is given time."""
_SIGNALS = "inproc://signals"


def open_socket(context: zmq.Context[Any], kind: int, limits: Limits) -> zmq.Socket[Any]:
    """A socket with our options; a PUSH never waits."""
    socket: zmq.Socket[Any] = context.socket(kind)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = 0
    _set_beats(socket, limits)
    if kind == zmq.PUSH:
        socket.sndtimeo = 0
    return socket


def _set_beats(socket: zmq.Socket[Any], limits: Limits) -> None:
    beat = int(limits.heartbeat_s * 1000)
    socket.heartbeat_ivl = beat
    socket.heartbeat_timeout = socket.heartbeat_ttl = max(beat, int(limits.lost_s * 1000) - beat)


def _disconnect(socket: zmq.Socket[Any], endpoint: str) -> None:
    try:
        socket.disconnect(endpoint)
    except zmq.ZMQError:
        pass  # it was never connected


class _Receiving:
    """A PULL socket as an `Inbox`."""

    def __init__(self, pull: zmq.Socket[Any]) -> None:
        self.pull = pull
        self._receive = pull.recv

    @property
    def patience_ms(self) -> int:
        return int(self.pull.rcvtimeo)

    @patience_ms.setter
    def patience_ms(self, value: int) -> None:
        self.pull.rcvtimeo = value

    def receive(self) -> bytes | None:
        try:
            return self._receive()
        except zmq.Again:
            return None
        except zmq.ZMQError as exc:
            raise Closed(str(exc)) from exc

    def receive_now(self) -> bytes | None:
        try:
            return self._receive(zmq.NOBLOCK)
        except zmq.ZMQError:
            return None


class ClientSockets(_Receiving):
    """A `ClientCarrier`.

    Args:
        context: Where its sockets come from; one of its own by default.
    """

    def __init__(self, limits: Limits, context: zmq.Context[Any] | None = None) -> None:
        self._limits = limits
        self._context = zmq.Context() if context is None else context
        self._context.set(zmq.MAX_SOCKETS, 65_000)
        super().__init__(self._socket(zmq.PULL))
        wake_address = f"inproc://grid-wake-{id(self)}"
        self.pull.bind(wake_address)
        self._waker = self._socket(zmq.PUSH)
        self._waker.connect(wake_address)
        self._waker_lock = threading.Lock()
        self._closed = False
        self.bell = self.pull.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CONNECT_RETRIED
        )
        self._outlets: dict[int, str] = {}  # of each process that is attached
        self._numbers: dict[str, int] = {}  # by outlet, as `monitor.plain` spells it

    def _socket(self, kind: int) -> zmq.Socket[Any]:
        socket = open_socket(self._context, kind, self._limits)
        socket.ipv6 = True  # of both kinds
        self._set_patience(socket)
        return socket

    def _set_patience(self, socket: zmq.Socket[Any]) -> None:
        _set_beats(socket, self._limits)
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = int(RECONNECT_S * 1000)
        socket.handshake_ivl = int(self._limits.lost_s * 1000)

    def way(self, inlet: str, keys: Keys | None) -> SocketWay:
        """A PUSH socket for each process, encrypted if there are keys."""
        push = self._socket(zmq.PUSH)
        if keys is not None:
            keys.call(push)
        else:
            push.heartbeat_ivl = 0
        return SocketWay(push, inlet)

    def attach(self, number: int, outlet: str, keys: Keys | None) -> None:
        """Connect the PULL socket to an outlet as well."""
        self._outlets[number] = outlet
        self._numbers[monitor.plain(outlet)] = number
        # options of the socket are for the connection that is made next; they stay from the one before
        if keys is not None:
            keys.call(self.pull)
        else:
            self.pull.plain_server = False  # back to no encryption
        self.pull.connect(outlet)

    def detach(self, number: int) -> None:
        """Disconnect it from the outlet of that process."""
        outlet = self._outlets.pop(number, None)
        if outlet is not None:
            self._numbers.pop(monitor.plain(outlet), None)
            _disconnect(self.pull, outlet)

    def rouse(self, frame: bytes) -> None:
        """By a socket within this process; one lock keeps threads apart."""
        with self._waker_lock:
            if not self._closed:
                self._waker.send(frame)

    def news(self) -> tuple[int, bool] | None:
        """From the monitor of the PULL socket; attempts that failed are passed over."""
        while (event := monitor.read(self.bell)) is not None:
            number = self._numbers.get(event[1])
            if number is not None and event[0] != zmq.EVENT_CONNECT_RETRIED:
                return number, event[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return None

    def forked(self) -> None:
        """The parent's lock may be held for ever, and its sockets are not for us."""
        self._waker_lock = threading.Lock()
        self._closed = True

    def close(self) -> None:
        """Close all sockets and end the context, without waiting for what they had to send."""
        with self._waker_lock:
            self._closed = True
            self.pull.disable_monitor()
            self.bell.close(0)
            self.pull.close(0)
            self._waker.close(0)
        self._context.term()


class SocketWay:
    """A `Way`: a PUSH socket of its own."""

    __slots__ = ("_inlet", "_socket", "send")

    def __init__(self, socket: zmq.Socket[Any], inlet: str) -> None:
        self._socket, self._inlet = socket, inlet
        self.send = socket.send  # itself: a call pays for no step in between
        socket.connect(inlet)

    def lead(self, inlet: str) -> None:
        """Disconnect the socket, and connect it elsewhere."""
        _disconnect(self._socket, self._inlet)
        self._inlet = inlet
        self._socket.connect(inlet)

    def close(self) -> None:
        """Close the socket, without waiting for what it had to send."""
        self._socket.close(0)


class HostSockets(_Receiving):
    """A `HostCarrier`, once one of the `bind_` methods was called."""

    def __init__(self, context: zmq.Context[Any], limits: Limits) -> None:
        super().__init__(open_socket(context, zmq.PULL, limits))
        self._context, self._limits = context, limits
        self.push = self._make_push()
        self._bind_outlet: Callable[[zmq.Socket[Any], str], str]  # its end: of a name, or of any free port
        self.bell = self.pull
        self.pull.maxmsgsize = MAX_FRAME
        self.guard: Callable[[zmq.Socket[Any]], None] = lambda socket: None
        """Called with each listener that is made later, before it is bound."""

    def _make_push(self) -> zmq.Socket[Any]:
        push = open_socket(self._context, zmq.PUSH, self._limits)
        push.maxmsgsize = MAX_FRAME
        return push

    @property
    def listeners(self) -> tuple[zmq.Socket[Any], ...]:
        """Its sockets, for a gatekeeper to guard."""
        return self.pull, self.push

    def bound_inlet(self, messages: int, longest: int) -> None:
        """So many messages of so many bytes wait here for each connection, at most; before one of the `bind_` methods.

        While as many wait, heartbeats of that connection are not read: one that is full for `lost_s` is made anew, and
        what was lost with it comes again (`Session`). Who calls this must take messages in more often than that.
        """
        self.pull.rcvhwm, self.pull.maxmsgsize = messages, longest

    def bind_sockets(self, directory: Path, name: str) -> tuple[str, str]:
        """Listen at UNIX sockets in a private directory; returns (inlet, outlet)."""

        def bind_outlet(push: zmq.Socket[Any], which: str) -> str:
            push.heartbeat_ivl = 0
            end = f"ipc://{directory / name}.o{which}"
            push.bind(end)
            return end

        inlet = f"ipc://{directory / name}.i"
        self.pull.heartbeat_ivl = 0
        self.pull.bind(inlet)
        self._bind_outlet = bind_outlet
        return inlet, bind_outlet(self.push, "")

    def bind_ports(self, address: str, keys: Keys) -> tuple[str, str]:
        """Listen at free TCP ports of `address`, for holders of the keys only; returns (inlet, outlet)."""

        def bind(socket: zmq.Socket[Any], which: str = "") -> str:
            return bind_port(socket, address, keys)

        self._bind_outlet = bind
        return bind(self.pull), bind(self.push)

    def change_outlet(self, epoch: int) -> str:
        """Another PUSH. Who sends waits meanwhile (`HostEnd`), so that any thread may call this."""
        fresh = self._make_push()
        self.guard(fresh)
        outlet = self._bind_outlet(fresh, str(epoch))
        old, self.push = self.push, fresh
        old.close(_LINGER_MS)
        return outlet

    def send(self, data: bytes) -> None:
        """Without a connection it is lost: the client says HELLO when there is one."""
        try:
            self.push.send(data)
        except zmq.Again:
            pass  # the client will say HELLO

    def send_patiently(self, data: bytes) -> None:
        """Wait up to 300 ms for a connection."""
        self.push.sndtimeo = _SOON_MS
        self.send(data)
        self.push.sndtimeo = 0

    def admitted(self) -> bool:
        """A PUSH has a way out to connections only whose handshake has succeeded (libzmq 4.3.3, CVE-2020-15166)."""
        return bool(int(self.push.get(zmq.EVENTS)) & zmq.POLLOUT)

    def waker(self) -> SocketWaker:
        """A socket within this process that reaches the PULL; once per carrier."""
        self.pull.bind(_SIGNALS)
        return SocketWaker(self._context.socket(zmq.PUSH))

    def close(self) -> None:
        """Close both; replies that were sent have 2 s to be on their way (see `flush`)."""
        self.pull.close(0)
        self.push.close(_LINGER_MS)


def bind_port(socket: zmq.Socket[Any], address: str, keys: Keys) -> str:
    """Listen at a free TCP port of `address`, for holders of the keys only; returns the endpoint."""
    keys.listen(socket)
    patient(socket)
    if ":" in address:
        socket.ipv6 = True
    shown = f"[{address}]" if ":" in address else address
    return f"tcp://{shown}:{socket.bind_to_random_port(f'tcp://{shown}')}"


class SocketWaker:
    """A `Waker`."""

    def __init__(self, push: zmq.Socket[Any]) -> None:
        self._push = push
        push.linger = 0
        push.connect(_SIGNALS)

    def wake(self) -> None:
        """Send an empty frame to the PULL."""
        self._push.send(b"")

    def close(self) -> None:
        """Close the socket, in the thread that wakes."""
        self._push.close()


def flush(context: zmq.Context[Any]) -> None:
    """Wait until what closed sockets still had to send is on its way, `_LINGER_MS` and a moment at most."""
    thread = threading.Thread(target=context.term, daemon=True)
    thread.start()
    thread.join(_LINGER_MS / 1000 + 0.5)
