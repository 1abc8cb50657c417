"""The wire by itself: frames, serialising, `__main__` between processes, blobs, a link that loses frames."""

from __future__ import annotations

import contextlib
import pickle
import random
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from grid import Limits
from grid.errors import ConnectError, GridError, SerialisationError, VersionError
from grid.kernel.hostend import HostEnd
from grid.services.result import Reply
from grid.wire import bulk, byvalue, codec, frames, tokens
from grid.wire.frames import Kind
from grid.wire.keys import make_keys
from grid.wire.lane_server import LaneServer
from grid.wire.link import Link
from grid.wire.zeromq import HostSockets, flush
from tests.lab.host import wait_until

words = st.integers(0, 2**32 - 1)


@pytest.mark.row("G67")
@given(
    st.integers(0, 255),
    words,
    words,
    words,
    words,
    st.binary(max_size=200),
    st.lists(st.binary(max_size=99), max_size=4),
)
def test_a_frame_comes_out_as_it_went_in(
    kind: int, peer: int, seq: int, ack: int, call: int, body: bytes, parts: list[bytes]
) -> None:
    data = frames.pack(kind, peer, seq, ack, call, body, [memoryview(part) for part in parts], 3, 1.5)
    frame = frames.unpack(data)
    assert frame[:7] == (kind, 3, peer, seq, ack, call, 1.5)
    assert bytes(frame.pickle) == body and [bytes(part) for part in frame.buffers] == parts


@pytest.mark.row("G67", "G68")
@settings(max_examples=500)
@given(st.binary(max_size=120), st.integers(-5, 5))
def test_garbage_is_refused_and_nothing_else_happens(noise: bytes, change: int) -> None:
    good = frames.pack(2, 1, 1, 0, 1, b"pickle", [memoryview(b"one"), memoryview(b"two")])
    broken = [noise, good + b"x" * change if change > 0 else good[:change]] if change else [noise]
    for data in broken:
        try:
            frames.unpack(data)
        except frames.FrameError:
            continue
        assert len(data) >= frames.HEAD.size, "taken for a message"


@pytest.mark.row("G43")
def test_buffers_stay_out_of_the_pickle_and_come_back_writable() -> None:
    value = bytearray(b"x") * 100_000
    dumped = codec.dumps({"a": pickle.PickleBuffer(value), "b": 1})
    assert len(dumped.buffers) == 1 and len(dumped.data) < 200 and dumped.nbytes > 100_000
    back = codec.loads(dumped.data, [bytearray(dumped.buffers[0])])
    assert bytes(back["a"]) == bytes(value)


@pytest.mark.row("G43")
def test_code_by_value_keeps_its_identity_and_names_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local:
        pass

    dumped = codec.dumps([Local, Local(), lambda x: x + 1])
    cls, instance, plus = codec.loads(dumped.data)
    assert cls is Local and type(instance) is Local and plus(1) == 2
    assert any("Local" in text for text in dumped.by_value) and any("lambda" in text for text in dumped.by_value)
    monkeypatch.setattr(byvalue, "CACHE_TAG", "cpython-27")
    foreign = codec.dumps(lambda: 1)
    monkeypatch.undo()
    tokens.forget_all()
    with pytest.raises(VersionError, match="cpython-27"):
        codec.loads(foreign.data)


@pytest.mark.row("G43")
def test_what_cannot_travel_is_named_by_its_path() -> None:
    class Engine:
        def __init__(self) -> None:
            self.parts = {"pump": [1, (item for item in ())]}

    with pytest.raises(SerialisationError, match=r"the engine\.parts\['pump'\]\[1\] is a builtins\.generator"):
        codec.dumps(Engine(), "the engine")


class Named(threading.Thread):
    """A thread that is made anew from its name."""

    def __reduce__(self) -> Any:
        return Named, (None, None, self.name)


class Bound(Future[Any]):
    """Says why it stays."""

    def __reduce__(self) -> Any:
        raise TypeError("ask its owner")


@pytest.mark.row("G43")
def test_threads_and_futures_stay_unless_their_class_says_how_they_travel() -> None:
    assert codec.loads(codec.dumps(Named(name="mill")).data).name == "mill"
    with pytest.raises(SerialisationError, match="ask its owner"):
        codec.dumps([Bound()])
    for stays, why in ((threading.Thread(), "runs in the process"), (Future[int](), "settled in the process")):
        with pytest.raises(SerialisationError, match=why):
            codec.dumps([stays])


SENDER = """
import enum, math, pickle, sys
from collections import namedtuple
from dataclasses import dataclass
from grid.wire import codec
from grid.wire.mainimage import MainImage, wrap

FACTOR = 3
class Colour(enum.Enum):
    RED = 1
    def low(self): return self.name.lower()
@dataclass
class State:
    x: float
    colour: Colour = Colour.RED
Point = namedtuple("Point", "a b")
def fact(n): return 1 if n < 2 else n * fact(n - 1)
def traced(f):
    def inner(*args): return f(*args)
    return inner
class Base:
    scale = 2
    def __init__(self): self.state = State(1.0)
    @property
    def size(self): return self.scale * FACTOR
class Derived(Base):
    def __init__(self):
        super().__init__()
        self.point = Point(1, 2)
    @staticmethod
    def root(x): return math.sqrt(x)
    @traced
    def check(self, state):
        return (isinstance(state, State), state == self.state, state.colour.low(), self.size, self.root(4), fact(5),
                self.point == Point(1, 2))
lock = __import__("threading").Lock()
def unrelated(): return lock, open
if __name__ == "__main__":
    dumped = codec.dumps([Derived(), State(1.0)])
    image = MainImage().pack(dumped.main_names)
    assert "unrelated" not in image.entries and not image.behind
    assert not MainImage().lacking(dumped.main_names, image.entries)
    sys.stdout.buffer.write(pickle.dumps((wrap(image.parts), dumped.data, sorted(image.modules))))
"""
RECEIVER = """
import pickle, sys
from grid.wire import codec, mainimage
image, data, modules = pickle.loads(sys.stdin.buffer.read())
mainimage.arrive(image)
derived, state = codec.loads(data)
print(derived.check(state), modules)
again = codec.dumps(state)
assert not again.by_value and again.main_names == {"State", "Colour"} , again.main_names
"""


