"""The decoder against an enemy: more than a million frames that nobody of ours has sent.

They are made of bytes, with `random.Random`: random ones, valid ones with bytes changed, cut, lengthened, spliced, and
with lengths and counts that promise too much. What may happen is a FrameError, or a message that is dropped.

That nothing is unpickled on the way is checked by putting a trap in place of every unpickler (`no_unpickling`): the C
one, dill's, and the codec's own. Content is loaded by the server's loop and by results, behind CURVE.
"""

from __future__ import annotations

import logging
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from grid.kernel.hostend import HostEnd
from grid.limits import Limits
from grid.services.result import Reply
from grid.testing.cables import Clock, Network
from grid.wire import codec
from grid.wire.frames import HEAD, FrameError, Kind, pack, split, unpack
from grid.wire.link import Link

UNPACKED, TAKEN_BY_HOST, TAKEN_BY_CLIENT = 600_000, 250_000, 200_000
MEMORY = 64 << 20
"""Growth of this process that a run may cause, in bytes."""


@pytest.fixture(autouse=True)
def no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    def trap(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was unpickled")

    for owner, name in ((pickle, "loads"), (pickle, "load"), (dill, "loads"), (codec, "loads")):
        monkeypatch.setattr(owner, name, trap)
    monkeypatch.setattr(pickle, "Unpickler", trap)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning for each of a million messages takes longer than all the rest."""
    logger = logging.getLogger("grid")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture
def frugal() -> Iterator[None]:
    before = resident()
    yield
    assert resident() - before < MEMORY


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seeds(rng: random.Random, peer: int) -> list[bytes]:
    """Valid messages of all kinds and sizes."""
    found = [pack(kind, peer, rng.randrange(5), rng.randrange(5), rng.randrange(5)) for kind in (*Kind, 0, 77, 255)]
    for size in (0, 1, 7, 300, 5000):
        body = rng.randbytes(size)
        found.append(pack(Kind.CALL, peer, 1, 0, 1, body))
        found.append(pack(Kind.REPLY, peer, 1, 1, 1, body, [body, b"", body[:3]], flags=rng.randrange(256)))
        found.append(pack(Kind.EVENT, peer, 1, 0, 0, body))
    found.append(pack(Kind.BATCH, peer, 0, 0, buffers=found[:20]))
    found.append(pack(Kind.BATCH, peer, 0, 0, buffers=[found[-1], b"", found[0]]))
    return found


def enemy(rng: random.Random, count: int, peer: int = 1) -> Iterator[bytes]:
    """`count` messages. Each choice is a bit of one random number: that is most of what a message costs."""
    valid = seeds(rng, peer)
    for _ in range(count):
        dice = rng.getrandbits(64)
        data = valid[dice % len(valid)]
        dice >>= 16
        kind = dice & 7
        dice >>= 3
        if kind < 3:  # bytes changed, mostly in the head
            changed = bytearray(data)
            for _ in range(1 + (dice & 3)):
                dice >>= 2
                changed[dice % (len(changed) if dice & 1 else HEAD.size)] = dice >> 8 & 0xFF
            yield bytes(changed)
        elif kind == 3:
            yield data[: dice % (len(data) + 1)]
        elif kind == 4:
            yield data + data[: dice & 63]
        elif kind == 5:  # lengths and counts that promise too much
            at = (2, 40, 44, 48)[dice & 3]
            yield data[:at] + b"\xff\xff\xff\xff"[: 1 + (dice >> 2 & 3)] + data[at + 1 + (dice >> 2 & 3) :]
        elif kind == 6:
            other = valid[dice % len(valid)]
            yield data[: dice >> 8 & 63] + other[dice >> 14 & 63 :]
        else:
            yield rng.randbytes(dice & 127)


@pytest.mark.row("G67", "G68")
def test_the_decoder_raises_frame_errors_only(frugal: None) -> None:
    outcomes = {"whole": 0, "refused": 0}
    for data in enemy(random.Random(1), UNPACKED):
        for decode in (unpack, split):
            try:
                decode(data)
                outcomes["whole"] += 1
            except FrameError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > UNPACKED / 10, "the mutations are one-sided"


@pytest.mark.row("G67", "G68")
def test_a_host_drops_what_is_no_message_and_goes_on(frugal: None) -> None:
    network = Network(random.Random(2), Clock())
    carrier = network.host(Limits())
    end = HostEnd(carrier, 1)
    carrier.bind_sockets(Path("/fuzz"), "p1")
    network.replies["ipc:///fuzz/p1.o"].wanted = True
    network.replies["ipc:///fuzz/p1.o"].mend()
    due = 0
    for number, data in enumerate(enemy(random.Random(3), TAKEN_BY_HOST)):
        due += len(end.take(data))
        if not number % 1000:  # what it says to all that is of no interest; a reply of its own stays bounded, too
            carrier.push.outs[-1].clear()  # type: ignore[attr-defined]
            end.reply(1, b"r")
            end.session.kept.clear()
            end.due.clear()
            if end.session.received > 100:
                end.session.received = 0  # else its next in turn is out of reach for most
    assert due
    (frame,) = end.take(pack(Kind.CALL, 1, end.session.received + 1, 0, 1, b"the rightful"))
    assert bytes(frame.pickle) == b"the rightful"


@pytest.mark.row("G67", "G68")
def test_a_client_drops_what_is_no_message_and_goes_on(frugal: None) -> None:
    network = Network(random.Random(4), Clock())
    link = Link(Limits(), carrier=network.client(Limits()), clock=network.clock)
    hostile, honest = (link.connect(number, f"ipc://{number}.i", f"ipc://{number}.o", None, None) for number in (1, 2))
    answered = 0
    for number, data in enumerate(enemy(random.Random(5), TAKEN_BY_CLIENT)):
        link._take_in(data)
        if number % 1000:
            continue
        reply = Reply(link)
        link.call(honest, codec.Dumped(b"call"), reply)
        link._take_in(pack(Kind.REPLY, 2, honest.session.received + 1, 0, reply.call, b"x"))
        answered += reply.done_flag
        for cable in network.calls.values():
            cable.queue.clear()
        while not link._errands.empty():
            link._errands.get()
        hostile.session.received = 0
        link.call(hostile, codec.Dumped(b"call"), Reply(link))
    assert answered == TAKEN_BY_CLIENT / 1000
    assert not honest.pending
    link.close()


@pytest.mark.row("G67")
def test_calls_before_a_broken_one_in_a_batch_are_not_lost() -> None:
    end = HostEnd(Network(random.Random(0), Clock()).host(Limits()), 1)
    calls = [pack(Kind.CALL, 1, number, 0, number, b"call") for number in (1, 2, 3)]
    taken = end.take(pack(Kind.BATCH, 1, 0, 0, buffers=[calls[0], calls[1][:-1], calls[2]]))
    assert [frame.seq for frame in taken] == [1]  # the third is repeated with the second
    assert [frame.seq for frame in end.take(pack(Kind.BATCH, 1, 0, 0, buffers=calls))] == [2, 3]


def test_a_cut_reply_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(random.Random(0), Clock())
    link = Link(Limits(), carrier=network.client(Limits()), clock=network.clock)
    peer = link.connect(1, "ipc://1.i", "ipc://1.o", None, None)
    for buffers in ((), (b"buffer",)):
        reply = Reply(link)
        link.call(peer, codec.Dumped(b"call"), reply)
        whole = pack(Kind.REPLY, 1, peer.session.received + 1, 0, reply.call, b"value", buffers)
        for cut in range(len(whole)):
            link._take_in(whole[:cut])
        assert not reply.done_flag and reply.call in peer.pending
        link._take_in(whole)
        assert reply.done_flag
    link.close()


assert UNPACKED + TAKEN_BY_HOST + TAKEN_BY_CLIENT > 1_000_000
