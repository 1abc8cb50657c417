"""Who comes to a port of ours without the grid's key, or with nonsense: silence for them, service for the rightful."""

from __future__ import annotations

import random
import select
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from grid.kernel.hostend import HostEnd
from grid.limits import Limits
from grid.wire.frames import Kind, pack, unpack
from grid.wire.gatekeeper import Gatekeeper
from grid.wire.keys import Keys, make_keys
from grid.wire.limits import REQUEST_BYTES, REQUESTS
from grid.wire.session import Session
from grid.wire.zeromq import HostSockets

LIMITS = Limits(heartbeat_s=0.5, lost_s=5.0)
PATIENCE_MS = 20_000
SILENCE_MS = 400
LONGEST = 100_000


class House:
    """One host's end with its gatekeeper, as an agent and a server have it, on loopback."""

    def __init__(self) -> None:
        self.keys, theirs = make_keys()
        self.context: zmq.Context[Any] = zmq.Context()
        self.carrier = HostSockets(self.context, LIMITS)
        self.end = HostEnd(self.carrier, 1)
        self.gatekeeper = Gatekeeper(self.context, theirs.other_public, self.carrier.listeners)
        self.carrier.pull.maxmsgsize = LONGEST
        self.inlet, self.outlet = self.carrier.bind_ports("127.0.0.1", theirs)
        self.outside: zmq.Context[Any] = zmq.Context()
        self.calls = 0
        self.pairs: list[zmq.Socket[Any]] = []

    @property
    def port(self) -> int:
        return int(self.inlet.rpartition(":")[2])

    def caller(self, keys: Keys | None) -> tuple[zmq.Socket[Any], zmq.Socket[Any]]:
        """Sockets of a client, with these keys or none."""
        pair = self.outside.socket(zmq.PUSH), self.outside.socket(zmq.PULL)
        for each, endpoint in zip(pair, (self.inlet, self.outlet), strict=True):
            each.linger = 0
            self.pairs.append(each)
            each.reconnect_ivl = 20
            if keys is not None:
                keys.call(each)
            each.connect(endpoint)
        return pair

    def hears(self, patience_ms: int) -> list[int]:
        """Numbers of calls that come through in that time, or until one does."""
        end = time.monotonic() + patience_ms / 1000
        while (left := end - time.monotonic()) > 0:
            if self.carrier.pull.poll(left * 1000) and (frames := self.end.take(self.carrier.pull.recv())):
                return [frame.seq for frame in frames]
        return []

    def serves(self, push: zmq.Socket[Any], pull: zmq.Socket[Any]) -> None:
        """A rightful call goes there, and its reply comes back."""
        self.calls += 1
        push.send(pack(Kind.CALL, 1, self.calls, 0, self.calls, b"rightful"))
        assert self.hears(PATIENCE_MS) == [self.calls]
        end = time.monotonic() + PATIENCE_MS / 1000
        while not self.carrier.push.poll(50, zmq.POLLOUT):  # the way back may be a moment later
            assert time.monotonic() < end
        self.end.reply(self.calls, b"served")
        while True:
            assert pull.poll(PATIENCE_MS)
            frame = unpack(pull.recv())
            if frame.call == self.calls:
                assert bytes(frame.pickle) == b"served"
                return

    def close(self) -> None:
        for each in self.pairs:
            each.close(0)
        self.outside.term()
        self.end.close()
        self.context.term()
        self.gatekeeper._thread.join(10)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.close()


@pytest.mark.row("G68")
@pytest.mark.parametrize("whose", ["none", "another grid's", "the server's public key alone"])
def test_a_stranger_gets_silence_and_the_rightful_service(house: House, whose: str) -> None:
    ours = house.caller(house.keys)
    house.serves(*ours)
    stranger = None
    if whose == "another grid's":
        stranger, _ = make_keys()
    elif whose == "the server's public key alone":
        public, secret = zmq.curve_keypair()
        stranger = Keys(public, secret, house.keys.other_public, house.keys.certificate, house.keys.certificate_key)
    push, pull = house.caller(stranger)
    for number in range(1, 50):
        push.send(pack(Kind.CALL, 1, house.calls + number, 0, number, b"stranger"), zmq.NOBLOCK)
    push.send(pack(Kind.HELLO, 1, 0, 0), zmq.NOBLOCK)
    assert house.hears(SILENCE_MS) == []
    assert not house.end.said_hello
    for _ in range(3):
        house.serves(*ours)  # ... and none of its replies goes to the stranger
    assert not pull.poll(SILENCE_MS)


@pytest.mark.row("G68")
def test_garbage_on_the_port_is_silence_and_harms_nobody(house: House) -> None:
    rng = random.Random(1)
    ours = house.caller(house.keys)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01"
    scripts = [
        rng.randbytes(100_000),
        b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n",
        greeting + b"NULL".ljust(20, b"\0") + bytes(32) + b"\x04\x05\x05READY",
        greeting + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x04" + bytes([200]) + b"\x05HELLO" + rng.randbytes(194),
        greeting + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x06" + struct.pack(">Q", 1 << 62) + rng.randbytes(1000),
        greeting[:5],  # and nothing more
    ]
    crowd = [socket.create_connection(("127.0.0.1", house.port), 5) for _ in range(10 * len(scripts))]
    try:
        for number, each in enumerate(crowd):
            try:
                each.sendall(scripts[number % len(scripts)])
            except OSError:
                pass  # it was shown the door already
        assert house.hears(SILENCE_MS) == []
        for _ in range(5):
            house.serves(*ours)
        for each in crowd:  # no more than ZeroMQ's own greeting came back
            each.settimeout(0.0)
            try:
                assert len(each.recv(1000)) <= 400
            except OSError:
                pass
    finally:
        for each in crowd:
            each.close()


