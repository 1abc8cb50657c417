"""The bulk lane's door: strangers who wait there, and what they send."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.wire import bulk
from grid.wire.keys import make_keys
from grid.wire.lane_server import LaneServer
from grid.wire.limits import SPEAKERS, strangers

CROWD = 500
LARGE = 2_000_000
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""What a ClientHello of 512 bytes begins with."""


class Scene:
    """A lane's server, its rightful user, and room for strangers."""

    def __init__(self, directory: Path) -> None:
        ours, theirs = make_keys()
        self.store = bulk.BlobStore(directory)
        self.server = LaneServer("127.0.0.1", theirs.tls(server=True), self.store)
        self.context = ours.tls(server=False)
        self.lines: list[socket.socket] = []

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), 5)

    def stranger(self, says: bytes = b"") -> socket.socket:
        line = self.connect()
        self.lines.append(line)
        if says:
            line.sendall(says)
        return line

    def round_trip(self) -> float:
        """A rightful transfer there and back, over a connection of its own; seconds."""
        began = time.perf_counter()
        lane = bulk.Lane(self.connect, self.context, "here", 10.0)
        data = os.urandom(LARGE)
        name = lane.write([memoryview(data)])
        assert bytes(lane.read(name, [LARGE])[0]) == data
        lane.close()
        return time.perf_counter() - began

    def close(self) -> None:
        for line in self.lines:
            line.close()
        self.server.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.mark.row("X02", "G68")
@pytest.mark.parametrize(
    "says", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "a byte", "a beginning"]
)
def test_strangers_who_wait_at_the_lane_keep_nobody_waiting(scene: Scene, says: bytes) -> None:
    scene.round_trip()
    for _ in range(CROWD):
        scene.stranger(says)
    assert min(scene.round_trip() for _ in range(3)) < 1.0
    assert len(scene.server._strangers) <= strangers() and len(scene.server._speakers) <= SPEAKERS


@pytest.mark.row("X02", "G68")
def test_a_stream_of_new_strangers_keeps_nobody_waiting(scene: Scene) -> None:
    took = []
    for _ in range(5):
        for _ in range(CROWD // 5):
            scene.stranger()
        took.append(scene.round_trip())
    assert min(took) < 1.0


@pytest.mark.row("X02", "G68")
def test_garbage_at_the_lane_closes_it_for_who_sent_it_alone(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(1)
    with caplog.at_level(logging.WARNING):
        for number in range(300):
            line = scene.stranger()
            try:
                line.sendall((b"", b"\x16\x03\x01")[number % 2] + rng.randbytes(rng.randrange(1, 5000)))
            except OSError:
                pass  # it was closed already
        scene.round_trip()
    end = time.monotonic() + 30  # the server drops a value a moment after it was read
    while (left := [path.name for path in scene.store.directory.iterdir()]) and time.monotonic() < end:
        time.sleep(0.01)
    assert not caplog.records and not left
