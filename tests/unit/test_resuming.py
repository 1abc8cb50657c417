"""A link whose client dies again and again, over cables that lose and repeat messages: each call runs once, in order.

Real are both ends of the link, the carrier that writes down, the log and what a new client makes of it.
"""

from __future__ import annotations

import pickle
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from grid.grids.resuming import go_on, method_of, stamped
from grid.keeping.carrier import KeptCarrier
from grid.keeping.journal import Journal
from grid.keeping.memory import Past
from grid.kernel.hostend import HostEnd
from grid.limits import Limits
from grid.services.result import Reply
from grid.testing.cables import Clock, Network
from grid.wire import codec
from grid.wire.frames import Kind, pack, unpack
from grid.wire.link import Link


class Stage:
    """One server, and clients that come one after the other; one thread, time passes while somebody waits."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.rng = random.Random(seed)
        self.network = Network(self.rng, Clock(), noise=0.03)
        self.network.while_waiting = self.go_on
        carrier = self.network.host(Limits())
        self.end = HostEnd(carrier, 1)
        self.end._watcher = threading.current_thread()  # which lets go in its place
        self.inlet, self.outlet = carrier.bind_sockets(Path("/kept"), "p1")
        self.log = directory / f"log{seed}"
        self.ran: list[str] = []
        self.tokens = 0
        self.epoch = -1
        self.come()

    def come(self) -> None:
        """Another client takes the place of the one that is dead, or asleep."""
        self.epoch += 1
        self.journal = Journal(self.log)
        past = self.journal.memory.peers.get(1, Past())
        if self.epoch:
            self.outlet = self.end.hand_over(self.epoch)
        session = self.end.session
        numbers = session.received, session.posted, session.confirmed
        carrier = KeptCarrier(self.network.client(Limits()), self.journal)
        carrier.peers.add(1)
        self.link = Link(Limits(heartbeat_s=0.05), carrier=carrier, clock=self.network.clock, epoch=self.epoch)
        self.waiting = {call: Reply(self.link) for call in past.calls if call not in past.replies}
        pending = dict(self.waiting)
        self.peer = self.link.connect(
            1, self.inlet, self.outlet, None, None, lambda peer: go_on(peer, past, pending, numbers)
        )

    def die(self) -> None:
        """What is not written down, or under way, is lost."""
        self.journal.leaving = True
        self.journal.close()
        self.network.inbox.clear()
        self.link._carrier.close()

    def call(self) -> None:
        """One more call; it returns what it was given."""
        self.tokens += 1
        reply = Reply(self.link)
        number = self.link.call(self.peer, codec.dumps(("echo", (f"t{self.tokens}",), {})), reply)
        self.waiting[number] = reply

    def go_on(self, seconds: float) -> None:
        """Some of what is under way arrives, the server works, the grid's thread does its errands."""
        self.network.clock.now += 0.01
        for cable in (*self.network.calls.values(), *self.network.replies.values()):
            if self.rng.random() < 0.05:
                cable.break_()
            cable.mend()
            cable.carry(self.rng.randint(0, 30))
        for cable in self.network.replies.values():
            cable.notice_here()
            cable.notice_there()
        while self.end.carrier.bell and (data := self.end.carrier.receive_now()) is not None:
            for frame in self.end.take(data):
                _, (token,), _ = codec.loads(frame.pickle)
                self.ran.append(token)
                self.end.reply(frame.call, pickle.dumps(token, 5))
        for cable in self.network.replies.values():
            cable.carry(self.rng.randint(0, 30))
        self.link.read_monitor()
        self.link._run_errands()
        self.link._flush_all()
        if self.rng.random() < 0.2:
            self.link.housekeep()


@pytest.mark.row("Z03", "Z05")
def test_a_client_that_dies_again_and_again_loses_no_call_that_it_wrote_down_and_none_runs_twice(
    tmp_path: Path,
) -> None:
    for seed in range(25):
        stage = Stage(seed, tmp_path)
        for _ in range(stage.rng.randint(1, 6)):
            for _ in range(stage.rng.randint(0, 60)):
                if stage.rng.random() < 0.7:
                    stage.call()
                else:
                    stage.go_on(0.0)
                    stage.link._collect_now()
            stage.die()
            stage.come()
        for _ in range(3000):
            if all(reply.done() for reply in stage.waiting.values()):
                break
            stage.go_on(0.0)
            stage.link._collect_now()
        assert all(reply.done() for reply in stage.waiting.values()), f"seed {seed}"
        stage.die()
        last = Journal(stage.log)
        last.close()
        past = last.memory.peers.get(1, Past())
        assert set(past.calls) == set(past.replies) == set(range(1, past.posted + 1)), f"seed {seed}"
        for number, frame in past.calls.items():
            _, (token,), _ = codec.loads(unpack(frame).pickle)
            assert pickle.loads(unpack(past.replies[number]).pickle) == token, f"seed {seed}"
            assert stage.ran[number - 1] == token, f"seed {seed}"
        assert len(stage.ran) == past.posted and set(Counter(stage.ran).values()) <= {1}, f"seed {seed}"


@pytest.mark.row("Z03", "Z05")
def test_a_host_takes_nothing_of_a_client_whose_place_another_has_taken() -> None:
    network = Network(random.Random(1), Clock())
    carrier = network.host(Limits())
    end = HostEnd(carrier, 1)
    _, outlet = carrier.bind_sockets(Path("/kept"), "p1")
    old = pack(Kind.CALL, 1, 1, 0, 1, b"old")
    fresh = end.hand_over(2)
    assert fresh != outlet and end.take(old) == [] and end.take(stamped(old, 1)) == []
    (taken,) = end.take(stamped(old, 2))
    assert bytes(taken.pickle) == b"old" and end.session.received == 1
    assert end.take(pack(Kind.BYE, 1, 0, 0)) == [] and not end.said_bye
    last_word: list[bytes] = []
    end.event(b"output")
    end.event(b"ready")
    third = end.begin_anew(3, b"taken", lambda event: bytes(event) == b"output")
    assert third != fresh and end.session.posted == 1 and not end.due and not last_word
    assert bytes(unpack(end.session.kept[1]).pickle) == b"output" and end.session.received == 3 << 32


@pytest.mark.row("Z03")
def test_where_the_log_has_a_hole_the_number_is_filled_and_the_method_of_a_call_is_read_without_loading() -> None:
    link = Link(Limits(), carrier=Network(random.Random(1), Clock()).client(Limits()), epoch=4)
    frames = {n: pack(Kind.CALL, 1, n, 0, n, codec.dumps(("echo", (n,), {})).data) for n in (2, 5)}
    past = Past(posted=5, received=1, calls=frames)
    peer = link.connect(1, "ipc://x", "ipc://y", None, None, lambda peer: go_on(peer, past, {}, (2, 1, 1)))
    assert (peer.session.posted, peer.session.confirmed, peer.session.received) == (5, 2, 1)
    kept = {number: unpack(frame) for number, frame in peer.session.kept.items()}
    assert set(kept) == {3, 4, 5} and {frame.seconds for frame in kept.values()} == {4.0}
    assert [method_of(peer.session.kept[number]) for number in (3, 4, 5)] == ["@nothing", "@nothing", "echo"]
    assert method_of(b"nonsense") == "?"
    link.close()
    link.destroy()
