"""One server as its agent sees it: output in whole lines, signals in their time, a certificate of its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.kernel.child import Child, how_it_ended
from grid.kernel.control import Control


@pytest.fixture
def child(tmp_path: Path) -> Iterator[tuple[Child, int]]:
    """A child, and the writing end of its output."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Child("Model.0/3", 7, reader, Control(ours), tmp_path / "log"), writer


@pytest.mark.row("G65")
def test_output_comes_in_whole_lines_and_the_rest_with_the_end(child: tuple[Child, int], tmp_path: Path) -> None:
    server, writer = child
    assert server.read() is None
    os.write(writer, b"one\ntwo\nthr")
    assert server.read() == "one\ntwo"
    os.write(writer, b"ee\n\nfo\xff")
    assert server.read() == "three\n"
    os.write(writer, b"\n")
    assert server.read() == "fo\ufffd"
    os.write(writer, b"\n")
    assert server.read() == ""
    os.write(writer, b"fi")
    assert server.read() is None
    os.close(writer)
    assert server.read() == "fi" and server.output == -1
    assert server.tail(4) == "\nfo\ufffd\n\nfi"
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n\nfo\xff\n\nfi"
    server.forget()
    assert not (tmp_path / "log").exists()


@pytest.mark.row("G65")
def test_last_words_are_read_to_the_end_though_somebody_holds_the_pipe_open(child: tuple[Child, int]) -> None:
    server, writer = child
    os.write(writer, b"x" * 40_000 + b"\n")
    os.write(writer, b"Killed")
    assert server.last_words() == "x" * 40_000 + "\nKilled" and server.output == -1
    os.close(writer)


@pytest.mark.row("G24")
def test_signals_go_out_in_their_time_and_not_before_there_is_a_process(child: tuple[Child, int]) -> None:
    server, writer = child
    server.condemn([(10.0, signal.SIGTERM), (20.0, signal.SIGKILL)])
    server.signal_due(15.0)
    assert server.due is None
    words = ["sh", "-c", "trap '' TERM; echo; exec sleep 60"]
    with subprocess.Popen(words, start_new_session=True, stdout=writer) as process:
        os.close(writer)
        while server.read() is None:
            pass
        server.pid = process.pid
        assert server.due == 10.0
        server.signal_due(15.0)
        assert server.due == 20.0 and process.poll() is None
        server.signal_due(20.0)
        assert process.wait(30) == -signal.SIGKILL and server.due is None
    server.signal(signal.SIGTERM)  # nobody is left to get it
    server.close_output()


@pytest.mark.row("G69")
@pytest.mark.parametrize(
    ("status", "code", "number", "words"),
    [(3 << 8, 3, None, "ended with exit status 3"), (signal.SIGSEGV, None, 11, "ended by SIGSEGV")],
)
def test_the_certificate_says_how_it_ended(
    child: tuple[Child, int], status: int, code: int | None, number: int | None, words: str
) -> None:
    server, writer = child
    os.write(writer, b"a\nb\nc\n")
    os.close(writer)
    server.read()
    server.exit = {"status": status, "peak_kb": 12}
    certificate = server.certificate(2)
    assert certificate == {
        "exit_status": code,
        "signal": number,
        "peak_kb": 12,
        "oom_kills": 0,
        "last_output": "b\nc",
    }
    assert how_it_ended(certificate) == words
    server.close_output()
