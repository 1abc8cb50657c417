"""Streams over HTTP: positions in a ring of messages. For no reader one is missing, and none comes twice."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs.host.messages import Message
from grid.jobs.line.streams import Streams
from grid.web.events import Busy, Hub, Hubs, frame
from grid.web.limits import WebLimits

pytestmark = pytest.mark.row("J18")


class Loop:
    """Of a hub that is driven by hand."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def call_soon_threadsafe(self, call: Any) -> None:
        self.calls.append(call)


def hub_of(size: int, most_bytes: int = 10**9) -> Hub:
    return Hub(SimpleNamespace(streams=Streams()), "job-1", Loop(), size, most_bytes)  # type: ignore[arg-type]


def put(hub: Hub, numbers: range, size: int = 0) -> None:
    for number in numbers:
        message = Message("Log", text=str(number))
        message.job, message.number, message.time = "job-1", number, 1.0
        message.__dict__["_size"] = size
        hub.put_nowait(message)


@given(st.integers(1, 12), st.lists(st.integers(1, 7), max_size=12), st.integers(1, 5))
def test_a_reader_gets_each_message_once_or_is_told_to_begin_anew(size: int, bursts: list[int], most: int) -> None:
    hub, place, seen, last = hub_of(size), 0, [], 0
    for burst in bursts:
        put(hub, range(last + 1, last + burst + 1))
        last += burst
        while True:
            entries = hub.since(place, most)
            if entries is None:
                assert last - place > size, "only who is further behind than the ring is long"
                place = last  # as its header says
                seen = []
                break
            if not entries:
                break
            assert len(entries) <= most
            numbers = [entry.number for entry in entries]
            assert numbers == list(range(place + 1, place + 1 + len(numbers)))
            seen += numbers
            place = numbers[-1]
        assert place == last


def test_an_id_of_another_epoch_or_of_nonsense_begins_anew() -> None:
    hub = hub_of(10)
    put(hub, range(1, 31))
    assert hub.position(f"{hub.epoch}-25") == 25 and hub.position(f"{hub.epoch}-30") == 30
    for number in ("5", "31", "x", "", "9" * 19):
        assert hub.position(f"{hub.epoch}-{number}") is None
    for after in (None, "", "25", "0000-25"):
        assert hub.position(after) is None


def test_what_is_put_twice_is_kept_once_and_readers_are_told_once_for_a_burst() -> None:
    hub = hub_of(10)
    put(hub, range(1, 6))
    put(hub, range(3, 8))
    assert [entry.number for entry in hub.since(0) or ()] == [1, 2, 3, 4, 5, 6, 7]
    assert len(hub.loop.calls) == 1  # type: ignore[attr-defined]
    reader = asyncio.Event()
    hub.readers.add(reader)
    hub.loop.calls[0]()  # type: ignore[attr-defined]
    assert reader.is_set()


def test_large_messages_leave_the_ring_early_and_the_last_stays() -> None:
    hub = hub_of(100, most_bytes=1000)
    put(hub, range(1, 51), size=300)
    assert [entry.number for entry in hub.since(47) or ()] == [48, 49, 50] and hub.since(46) is None
    put(hub, range(51, 52), size=5000)
    assert [entry.number for entry in hub.since(50) or ()] == [51] and hub.since(49) is None


def test_an_event_is_one_line_of_json_with_its_id() -> None:
    data = frame("abcd", {"kind": "Log", "number": 7, "text": "a\nb"})
    head, body, *rest = data.decode().split("\n")
    assert head == "id: abcd-7" and json.loads(body.removeprefix("data: "))["text"] == "a\nb" and rest == ["", ""]


def test_streams_are_counted_for_all_and_for_each() -> None:
    hubs = Hubs(SimpleNamespace(), WebLimits(streams=3, streams_each=2))  # type: ignore[arg-type]
    hubs.enter("mara")
    hubs.enter("mara")
    with pytest.raises(Busy, match="too many streams"):
        hubs.enter("mara")
    hubs.enter("ole")
    with pytest.raises(Busy, match="too many streams"):
        hubs.enter("eva")
    hubs.leave("mara")
    hubs.enter("eva")
    assert hubs.count == 3
    hubs.close()
    with pytest.raises(Busy, match="stops"):
        hubs.enter("mara")
