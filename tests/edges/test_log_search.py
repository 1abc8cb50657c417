"""The logs of a running grid are searched by pattern, time and host; lines of a turned log keep their times."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid
from grid.cli import logs as command
from grid.grids.output import Output
from grid.kernel import logs
from grid.wire.places import runtime_dir
from tests.lab.host import wait_until

pytestmark = pytest.mark.row("I07")


class Talker:
    def say(self, text: str) -> None:
        print(text, flush=True)


def told(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "grid", "logs", "--json", *words], capture_output=True, text=True, timeout=60, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def talk() -> Iterator[tuple[str, str]]:
    """The name of a grid whose servers have said something, and the id of their service."""
    with LocalGrid(2, output=None) as g:
        g.broadcast(sid := g.publish(Talker(), wait="all"), "say", "all is well\nenergy: nan")
        g.broadcast(sid, "say", "energy: -7.5")
        name = g.status()["name"]
        wait_until(lambda: len(told(name)) == 6, "all lines have arrived")
        yield name, sid


def test_lines_are_found_by_pattern_host_and_time(talk: tuple[str, str]) -> None:
    before = time.time() - 3600
    name, sid = talk
    found = told(name, "--grep", r"energy: (nan|inf)", "--host", "localhost", "--since", "10m")
    assert [(one["server"], one["host"], one["text"]) for one in found] == [
        (f"{sid}/{n}", "localhost", "energy: nan") for n in (0, 1)
    ]
    for one in found:
        assert before < datetime.fromisoformat(one["time"]).timestamp() <= time.time()
    assert [one["text"] for one in told(name, f"{sid}/1", "--grep", "energy", "-n", "1")] == ["energy: -7.5"]
    assert told(name, "--since", "2999-01-01T00:00") == []


def test_what_can_not_be_searched_for_is_said(talk: tuple[str, str]) -> None:
    for words, status, said in (
        (("--grep", "(unclosed"), 2, "no regular expression"),
        (("--since", "yesterday"), 2, "neither a length of time"),
        (("--host", "localhots"), 1, "Did you mean 'localhost'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "grid", "logs", talk[0], *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr, done


def test_times_follow_a_log_that_moves_to_another_host_is_turned_or_damaged() -> None:
    now = 0.0
    made = Output(None, lambda: now)
    made.in_directory("searched")
    place = runtime_dir() / "grids" / "searched.logs"
    log = place / "A.0.0.log"
    said = [(1000.0, "a", "one\ntwo"), (1000.5, "a", "three"), (1002.0, "a", "four"), (1002.1, "b c", "five")]
    for now, host, text in said:  # noqa: B007 - it is the clock
        made.show("A.0/0", host, text)
    assert lines_of(log) == [
        *(("one", 1000.0, "a"), ("two", 1000.0, "a"), ("three", 1000.0, "a"), ("four", 1002.0, "a")),
        ("five", 1002.1, "b c"),
    ]
    logs.append(log, b"six\n", full=1)
    for now in (1005.0, 1010.0):
        made.show("A.0/0", "a", f"at {now}")
    with open(log.with_suffix(".times"), "a") as file:
        file.write("no mark\n")
    now = 1020.0
    made.show("A.0/0", "a", "last")
    assert [one[:2] for one in lines_of(log)][-3:] == [("at 1005.0", 1005.0), ("at 1010.0", 1010.0), ("last", 1020.0)]
    made.forget("A.0/0")
    assert not list(place.iterdir())
    place.rmdir()


def lines_of(log: Path) -> list[tuple[str, float, str]]:
    reader = command._Reader(log)
    try:
        return [tuple(line) for line in reader.more()]
    finally:
        reader.close()
