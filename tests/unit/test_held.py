"""Locks that say that somebody lives in a directory: until the descriptor is closed, whoever looks."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grid.kernel import held
from grid.kernel.held import NAME, hold, is_held, namespace

pytestmark = pytest.mark.row("X06")


def test_it_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    assert is_held(tmp_path) is None
    fd = hold(tmp_path)
    assert fd is not None and is_held(tmp_path) is True and (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    os.close(fd)
    assert is_held(tmp_path) is False


def test_a_missing_path_is_made_as_a_file(tmp_path: Path) -> None:
    fd = hold(tmp_path / "x.lock")
    assert fd is not None and (tmp_path / "x.lock").is_file() and is_held(tmp_path / "x.lock")
    os.close(fd)
    assert is_held(tmp_path / "none") is None and is_held(tmp_path / "x.lock" / "below") is None


def test_nobody_follows_a_link_that_was_put_there(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    assert hold(tmp_path) is None and not (tmp_path / "elsewhere").exists() and is_held(tmp_path) is True


def test_two_can_not_hold_it_and_who_only_looks_does_not_keep_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looker = os.open(tmp_path / NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(looker, fcntl.LOCK_SH)
    waits: list[float] = []
    lookers = [looker]

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3 and lookers:
            os.close(lookers.pop())

    monkeypatch.setattr(held.time, "sleep", wait)
    fd = hold(tmp_path)
    assert fd is not None and len(waits) == 3
    waits.clear()
    assert hold(tmp_path) is None and len(waits) == 100
    os.close(fd)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "no locks")

    monkeypatch.setattr(held.fcntl, "flock", refuse)
    assert hold(tmp_path) is None and is_held(tmp_path) is True  # nobody can know: it may live


def test_where_process_ids_mean_something() -> None:
    assert namespace() == namespace()
    words = [sys.executable, "-c", "from grid.kernel.held import namespace; print(namespace())"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == str(namespace())
