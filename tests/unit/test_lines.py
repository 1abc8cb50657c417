"""The wire of jobs, line by line: framing, the handshake, errors as JSON."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid._version import __version__
from grid.errors import GridError
from grid.jobs.host import errors
from grid.jobs.host.errors import JobError, WireError
from grid.jobs.line import lines
from grid.jobs.line.lines import JsonLine, error_from_plain, error_to_plain

pytestmark = pytest.mark.row("T09", "P24")


@pytest.fixture
def ends() -> Iterator[tuple[JsonLine, socket.socket]]:
    here, there = socket.socketpair()
    line = JsonLine(here)
    there.settimeout(20)
    yield line, there
    line.close()
    line.close()
    there.close()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), each, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(values, max_size=4))
def test_values_come_as_they_went(sent: list[Any]) -> None:
    here, there = socket.socketpair()
    writer, reader = JsonLine(here), JsonLine(there)
    for value in sent:
        writer.send(value)
    writer.close()
    assert [reader.receive() for _ in sent] == sent and reader.receive() is None
    reader.close()


@pytest.mark.parametrize("data", [b"{", b"no json\n", b"\xff\xfe\n", b'{"cut": 1}'])
def test_what_is_no_line_of_ours_is_said(ends: tuple[JsonLine, socket.socket], data: bytes) -> None:
    ends[1].sendall(data)
    ends[1].shutdown(socket.SHUT_WR)
    with pytest.raises(WireError):
        ends[0].receive()


def test_both_directions_are_bounded(ends: tuple[JsonLine, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE", 10)
    ends[0].send("x" * 7)
    with pytest.raises(WireError, match="11 bytes is too long"):
        ends[0].send("x" * 8)
    ends[1].sendall(b'"' + b"y" * 7 + b'"\n')
    assert ends[0].receive() == "y" * 7
    ends[1].sendall(b'"' + b"y" * 9 + b'"\n')
    with pytest.raises(WireError, match="too long"):
        ends[0].receive()
    with pytest.raises(ValueError):
        ends[0].send(float("nan"))


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ({"grid_jobs": lines.PROTOCOL, "grid": "9.9"}, None),
        (
            {"grid_jobs": lines.PROTOCOL + 1, "grid": "9.9"},
            rf"speaks version 2 .grid 9.9., we speak 1 .grid {__version__}",
        ),
        ({"grid_jobs": "1"}, "no job server or client"),
        ([1], "no job server or client"),
        (None, "no job server or client"),
    ],
)
def test_the_handshake(ends: tuple[JsonLine, socket.socket], hello: Any, said: str | None) -> None:
    ends[1].sendall(json.dumps(hello).encode() + b"\n")
    if said is None:
        ends[0].greet("it")
        assert ends[0].socket.gettimeout() is None
    else:
        with pytest.raises(WireError, match=f"^it .*{said}|{said}"):
            ends[0].greet("it")
    assert json.loads(ends[1].recv(1000)) == {"grid_jobs": lines.PROTOCOL, "grid": __version__}


def test_one_that_says_nothing_is_given_up(
    ends: tuple[JsonLine, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "HELLO_S", 0.01)
    with pytest.raises(WireError, match=r"did not say anything within 0\.01 s"):
        ends[0].greet("it")


def test_a_reader_in_another_thread_wakes_up(ends: tuple[JsonLine, socket.socket]) -> None:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(ends[0].receive()))
    thread.start()
    ends[0].socket.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert got == [None]


def kinds() -> list[type[GridError]]:
    return [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, JobError)]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_each_error_of_jobs_comes_as_itself(kind: type[GridError]) -> None:
    exc = kind("it broke", hint="do this", job="job-1", lost=object(), odd=float("nan"))
    plain = error_to_plain(exc)
    back = error_from_plain(json.loads(json.dumps(plain)))
    assert type(back) is kind and back.what == "it broke" and back.facts == {"hint": "do this", "job": "job-1"}


@pytest.mark.parametrize("plain", [None, 5, {}, {"kind": "X"}, {"kind": "RequestError", "what": "x", "facts": 5}])
def test_what_can_not_be_read_is_an_error_of_jobs(plain: Any) -> None:
    assert type(error_from_plain(plain)) is JobError and "can't be read" in str(error_from_plain(plain))


def test_errors_of_others_and_of_later_versions() -> None:
    assert error_to_plain(KeyError("k")) == {
        "kind": "JobError",
        "what": "KeyError: 'k'",
        "facts": {"hint": "See the server's log"},
    }
    assert type(error_from_plain({"kind": "SystemExit", "what": "x", "facts": {}})) is JobError
