"""A log that does not grow without bound: turned when it is full, one older kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.kernel.logs import append, empty, remove, turned

pytestmark = pytest.mark.row("X07")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=40))
def test_it_stays_within_its_bound_and_ends_with_the_last_lines(parts: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "s.log")
        for part in parts:
            append(path, part, full=100)
            assert path.read_bytes().endswith(part)
            assert path.stat().st_size <= 100 + 80 and (not turned(path).exists() or turned(path).stat().st_size <= 180)
        said = b"".join(each.read_bytes() for each in (turned(path), path) if each.exists())
        if sum(map(len, parts)) <= 100:
            assert said == b"".join(parts)


def test_a_full_log_is_turned_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    append(path, b"a" * 60, full=100)
    append(path, b"b" * 60, full=100)
    assert turned(path).read_bytes() == b"a" * 60
    assert path.read_bytes() == b"[grid: what came before is in s.log.1, and older than that is dropped]\n" + b"b" * 60
    remove(path)
    remove(path)
    assert not list(tmp_path.iterdir())


def test_a_log_that_others_hold_open_is_emptied_under_them(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    other = os.dup(log)
    os.write(log, b"x" * 50 + b"y" * 100)
    empty(log, path, full=150)
    assert not turned(path).exists()  # it is full, and not more than that
    os.write(other, b"z")
    empty(log, path, full=100)
    assert turned(path).read_bytes() == b"y" * 99 + b"z"
    os.write(other, b"after")
    assert path.read_bytes().endswith(b"dropped]\nafter") and b"\0" not in path.read_bytes()
    os.close(log)
    os.close(other)


def test_a_place_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    append(tmp_path / "none" / "s.log", b"x")
    log = os.open(tmp_path / "s.log", os.O_RDONLY | os.O_CREAT)
    (tmp_path / "s.log").write_bytes(b"x" * 50)
    empty(log, tmp_path / "s.log", full=10)
    os.close(log)
    assert (tmp_path / "s.log").read_bytes() == b"x" * 50
