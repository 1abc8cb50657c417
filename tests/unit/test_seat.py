"""A server in somebody else's process: calls come in any order and run in that of their numbers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from grid.kernel.seat import Seat, report
from grid.wire import codec
from grid.wire.frames import CANCELLED, ERROR, Frame, Kind, pack, unpack

pytestmark = pytest.mark.row("K26")


class Log:
    def __init__(self) -> None:
        self.heard: list[int] = []

    def note(self, number: int) -> list[int]:
        self.heard.append(number)
        return list(self.heard)

    def fail(self) -> None:
        raise ZeroDivisionError("oh")


def frame(value: Any) -> bytes:
    dumped = codec.dumps(value)
    return pack(Kind.CALL, 0, 0, 0, 0, dumped.data, dumped.buffers)


def value_of(reply: Frame) -> Any:
    return codec.loads(reply.pickle, reply.buffers)


async def in_order(seat: Seat, calls: list[tuple[int, Any]]) -> dict[int, Frame]:
    waiting = {turn: asyncio.ensure_future(seat.call(turn, frame(value))) for turn, value in calls}
    found = {turn: unpack(bytearray(await each)) for turn, each in waiting.items()}
    await seat.end()
    return found


def test_calls_wait_for_their_turn() -> None:
    calls = [(3, ("note", (3,), {})), (4, ("fail", (), {})), (2, ("note", (2,), {})), (1, Log())]
    replies = asyncio.run(in_order(Seat("s"), calls))
    assert value_of(replies[2]) == [2] and value_of(replies[3]) == [2, 3] and value_of(replies[1]) is None
    assert replies[4].flags & ERROR and all(replies[turn].call == turn for turn in replies)


def test_a_call_that_was_withdrawn_does_not_run() -> None:
    async def run() -> tuple[bool, dict[int, Frame]]:
        seat = Seat("s")
        withdrawn = await seat.withdraw_call(2)
        calls = [(1, Log()), (2, ("note", (2,), {})), (3, ("note", (3,), {}))]
        return withdrawn, await in_order(seat, calls)

    withdrawn, replies = asyncio.run(run())
    assert withdrawn and replies[2].flags == CANCELLED and value_of(replies[3]) == [3]


def test_bytes_that_are_no_message_are_an_error_of_that_call_alone() -> None:
    async def run() -> list[Frame]:
        seat = Seat("s")
        first = await seat.call(1, frame(Log()))
        torn = await seat.call(2, b"no message")
        last = await seat.call(3, frame(("note", (1,), {})))
        await seat.end()
        return [unpack(bytearray(each)) for each in (first, torn, last)]

    first, torn, last = asyncio.run(run())
    assert not first.flags and torn.flags == ERROR and value_of(last) == [1]


def test_a_report_names_what_a_client_compares() -> None:
    assert set(report()) == {"grid", "python", "host", "pid"}
