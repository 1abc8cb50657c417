"""A link over another carrier than ZeroMQ: queues in memory, with nothing of it in the link's own code."""

from __future__ import annotations

import ast
import pickle
import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import grid
from grid.errors import ConnectError
from grid.kernel.hostend import HostEnd
from grid.limits import Limits
from grid.services.result import Reply
from grid.wire import codec
from grid.wire.carrier import ClientCarrier, HostCarrier, Waker
from grid.wire.frames import Kind
from grid.wire.link import Link, Peer


class Inbox:
    """Frames of all that send here."""

    patience_ms = 500

    def __init__(self) -> None:
        self.frames: queue.Queue[bytes] = queue.Queue()
        self.bell = None  # nobody polls here

    def receive(self) -> bytes | None:
        try:
            return self.frames.get(timeout=self.patience_ms / 1000)
        except queue.Empty:
            return None

    def receive_now(self) -> bytes | None:
        return None if self.frames.empty() else self.frames.get()

    def close(self) -> None: ...


class Way:
    def __init__(self, memory: Memory, inlet: str) -> None:
        self._memory = memory
        self.lead(inlet)

    def lead(self, inlet: str) -> None:
        self._inlet = inlet

    def send(self, data: bytes) -> None:
        self._memory.deliver(self._memory.hosts[self._inlet], data)

    def close(self) -> None: ...


class Memory(Inbox):
    """The client's end, and all inlets. It loses and doubles frames by chance."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.hosts: dict[str, Host] = {}
        self.attached: dict[str, int] = {}  # outlet -> process
        self.told: queue.SimpleQueue[tuple[int, bool]] = queue.SimpleQueue()

    def deliver(self, to: Inbox, data: bytes) -> None:
        for _ in range(self.chance.choice((0, 1, 1, 1, 1, 2))):
            to.frames.put(data)

    def way(self, inlet: str, keys: Any) -> Way:
        return Way(self, inlet)

    def attach(self, number: int, outlet: str, keys: Any) -> None:
        self.attached[outlet] = number
        self.told.put((number, True))

    def detach(self, number: int) -> None:
        self.attached = {outlet: each for outlet, each in self.attached.items() if each != number}

    def rouse(self, frame: bytes) -> None:
        self.frames.put(frame)

    def news(self) -> tuple[int, bool] | None:
        return None if self.told.empty() else self.told.get()

    def forked(self) -> None: ...


class Host(Inbox):
    """The end of one process."""

    def __init__(self, memory: Memory, name: str) -> None:
        super().__init__()
        self._memory, self.name = memory, name
        memory.hosts[name] = self

    def send(self, data: bytes) -> None:
        if self.name in self._memory.attached:
            self._memory.deliver(self._memory, data)

    send_patiently = send

    def admitted(self) -> bool:
        return self.name in self._memory.attached

    def waker(self) -> Waker:
        raise AssertionError("no signal comes here")


class Stage:
    """A link, its grid's thread, and processes that double the numbers that they are called with."""

    def __init__(self, seed: int) -> None:
        self.memory = Memory(random.Random(seed))
        carrier: ClientCarrier = self.memory
        self.link = Link(Limits(heartbeat_s=0.05, lost_s=1.0), carrier=carrier)
        self.ran: dict[str, list[int]] = {}
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=body) for body in (self.link.collect, self._watch)]
        for thread in self.threads:
            thread.start()

    def _watch(self) -> None:
        while not self.stopped.wait(0.02):
            self.link.read_monitor()
            self.link.housekeep()

    def _serve(self, host: HostCarrier, name: str, number: int) -> None:
        end = HostEnd(host, number)
        while not end.said_bye and not self.stopped.is_set():
            data = host.receive()
            if data is None:
                continue
            for frame in end.take(data):
                self.ran[name].append(codec.loads(frame.pickle))
                end.reply(frame.call, pickle.dumps(self.ran[name][-1] * 2))
        end.close()

    def process(self, name: str) -> Peer:
        self.ran[name] = []
        number = self.link.number()
        thread = threading.Thread(target=self._serve, args=(Host(self.memory, name), name, number))
        thread.start()
        self.threads.append(thread)
        return self.link.connect(number, name, name, None, None)

    def call(self, peer: Peer, number: int) -> Reply:
        reply = Reply(self.link)
        self.link.call(peer, codec.dumps(number), reply)
        return reply

    def end(self) -> None:
        self.link.close()
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        self.link.destroy()


@pytest.fixture(params=range(3))
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(request.param)
    yield stage
    stage.end()


@pytest.mark.row("U01")
def test_every_call_is_answered_once_and_in_order_over_a_carrier_in_memory(stage: Stage) -> None:
    peers = {name: stage.process(name) for name in ("a", "b")}
    replies = [(name, number, stage.call(peer, number)) for number in range(200) for name, peer in peers.items()]
    for _, number, reply in replies:
        assert reply.get(60) == 2 * number
    assert stage.ran == {"a": list(range(200)), "b": list(range(200))}


@pytest.mark.row("U01")
def test_a_process_that_is_reached_another_way_goes_on_and_one_that_is_dropped_does_not(stage: Stage) -> None:
    one, other = stage.process("a"), stage.process("b")
    assert stage.call(one, 1).get(60) == 2
    stage.memory.hosts["c"] = stage.memory.hosts["a"]
    stage.memory.hosts["a"].name = "c"
    stage.link.reroute(one, "c", "c")
    assert stage.call(one, 2).get(60) == 4 and stage.ran["a"] == [1, 2]
    waiting = stage.call(other, 1)
    stage.link.drop(other, ConnectError("it is lost", host="h", hint=""))
    with pytest.raises(ConnectError, match="it is lost"):
        stage.call(other, 2)
    assert waiting.done_flag and stage.call(one, 3).get(60) == 6


@pytest.mark.row("U01")
@pytest.mark.parametrize(
    "name", ["wire/link.py", "wire/peer.py", "wire/session.py", "wire/carrier.py", "kernel/hostend.py"]
)
def test_what_is_above_the_carrier_names_no_socket(name: str) -> None:
    tree = ast.parse((Path(grid.__file__).parent / name).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert "zmq" not in imported


def test_a_small_call_is_a_call_and_its_reply_a_reply() -> None:
    from grid.wire.frames import CALL, REPLY

    assert (CALL, REPLY) == (Kind.CALL, Kind.REPLY)
