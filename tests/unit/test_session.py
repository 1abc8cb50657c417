"""The session of a link by itself: whatever the way between two ends does, each message arrives once and in order."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.wire.frames import BATCH, SMALL, Kind, pack, split, unpack
from grid.wire.session import Session
from tests.torn import lines_torn_at


class Way:
    """A carrier that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()

    def send(self, data: bytes, flags: int = 0) -> None:
        self.messages.append(data)


def post(session: Session, body: bytes) -> None:
    number = session.posted + 1
    session.post(pack(Kind.CALL, 1, number, session.received, number, body))


def take(session: Session, message: bytes) -> list[bytes]:
    """What a receiver does: every frame of a message, in turn only."""
    taken = []
    for part in split(message) if message[0] == Kind.BATCH else [message]:
        frame = unpack(part)
        if session.is_next(frame.seq):
            taken.append(bytes(frame.pickle))
            session.received = frame.seq
    return taken


@pytest.mark.row("U01")
@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.integers(0, SMALL + 100), max_size=150))
def test_over_a_way_that_loses_and_doubles_all_arrives_once_and_in_order(seed: int, sizes: list[int]) -> None:
    chance, way, there = random.Random(seed), Way(), []
    ours, theirs = Session(1), Session(1)
    bodies = [number.to_bytes(4, "big") + b"x" * size for number, size in enumerate(sizes)]
    waiting = deque(bodies)
    for turn in range(10_000):
        if waiting and chance.random() < 0.5:
            post(ours, waiting.popleft())
        if chance.random() < 0.3:
            ours.flush(way)
        while way.messages and chance.random() < 0.7:
            message = way.messages.popleft()
            for _ in range(chance.choice((0, 1, 1, 2)) if turn < 5000 else 1):
                there += take(theirs, message)
        if chance.random() < 0.1:
            ours.confirm(theirs.received)
            ours.rewind(theirs.received)
        if not waiting and theirs.received == len(bodies):
            break
    assert there == bodies
    ours.confirm(theirs.received)
    assert not ours.kept


@pytest.mark.row("U01")
def test_small_messages_go_in_batches_and_large_ones_alone() -> None:
    session, way = Session(1), Way()
    for size in [1] * (BATCH + 3) + [SMALL] + [1] * 2:
        post(session, b"x" * size)
    session.flush(way)
    counts = [len(split(message)) if message[0] == Kind.BATCH else 1 for message in way.messages]
    assert counts == [BATCH, 3, 1, 2] and session.waiting == 0
    session.flush(way)
    assert len(way.messages) == 4, "nothing is sent twice without need"


@pytest.mark.row("U01")
def test_what_was_answered_is_not_repeated_and_a_confirmation_of_what_was_never_sent_does_no_harm() -> None:
    session, way = Session(1), Way()
    for number in range(6):
        post(session, bytes([number]))
    session.flush(way)
    way.messages.clear()
    for answered in (1, 2, 4):
        session.kept.pop(answered)
    session.rewind(2)
    session.flush(way)
    (batch,) = way.messages
    assert [unpack(part).seq for part in split(batch)] == [3, 5, 6]
    session.confirm(1 << 40)
    assert session.confirmed == 6 and not session.kept and session.outgoing() is None
    session.rewind(0)
    assert session.outgoing() is None, "what they have confirmed is never sent again"


@pytest.mark.row("U01")
def test_a_step_that_is_torn_off_at_any_byte_code_is_done_by_whoever_comes_next() -> None:
    def story(at: int) -> int:
        session, way, there, theirs = Session(1), Way(), [], Session(1)
        with lines_torn_at(at, "session.py") as torn:
            for number in range(5):
                post(session, bytes([number]))
                if number % 2:
                    session.flush(way)
            session.rewind(2)
            session.confirm(1)
            session.flush(way)
        for number in range(session.posted, 8):  # who was torn off before it counted posts it again
            post(session, bytes([number]))
        session.flush(way)
        for message in way.messages:
            there += take(theirs, message)
        assert there == [bytes([number]) for number in range(8)], torn.place
        session.confirm(theirs.received)
        assert not session.kept and session.outgoing() is None, torn.place
        return torn.count

    steps = story(0)
    assert steps > 300
    for at in range(1, steps + 1):
        story(at)