@pytest.mark.row("G68")
def test_a_recorded_conversation_can_not_be_played_again(house: House) -> None:
    recorded: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        relay = threading.Thread(target=_relay, args=(door, house.port, recorded))
        relay.start()
        push = house.outside.socket(zmq.PUSH)
        push.linger = 0
        house.keys.call(push)
        push.connect(f"tcp://127.0.0.1:{door.getsockname()[1]}")
        push.send(pack(Kind.CALL, 1, 1, 0, 1, b"recorded"))
        assert house.hears(PATIENCE_MS) == [1]
        push.close(0)
        relay.join(20)
        assert not relay.is_alive()
    house.end.session = Session(house.end.peer)  # were it let in, it would count
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", house.port), 5) as line:
            for part in recorded:
                try:
                    line.sendall(part)
                except OSError:
                    break
                select.select([line], [], [], 0.1)
            assert house.hears(SILENCE_MS) == []
    house.serves(*house.caller(house.keys))


def _relay(door: socket.socket, port: int, recorded: list[bytes]) -> None:
    """One connection, both ways, until the client hangs up; what it says is recorded."""
    door.settimeout(20)
    near, _ = door.accept()
    with near, socket.create_connection(("127.0.0.1", port), 5) as far:
        while True:
            ready, _, _ = select.select([near, far], [], [], 20)
            if not ready:
                return
            for line in ready:
                data = line.recv(65_536)
                if not data:
                    return
                if line is near:
                    recorded.append(data)
                (far if line is near else near).sendall(data)


@pytest.mark.row("G67", "G68")
def test_a_frame_that_is_too_long_is_refused_and_the_next_is_served(house: House) -> None:
    push, pull = house.caller(house.keys)
    house.serves(push, pull)
    push.send(pack(Kind.CALL, 1, house.calls + 1, 0, house.calls + 1, bytes(2 * LONGEST)))
    assert house.hears(SILENCE_MS) == []
    house.serves(push, pull)  # after it has connected again; the long one is never seen


def test_what_we_ship_bounds_every_frame() -> None:
    context: zmq.Context[Any] = zmq.Context()
    carrier = HostSockets(context, LIMITS)
    try:
        assert carrier.pull.maxmsgsize == carrier.push.maxmsgsize == 1 << 30
    finally:
        carrier.close()
        context.term()


FLOOD = 1_000
KERNEL_BYTES = sum(int(Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2]) for way in "rw")
"""What buffers of a connection of this machine may hold: some machines allow 6 MB, others 32."""


@pytest.mark.row("X03")
@pytest.mark.parametrize("way", ["sockets", "ports"])
def test_an_agents_inlet_takes_in_a_bounded_amount_and_what_waits_outside_comes_in_turn(
    way: str,
) -> None:
    keys, theirs = make_keys()
    context: zmq.Context[Any] = zmq.Context()
    carrier = HostSockets(context, Limits(heartbeat_s=60.0, lost_s=600.0))
    carrier.bound_inlet(REQUESTS, REQUEST_BYTES)
    gatekeeper = Gatekeeper(context, theirs.other_public, carrier.listeners) if way == "ports" else None
    directory = tempfile.TemporaryDirectory(dir="/tmp")  # short: it is a socket's path
    inlet, _ = (
        carrier.bind_ports("127.0.0.1", theirs) if gatekeeper else carrier.bind_sockets(Path(directory.name), "a")
    )
    outside: zmq.Context[Any] = zmq.Context()
    push = outside.socket(zmq.PUSH)
    push.linger, push.sndhwm, push.sndtimeo = 0, 1, SILENCE_MS
    if gatekeeper:
        keys.call(push)
    try:
        push.connect(inlet)
        push.sndtimeo = PATIENCE_MS
        push.send(b"0")
        push.sndtimeo = SILENCE_MS
        size, sent = REQUEST_BYTES // 4, 1
        with pytest.raises(zmq.Again):  # nobody takes them in, and who sends is held up
            while sent < FLOOD:
                push.send(str(sent).encode().ljust(size))
                sent += 1
        assert sent <= REQUESTS + KERNEL_BYTES / size + 8, "what waits there has no bound"
        push.sndtimeo = PATIENCE_MS
        carrier.patience_ms = PATIENCE_MS
        for number in range(2 * sent):
            if number >= sent:
                push.send(str(number).encode())
            data = carrier.receive()
            assert data is not None and int(data) == number, "lost, or out of turn"
    finally:
        push.close()
        outside.term()
        carrier.close()
        context.term()
        if gatekeeper is not None:
            gatekeeper._thread.join(10)
        directory.cleanup()
