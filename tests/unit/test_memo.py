"""What is done: found again, and not found when anything is not as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grid.commands.memo import Memo
from grid.commands.outcome import CommandRun
from grid.errors import StagingError
from grid.staging.manifest import Entry, hash_files
from grid.staging.select import StagedFile

pytestmark = pytest.mark.row("A05")
KEY = "3f" + "0" * 62


class Hashes:
    def contents(self, path: Path) -> Entry:
        return hash_files([StagedFile(path.name, path, 0, 0)], {})[path.name]


def done(to: Path) -> CommandRun:
    to.mkdir()
    (to / "a.out").write_text("text")
    return CommandRun("x", "h", "s", 0, 0, 1.5, 0.5, 7, b"o\xff", b"e", 1, 2, [to / "a.out"], [], 0, False, 5.0, KEY)


def test_what_is_done_is_found(tmp_path: Path) -> None:
    memo, to = Memo(tmp_path / "memo", Hashes()), tmp_path / "to"
    run = done(to)
    assert memo.find(KEY, to) is None
    memo.keep(run, to)
    found = Memo(tmp_path / "memo", Hashes()).find(KEY, to)
    assert found is not None and found.memo and found.outputs == run.outputs and found.stdout == b"o\xff"
    assert {**vars(found), "memo": False} == vars(run)
    assert memo.find("00" + KEY[2:], to) is None


def test_a_file_that_changed_is_made_anew(tmp_path: Path) -> None:
    memo, to = Memo(tmp_path / "memo", Hashes()), tmp_path / "to"
    memo.keep(done(to), to)
    assert memo.find(KEY, tmp_path) is None
    (to / "a.out").write_text("TEXT")
    assert memo.find(KEY, to) is None
    (to / "a.out").unlink()
    assert memo.find(KEY, to) is None


def test_an_entry_that_was_cut_is_none(tmp_path: Path) -> None:
    memo, to = Memo(tmp_path / "memo", Hashes()), tmp_path / "to"
    memo.keep(done(to), to)
    [path] = (tmp_path / "memo").rglob("*.json")
    whole = path.read_bytes()
    for part in (whole[:100], b"", b"[]", b"\xff", b'{"files": {}}', whole.replace(b'"status"', b'"statas"')):
        path.write_bytes(part)
        assert memo.find(KEY, to) is None
    path.write_bytes(whole)
    assert memo.find(KEY, to) is not None


def test_a_folder_that_can_not_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StagingError, match="memo=") as refused:
        Memo(tmp_path / "file" / "memo", Hashes())
    assert os.fspath(tmp_path) in str(refused.value)
