"""One message of the wire, byte by byte: what is packed comes out, and what does not add up is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.wire import frames
from grid.wire.frames import COST, HEAD, MEASURED, FrameError, Kind, pack, split, unpack

pytestmark = pytest.mark.row("X09", "U01")
big = st.integers(0, 2**64 - 1)


@given(
    st.sampled_from(Kind), st.integers(0, 2**32 - 1), big, big, big, st.binary(max_size=50),
    st.lists(st.binary(max_size=20), max_size=5), st.integers(0, 255), st.floats(allow_nan=False),
)  # fmt: skip
def test_what_is_packed_comes_out(
    kind: Kind, peer: int, seq: int, ack: int, call: int, data: bytes, buffers: list[bytes], flags: int, seconds: float
) -> None:
    cost = MEASURED.pack(1.5, 2e6, -1.0) if flags & COST else b""
    raw = pack(kind, peer, seq, ack, call, data, buffers, flags, seconds, cost)
    frame = unpack(raw)
    assert frame[:7] == (kind, flags, peer, seq, ack, call, seconds)
    assert frame.pickle == data and [bytes(each) for each in frame.buffers] == buffers
    assert len(raw) == 44 + len(data) + sum(4 + len(each) for each in buffers) + len(cost) and raw.endswith(cost)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for read in (unpack, split):
        try:
            read(data)
        except FrameError:
            pass


@given(st.lists(st.binary(max_size=9), max_size=4), st.data())
def test_a_cut_or_padded_message_is_refused(buffers: list[bytes], data: st.DataObject) -> None:
    raw = pack(Kind.CALL, 1, 2, 3, 4, b"pickle", buffers)
    for wrong in (raw[: data.draw(st.integers(0, len(raw) - 1))], raw + b"x"):
        with pytest.raises(FrameError):
            unpack(wrong)


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_a_batch_is_split_into_its_messages(parts: list[bytes]) -> None:
    batch = pack(Kind.BATCH, 1, 0, 0, buffers=parts)
    assert split(batch) == parts
    if parts:
        for wrong in (batch[:-1] if parts[-1] else batch[:45], batch + b"x"):
            with pytest.raises(FrameError):
                split(wrong)


def test_a_batch_with_a_pickle_and_one_without_a_head_are_refused() -> None:
    for wrong in (pack(Kind.BATCH, 1, 0, 0, pickle=b"x", buffers=[b"y"]), b"", b"\5" * 43):
        with pytest.raises(FrameError):
            split(wrong)


def test_buffers_can_be_written_to_when_the_bytes_can() -> None:
    raw = pack(Kind.CALL, 1, 2, 3, 4, b"p", [b"abc"])
    assert unpack(raw).buffers[0].readonly and not unpack(bytearray(raw)).buffers[0].readonly


def test_a_frame_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", HEAD.size + 3)
    unpack(pack(Kind.ACK, 0, 0, 0, pickle=b"123"))
    with pytest.raises(FrameError):
        unpack(pack(Kind.ACK, 0, 0, 0, pickle=b"1234"))
