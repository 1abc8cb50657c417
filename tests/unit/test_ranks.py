"""Ranks, the pure part: which letter is for which receive, buffers and shares, operations."""

from __future__ import annotations

from typing import Any

import pytest

from grid.errors import RankError
from grid.ranks import words
from grid.ranks.arrays import Buffer
from grid.ranks.collectives import fold
from grid.ranks.lane import OBJECT, RAW
from grid.ranks.mailbox import Mailbox, RankLetter
from grid.ranks.post import Payload
from grid.ranks.words import ANY_SOURCE, ANY_TAG

WORLD = b""
ALL = (0, 1, 2)


def letter(source: int, tag: int, context: bytes = WORLD) -> RankLetter:
    return RankLetter(context, source, tag, OBJECT, [b"x"])


@pytest.mark.row("Q03")
def test_letters_and_receives_meet_in_the_order_in_which_they_were_made() -> None:
    box = Mailbox()
    first, second = letter(1, 5), letter(1, 5)
    box.arrive(first)
    box.arrive(second)
    assert box.peek(WORLD, ANY_SOURCE, ANY_TAG) is first
    assert box.want(WORLD, 1, 5, ALL).letter is first
    waiting = [box.want(WORLD, 2, 5, ALL), box.want(b"!", 1, ANY_TAG, ALL)]
    assert box.want(WORLD, ANY_SOURCE, 5, ALL).letter is second
    any_of = box.want(WORLD, ANY_SOURCE, ANY_TAG, ALL)
    late = letter(2, 5)
    box.arrive(late)
    assert waiting[0].letter is late and any_of.letter is None, "who waited first gets it"
    box.drop(any_of)
    box.arrive(letter(0, 1))
    assert any_of.letter is None and len(box.unread) == 1
    box.arrive(letter(1, 1, b"!"))
    assert waiting[1].letter is not None, "another communicator's letters are its own"


@pytest.mark.row("Q04")
def test_who_has_returned_is_silent_only_when_all_that_he_sent_is_here() -> None:
    box = Mailbox()
    assert not box.silent([1])
    box.ended(1, 2)
    box.arrive(letter(1, 0))
    assert not box.silent([1]), "one is on its way"
    box.arrive(letter(1, 0))
    assert box.silent([1]) and not box.silent([1, 2])
    assert box.missing({1: 2, 2: 3}) == 3


@pytest.mark.row("Q03")
def test_buffers_have_shares_and_refuse_what_does_not_fit() -> None:
    buffer = Buffer(bytearray(range(6)), writable=True)
    assert [bytes(share) for share in buffer.shares(3)] == [b"\0\1", b"\2\3", b"\4\5"]
    ragged = Buffer((bytearray(range(6)), ([1, 2, 3], [0, 1, 3]), "a type"))
    assert [len(share) for share in ragged.shares(3)] == [1, 2, 3]
    assert [len(share) for share in Buffer((bytearray(6), (1, 0, 2))).shares(3)] == [1, 0, 2]
    assert len(Buffer([bytearray(6), 4, "a type"]).bytes) == 4
    assert buffer.fill(Payload(RAW, (b"abc",))) == 3 and bytes(buffer.bytes) == b"abc\3\4\5"
    wrong: list[tuple[Any, str]] = [
        (lambda: buffer.shares(4), "no equal shares"),
        (lambda: Buffer((bytearray(6), (1, 2))).shares(3), "2 counts for 3 ranks"),
        (lambda: Buffer((bytearray(6), (1, 2, 9))).shares(3), "lead out"),
        (lambda: Buffer(b"abc", writable=True), "read-only"),
        (lambda: Buffer({"a": 1}), "no contiguous buffer"),
        (lambda: buffer.fill(Payload(RAW, (bytes(7),))), "a message of 7 bytes"),
        (lambda: buffer.fill(Payload(OBJECT, (b"",))), "sent as an object"),
    ]
    for attempt, told in wrong:
        with pytest.raises(RankError, match=told):
            attempt()


@pytest.mark.row("Q03")
def test_operations_join_from_the_left() -> None:
    assert fold([1e16, 1.0, -1e16], words.SUM) == 0.0, "the order of ranks, and no other"
    assert fold([3, 9, 4], words.MAX) == 9 and fold([3, 9, 4], words.MIN) == 3 and fold([2, 3], words.PROD) == 6
    assert fold([(5, 2), (7, 1), (7, 0)], words.MAXLOC) == (7, 0)
    assert fold([(5, 2), (5, 1)], words.MINLOC) == (5, 1)
    assert fold(["a", "b"], words.Op.Create(lambda x, y: y + x)) == "ba"
    assert words.LAND(1, 0) is False and words.LXOR(1, 0) is True and words.BOR(4, 1) == 5
