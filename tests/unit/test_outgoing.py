"""Output on its way to the client, and logs: bounded, oldest dropped first, and said so."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.kernel import logs
from grid.kernel.outgoing import Outgoing


@pytest.mark.row("X07")
@given(st.lists(st.tuples(st.sampled_from(["prints", "takes", "is away"]), st.text("abc\n", max_size=200))))
def test_all_that_is_not_told_as_dropped_arrives_in_order(story: list[tuple[str, str]]) -> None:
    out, printed, got = Outgoing(window=1000, waiting=2000), [], []
    for number, (what, text) in enumerate(story):
        if what == "prints":
            printed.append(f"{number}:{text}")
            out.add("server", printed[-1])
        else:
            got += out.take(0 if what == "takes" else 1000)
        assert out._size <= 2000 + 400
    got += out.take_all()
    at = dropped = 0
    for name, text in got:
        assert name == "server"
        told = re.match(r"\[grid: (\d+) characters of output were dropped here", text)
        if told:
            lost = 0
            while lost < int(told[1]):
                lost += len(printed[at]) + 1
                at, dropped = at + 1, dropped + 1
            assert lost == int(told[1])
        else:
            assert text == printed[at]
            at += 1
    assert at == len(printed)


@pytest.mark.row("X07")
def test_a_log_is_turned_when_it_is_full_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    for number in range(1000):
        logs.append(log, b"%09d\n" % number, full=2000)
    assert log.stat().st_size <= 2100 and logs.turned(log).stat().st_size <= 2100
    lines = log.read_text().splitlines()
    assert "server.log.1" in lines[0] and lines[-1] == "000000999"
    before = [line for line in logs.turned(log).read_text().splitlines() if not line.startswith("[")]
    assert int(lines[1]) == int(before[-1]) + 1
    logs.remove(log)
    assert not list(tmp_path.iterdir())
    logs.append(tmp_path / "nowhere" / "x.log", b"no error")


@pytest.mark.row("X07")
def test_a_log_of_several_writers_is_turned_in_place(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    other = os.open(path, os.O_WRONLY | os.O_APPEND)  # the zygote's
    try:
        for number in range(1000):
            os.write(log if number % 2 else other, b"%09d\n" % number)
            logs.empty(log, path, full=2000)
        older = logs.turned(path)
        assert path.stat().st_size <= 2100 and older.stat().st_size <= 2000
        lines = path.read_text().splitlines()
        assert "agent.log.1" in lines[0] and lines[-1] == "000000999"
        assert int(lines[1]) == int(older.read_text().splitlines()[-1]) + 1
        os.write(log, bytes(9000) + b"the end")  # at once, more than is kept
        logs.empty(log, path, full=2000)
        assert older.stat().st_size == 2000 and older.read_bytes().endswith(b"\0the end")
        older.unlink()
        older.mkdir()
        os.write(log, bytes(3000))
        logs.empty(log, path, full=2000)  # no error
        assert path.stat().st_size > 3000
    finally:
        os.close(log)
        os.close(other)
