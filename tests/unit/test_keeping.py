"""The log of a kept session: whole after a kill at any byte, tidy, and what it says is what travelled."""

from __future__ import annotations

import logging
import os
import random
import resource
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.errors import SessionError
from grid.keeping import places
from grid.keeping.carrier import KeptCarrier, last_of
from grid.keeping.journal import Journal
from grid.keeping.memory import SessionMemory
from grid.keeping.records import HEADER, LogKind, Scan, packed
from grid.wire.frames import Kind, pack


def call(number: int, body: bytes = b"", peer: int = 7) -> bytes:
    return pack(Kind.CALL, peer, number, 0, number, body)


def reply(number: int, answers: int, body: bytes = b"", peer: int = 7) -> bytes:
    return pack(Kind.REPLY, peer, number, 0, answers, body)


def batch(*frames: bytes, peer: int = 7) -> bytes:
    return pack(Kind.BATCH, peer, 0, 0, buffers=list(frames))


def log_of(*records: tuple[int, int, int, bytes]) -> bytearray:
    data = bytearray(HEADER)
    for record in records:
        data += packed(len(data), *record)
    return data


def what_it_says(path: Path) -> SessionMemory:
    journal = Journal(path)
    journal.close()
    return journal.memory


@pytest.mark.row("Z01")
@given(st.lists(st.binary(max_size=60), max_size=12), st.integers(0, 1 << 30), st.data())
@settings(max_examples=80)
def test_a_log_that_is_cut_or_spoilt_gives_all_records_that_are_whole(
    bodies: list[bytes], where: int, data: st.DataObject
) -> None:
    log = log_of(*((LogKind.OUT, 1, number, body) for number, body in enumerate(bodies)))
    whole = [bytes(entry.payload) for entry in Scan(log)]
    assert whole == bodies
    at = len(HEADER) + where % max(1, len(log) - len(HEADER))
    cut = [bytes(entry.payload) for entry in Scan(log[:at])]
    assert cut == bodies[: len(cut)]
    if at < len(log):
        log[at] ^= 0x55
        spoilt = [(entry.last, bytes(entry.payload)) for entry in Scan(log)]
        assert len(spoilt) == len(bodies) - 1 and all(bodies[number] == body for number, body in spoilt)


@pytest.mark.row("Z01")
def test_a_record_within_a_payload_is_none() -> None:
    inner = packed(0, LogKind.FACT, 0, 0, b'["x", 1]')
    log = log_of((LogKind.OUT, 1, 1, inner * 3), (LogKind.FACT, 0, 0, b'["y", 2]'))
    log[len(HEADER) + 6] ^= 1  # the record around them is spoilt
    assert [bytes(entry.payload) for entry in Scan(log)] == [b'["y", 2]']


@pytest.mark.row("Z01")
def test_calls_are_remembered_until_they_are_done_whatever_comes_twice_or_out_of_turn() -> None:
    records: list[tuple[int, int, int, bytes]] = [
        (LogKind.OUT, 7, 3, batch(call(1), call(2), call(3))),
        (LogKind.NAME, 7, 0, b'[2, "run2"]'),
        (LogKind.OUT, 7, 3, batch(call(2), call(3))),  # sent again
        (LogKind.IN, 7, 2, reply(2, 2)),  # out of turn: a reply was lost on the way
    ]
    past = SessionMemory.of(Scan(log_of(*records))).peers[7]
    assert (past.posted, past.received, set(past.calls), set(past.replies)) == (3, 0, {1, 2, 3}, {2})
    records += [(LogKind.IN, 7, 2, batch(reply(1, 1), reply(2, 2))), (LogKind.DONE, 7, 0, (1).to_bytes(8, "little"))]
    past = SessionMemory.of(Scan(log_of(*records))).peers[7]
    assert (past.received, set(past.calls), set(past.replies), past.names) == (2, {2, 3}, {2}, {2: "run2"})
    again = log_of(*SessionMemory.of(Scan(log_of(*records))).lines(), *records[2:5])
    later = SessionMemory.of(Scan(again)).peers[7]
    assert (later.posted, later.received, later.calls, later.replies, later.names) == (
        *(past.posted, past.received, past.calls, past.replies, past.names),
    )


@pytest.mark.row("Z01")
def test_facts_count_as_they_were_said_last() -> None:
    said = [b'["home/1", {"a": 1}]', b'["home/2", 5]', b'["home/1", {"a": 2}]', b'["home/2", null]']
    memory = SessionMemory.of(Scan(log_of(*((LogKind.FACT, 0, 0, each) for each in said))))
    assert memory.facts_of("home") == {"1": {"a": 2}} and memory.facts_of("server") == {}


