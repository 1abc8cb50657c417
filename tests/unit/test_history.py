"""What jobs said, kept for those who come late: bounded, and there after a restart."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from grid.jobs.host.messages import Improved, Log, Message
from grid.jobs.manager.history import LARGEST, History


def say(history: History, job: str, *texts: str) -> None:
    for text in texts:
        history.note(job, Log(text=text, level="info"))


def texts(history: History, job: str) -> list[str]:
    return [message.text for message in history.of(job, "Log")]


def flush(history: History) -> None:
    history.flush(history.take())


@pytest.mark.row("J19")
def test_a_restart_finds_what_was_said_and_goes_on_with_it(tmp_path: Path) -> None:
    first = History(tmp_path / "h")
    say(first, "job-1", "one", "two")
    first.note("job-1", Improved(partial={"x": [1.5, None]}))
    first.note("job-1", Message("Progress", k=1))
    say(first, "job-2", "other")
    assert not (tmp_path / "h").exists(), "nothing waits for the disk"
    flush(first)
    second = History(tmp_path / "h")
    say(second, "job-1", "three")
    assert texts(second, "job-1") == ["one", "two", "three"]
    assert second.of("job-1", "Improved")[0].partial == {"x": [1.5, None]}
    flush(second)
    third = History(tmp_path / "h")
    assert texts(third, "job-1") == ["one", "two", "three"] and texts(third, "job-2") == ["other"]
    assert texts(third, "job-3") == []
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "h").iterdir()} == {0o600}


@pytest.mark.row("J19", "J20")
def test_files_are_bounded_and_go_with_their_jobs(tmp_path: Path) -> None:
    history = History(tmp_path, jobs=2, lines=3)
    history.note("job-1", Improved(partial=0))
    for number in range(100):
        say(history, "job-1", str(number))
        flush(history)
        assert len((tmp_path / "job-1.jsonl").read_text().splitlines()) <= 4 * 3 * 2
    again = History(tmp_path, lines=3)
    assert texts(again, "job-1") == ["97", "98", "99"] and len(again.of("job-1", "Improved")) == 1
    history.note("job-1", Improved(partial="x" * LARGEST))
    flush(history)
    assert (tmp_path / "job-1.jsonl").stat().st_size < LARGEST
    say(history, "job-2", "a")
    say(history, "job-3", "b")  # job-1 leaves the memory, with something unwritten in between
    say(history, "job-2", "c")
    assert texts(history, "job-2") == ["a", "c"] and texts(history, "job-1") == ["97", "98", "99"]
    flush(history)
    for job in ("job-1", "job-2", "job-3"):
        history.forget(job)
    assert list(tmp_path.iterdir()) == [] and texts(history, "job-1") == []


@pytest.mark.row("J19")
def test_what_a_power_cut_left_torn_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path)
    say(history, "job-1", "whole")
    flush(history)
    with open(tmp_path / "job-1.jsonl", "a") as file:
        file.write('[1]\n\x00\xff\n{"kind": "Log", "te')
    for expected in (["whole", "next"], ["whole", "next", "next"]):
        after = History(tmp_path)
        say(after, "job-1", "next")
        flush(after)
        assert texts(after, "job-1") == expected == texts(History(tmp_path), "job-1")


@pytest.mark.row("J19")
def test_without_a_disk_jobs_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        for text in ("one", "two"):
            say(history, "job-1", text)
            flush(history)
    assert texts(history, "job-1") == ["one", "two"]
    assert len(caplog.records) == 1 and "jobs go on" in caplog.text
