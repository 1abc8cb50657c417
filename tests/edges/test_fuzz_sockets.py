"""An enemy's frames at real sockets of an agent, a server and the lane: dropped, and the next call is served.

Three enemies: who holds the client's key and sends nonsense over CURVE; who holds none and sends it as bytes to the
port; who does so at the lane, before and behind TLS. `GRID_FRAMES` says how many there are; `scripts/nightly` has a
million for each socket.
"""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from grid import Host, Limits, SSHGrid
from grid.testing.probe import Probe
from grid.wire.frames import FrameError, Kind, unpack
from tests.lab import Lab, LabHost
from tests.lab.titles import is_kernel
from tests.unit.test_wire_enemy import enemy

pytestmark = pytest.mark.lab

FRAMES = int(os.environ.get("GRID_FRAMES", "10000"))
WITH_A_KEY = min(FRAMES, 20_000)
"""Who holds the client's key is the client, and bounds by itself what is under way: the host takes in all it gets."""
MEMORY_MB = 64
LIMITS = Limits(stop_s=2.0, start_s=30.0)


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab([LabHost("one")]) as lab:
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def memory_mb(net: Lab) -> dict[int, int]:
    found = {}
    for pid, command in net.hosts["one"].processes():
        status = Path(f"/proc/{pid}/status")
        if is_kernel(command) and status.exists():
            resident = re.search(r"VmRSS:\s+(\d+)", status.read_text())
            found[pid] = int(resident[1]) // 1024 if resident else 0
    return found


def is_nonsense(data: bytes) -> bool:
    """Not a message that the client could have sent itself: with its key that would be no attack."""
    try:
        kind = unpack(data).kind
    except FrameError:
        return True
    return kind not in set(Kind)


@pytest.mark.row("X09", "G67", "G68")
@pytest.mark.parametrize("which", ["agent", "server"])
def test_frames_of_an_enemy_at_a_curve_socket_are_dropped_and_the_next_call_is_served(net: Lab, which: str) -> None:
    rng = random.Random(which)
    with SSHGrid([Host("one", transport="direct")], limits=LIMITS, output=None) as g:
        with g.acquire_service(g.publish(Probe())) as proxy:
            assert proxy.add().get(20) == 1
            home = g._engine.fleet.homes[0]
            ends = list(home._tunnels.values())[0 if which == "agent" else 1]
            before = memory_mb(net)
            with zmq.Context() as context, context.socket(zmq.PUSH) as push:
                push.sndhwm = 1000
                push.sndtimeo = 20_000
                home._keys[0].call(push)
                push.connect(ends[0])
                for number, data in enumerate(enemy(rng, WITH_A_KEY, peer=7)):
                    if is_nonsense(data):
                        push.send(data)
                    if not number % (WITH_A_KEY // 10):
                        assert proxy.add().get(30) > 1
                push.close(5000)
            assert proxy.add().get(30) == 12
            assert home.ask("status")["pid"] in {home.report["pid"]}
            grown = [memory_mb(net)[pid] - size for pid, size in before.items() if pid in memory_mb(net)]
            assert max(grown) <= MEMORY_MB


@pytest.mark.row("X09", "G67", "G68")
@pytest.mark.parametrize("which", ["agent", "server", "lane"])
def test_frames_of_an_enemy_without_a_key_get_nowhere(net: Lab, which: str) -> None:
    rng = random.Random(which)
    with SSHGrid([Host("one", transport="direct")], limits=LIMITS, output=None) as g:
        with g.acquire_service(g.publish(Probe())) as proxy:
            assert proxy.add().get(20) == 1
            home = g._engine.fleet.homes[0]
            ends = list(home._tunnels.values())[1 if which == "server" else 0]
            address, _, port = ends[0][6:].rpartition(":")
            at = home.report["lane_port"] if which == "lane" else int(port)
            before = memory_mb(net)
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
            frames: Iterator[bytes] = enemy(rng, FRAMES)
            left = FRAMES
            while left > 0:
                with socket.create_connection((address, at), 10) as line:
                    line.settimeout(10)
                    if which != "lane" and rng.random() < 0.7:
                        line.sendall(greeting)
                    try:
                        for _ in range(200):
                            left -= 1
                            data = next(frames, b"")
                            framed = bytes([4 * (rng.random() < 0.5), len(data) & 255]) + data
                            line.sendall(framed if which != "lane" else b"\x16\x03\x01" + framed)
                    except OSError:
                        pass  # it was shown the door
            assert proxy.add().get(30) == 2
            assert len(proxy.echo(bytes(1_000_000)).get(30)) == 1_000_000
            grown = [size for pid, now in memory_mb(net).items() if pid in before and (size := now - before[pid])]
            assert max(grown, default=0) <= MEMORY_MB


@pytest.mark.row("X09", "G67", "G68")
def test_frames_of_an_enemy_with_the_certificate_end_their_own_stream_alone(net: Lab) -> None:
    rng = random.Random("inside")
    with SSHGrid([Host("one", transport="direct")], limits=LIMITS, output=None) as g:
        with g.acquire_service(g.publish(Probe())) as proxy:
            home = g._engine.fleet.homes[0]
            address = home.report["ready"][0][6:].rpartition(":")[0]
            context = home._keys[0].tls(server=False)
            deadline = time.monotonic() + 120
            for number, data in enumerate(enemy(rng, max(100, FRAMES // 100))):
                assert time.monotonic() < deadline
                with context.wrap_socket(socket.create_connection((address, home.report["lane_port"]), 10)) as line:
                    try:
                        line.sendall(data + (b"\n" if number % 2 else b'{"op": "get", "name": "../x"}\n'))
                    except OSError:
                        pass
            assert len(proxy.echo(bytes(1_000_000)).get(30)) == 1_000_000