@pytest.mark.row("G43")
def test_what_a_script_defines_works_in_a_process_that_never_saw_it(tmp_path: Path) -> None:
    (tmp_path / "sender.py").write_text(SENDER)
    sent = subprocess.run([sys.executable, str(tmp_path / "sender.py")], capture_output=True, timeout=30)
    assert sent.returncode == 0, sent.stderr.decode()
    done = subprocess.run([sys.executable, "-c", RECEIVER], input=sent.stdout, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "(True, True, 'red', 6, 2.0, 120, True) ['collections', 'math']\n" or (
        done.stdout.decode().startswith("(True, True, 'red', 6, 2.0, 120, True)")
    )


@pytest.mark.row("G67", "G68")
def test_blobs_travel_over_the_lane_and_strangers_get_nothing(tmp_path: Path) -> None:
    ours, theirs = make_keys()
    store = bulk.BlobStore(tmp_path)
    server = LaneServer("127.0.0.1", theirs.tls(server=True), store)

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", server.port), 5)

    lane = bulk.Lane(connect, ours.tls(server=False), "here", 10.0)
    try:
        for size in (0, 1, 63, 64, 65, 5_000_000):
            parts = [memoryview(random.Random(size).randbytes(size)), memoryview(b"end")]
            name = lane.write(parts)
            near = store.read(name, [size, 3], drop=False)
            assert [bytes(view) for view in near] == [bytes(part) for part in parts]
            near[1][:] = b"NEW"  # private: the blob stays as it was
            assert [bytes(view) for view in lane.read(name, [size, 3])] == [bytes(part) for part in parts]
            del near
            wait_until(lambda: not list(tmp_path.iterdir()), "removal of the blob")
        for bad in ("../../etc/passwd", "0" * 31, "Z" * 32):
            with pytest.raises(GridError):
                store.path(bad)
        with pytest.raises(GridError):
            lane.read("0" * 32, [1])
        stranger, _ = make_keys()
        with pytest.raises((ssl.SSLError, OSError, ConnectError)):
            bulk.Lane(connect, stranger.tls(server=False), "stranger", 5.0).write([memoryview(b"x")])
        assert list(tmp_path.iterdir()) == []
    finally:
        lane.close()
        server.close()


@pytest.mark.row("G14", "G67")
@pytest.mark.parametrize("seed", range(2))
def test_every_call_is_answered_once_and_in_order_though_frames_are_lost_and_doubled(tmp_path: Path, seed: int) -> None:
    limits = Limits(heartbeat_s=0.1, lost_s=1.0)
    context: zmq.Context[Any] = zmq.Context()
    carrier = HostSockets(context, limits)
    end = HostEnd(carrier, 7)
    chance, ran = random.Random(seed), []
    batches: set[int] = set()
    inlet, outlet = carrier.bind_sockets(tmp_path, "p7")
    really_send = carrier.send

    def send(frame: bytes) -> None:  # the way back loses and doubles
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            really_send(frame)

    carrier.send = send  # type: ignore[method-assign]

    def serve() -> None:
        while not end.said_bye:
            data = carrier.receive()
            assert data is not None
            with end.holding() if data[0] == Kind.BATCH else contextlib.nullcontext():
                # and so does the way there
                for frame in end.take(data) if chance.random() > 0.15 or data[0] == Kind.BYE else []:
                    ran.append(codec.loads(frame.pickle))
                    end.reply(frame.call, pickle.dumps(ran[-1] * 2))
                    batches.add(data[0])
        end.close()
        flush(context)

    server = threading.Thread(target=serve)
    server.start()
    link = Link(limits)
    stop = threading.Event()

    def collect() -> None:
        link.collect()

    def housekeep() -> None:
        while not stop.wait(0.1):
            link.read_monitor()
            link.housekeep()

    threads = [threading.Thread(target=collect), threading.Thread(target=housekeep)]
    for thread in threads:
        thread.start()
    peer = link.connect(7, inlet, outlet, None, None)
    try:
        assert peer.welcomed.wait(10)
        replies = []
        for value in range(400):
            replies.append(Reply(link))
            link.call(peer, codec.dumps(value), replies[-1])
            if value < 20:
                replies[-1].get(30)  # so that some go alone, whatever gets lost
        assert [reply.get(30) for reply in replies] == [2 * value for value in range(400)]
        assert ran == list(range(400)), "a call was lost, doubled or out of order"
        assert batches == {Kind.CALL, Kind.BATCH}, "calls went alone and in batches"
    finally:
        link.bye(peer)
        server.join(10)
        link.close()
        stop.set()
        for thread in threads:
            thread.join(10)
        link.destroy()