@pytest.mark.row("Z01")
def test_what_was_written_is_there_without_a_close_and_a_torn_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = Journal(path)
    journal.fact("grid", {"id": "x"})
    journal.write(LogKind.OUT, 7, 1, call(1, b"first"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    copy = tmp_path / "copy"  # as a process that is killed now leaves it
    copy.write_bytes(path.read_bytes())
    memory = what_it_says(copy)
    assert memory.facts["grid"] == {"id": "x"} and memory.peers[7].calls == {1: call(1, b"first")}
    torn = bytearray(path.read_bytes())
    end = torn.rindex(b"first") + 5
    torn[end - 1] = 0
    copy.write_bytes(torn)
    again = Journal(copy)
    assert again.memory.peers == {}
    again.write(LogKind.OUT, 7, 1, call(1, b"second"))  # in the place of the torn one
    again.close()
    assert what_it_says(copy).peers[7].calls == {1: call(1, b"second")}
    journal.close()


@pytest.mark.row("Z01")
def test_a_log_that_has_grown_is_written_anew_and_says_the_same(tmp_path: Path) -> None:
    path, chance = tmp_path / "log", random.Random(3)
    journal = Journal(path, tidy=1 << 20)
    live, sizes = {}, []
    for number in range(1, 6001):
        body = chance.randbytes(chance.choice((10, 400, 3000)))
        journal.write(LogKind.OUT, 7, number, call(number, body))
        journal.write(LogKind.IN, 7, number, reply(number, number, body))
        if number % 500:
            journal.dropped.append((7, number))
        else:
            journal.name(7, number, f"run{number}")
            live[number] = call(number, body)
        if number % 700 == 0:
            journal.tend()
            sizes.append(path.stat().st_size)
    journal.close()
    memory = what_it_says(path)
    past = memory.peers[7]
    assert past.calls == live and set(past.replies) == set(live) and past.names[1000] == "run1000"
    assert (past.posted, past.received) == (6000, 6000)
    assert max(sizes) < 9 << 20 and not list(tmp_path.glob("*.new"))


@pytest.mark.row("Z01")
def test_a_full_disk_ends_remembering_with_a_word_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "log")
    journal.write(LogKind.OUT, 7, 1, call(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with caplog.at_level(logging.WARNING):
            for number in range(2, 5):
                journal.write(LogKind.OUT, 7, number, call(number, bytes(600_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.broken and "can't grow" in caplog.text and caplog.text.count("can't grow") == 1
    journal.close()
    assert list(what_it_says(tmp_path / "log").peers[7].calls) == [1, 2]


@pytest.mark.row("Z06")
def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"grid session, version 9\n" + bytes(100))
    with pytest.raises(SessionError, match="another version"):
        Journal(tmp_path / "log")


class Sockets:
    """A carrier in memory."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.arriving: deque[bytes] = deque()
        self.patience_ms, self.bell = 5, object()
        self.attach = self.detach = self.rouse = self.news = self.forked = self.close = lambda *_: None

    def way(self, inlet: str, keys: Any) -> Any:
        self.send = self.sent.append
        self.lead = self.close
        return self

    def receive(self) -> bytes | None:
        return self.arriving.popleft() if self.arriving else None

    receive_now = receive


@pytest.mark.row("Z01")
def test_calls_are_written_down_before_they_are_sent_and_replies_before_they_arrive(tmp_path: Path) -> None:
    sockets, journal = Sockets(), Journal(tmp_path / "log")
    carrier = KeptCarrier(sockets, journal)  # type: ignore[arg-type]
    carrier.peers.add(7)
    way = carrier.way("ipc://x", None)
    written: list[tuple[int, ...]] = []
    journal.write = lambda kind, peer, last, data: written.append((kind, peer, last, len(sockets.sent)))  # type: ignore[method-assign]
    way.send(call(1))
    way.send(batch(call(2), call(3)))
    way.send(call(9, peer=8))  # an agent
    way.send(pack(Kind.HELLO, 7, 0, 0))
    assert written == [(LogKind.OUT, 7, 1, 0), (LogKind.OUT, 7, 3, 1)] and len(sockets.sent) == 4
    sockets.arriving += [batch(reply(1, 1), reply(2, 2)), reply(3, 3), pack(Kind.WELCOME, 7, 0, 0), b"", b"\5"]
    for _ in range(6):
        carrier.receive()
    assert written[2:] == [(LogKind.IN, 7, 2, 4), (LogKind.IN, 7, 3, 4)]
    carrier.patience_ms = 9
    assert sockets.patience_ms == carrier.patience_ms == 9
    assert last_of(batch(), 8) == 0
    del journal.write
    journal.close()


@pytest.mark.row("Z02")
def test_a_length_of_time_is_said_in_words() -> None:
    said = {"12h": 43200, "1d12h": 129600, "90m": 5400, "30s": 30, 15: 15, "1.5h": 5400}
    assert {each: places.span_s(each) for each in said} == said
    for wrong in ("", "12", "h", "12x", 0, -1, True, float("nan"), None):
        with pytest.raises(ValueError, match="keep must be a time such as"):
            places.span_s(wrong)  # type: ignore[arg-type]


@pytest.mark.row("Z03")
def test_one_client_at_a_time_has_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SESSIONS", str(tmp_path / "of us"))
    one, other = places.SessionPlace("lab"), places.SessionPlace("lab")
    assert not one.exists() and one.take() and one.is_used() and not other.take()
    one.log.touch()
    assert places.names() == ["lab"] and one.path.stat().st_mode & 0o777 == 0o700
    one.leave()
    with places.taken(other) as got:
        assert got and not one.take()
    assert one.take()
    one.remove()
    assert places.names() == []
    for wrong in ("", "../x", ".x", "a b", "x" * 65):
        with pytest.raises(ValueError, match="name has letters"):
            places.SessionPlace(wrong)
