"""A directory that did not exist: its maker leaves a mark, the last user removes it, never what others put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from grid.kernel import made

pytestmark = pytest.mark.row("U14")


def test_what_was_made_goes_with_those_parents_that_were_made(tmp_path: Path) -> None:
    made.make(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a/b/c" / made.NOTE).read_text() == "3"
    made.leave(tmp_path / "a" / "b" / "c")
    assert list(tmp_path.iterdir()) == []


def test_what_existed_stays(tmp_path: Path) -> None:
    made.make(tmp_path)
    made.leave(tmp_path)
    assert tmp_path.exists() and list(tmp_path.iterdir()) == []


def test_the_last_of_several_removes_it(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for name in ("one", "two"):
        made.make(shared)
        (shared / name).mkdir()
    (shared / "one").rmdir()
    made.leave(shared)
    assert (shared / "two").exists() and (shared / made.NOTE).read_text() == "1"
    (shared / "two").rmdir()
    made.leave(shared)
    assert not shared.exists()


def test_a_file_of_others_stays_and_so_do_its_parents(tmp_path: Path) -> None:
    made.make(tmp_path / "a" / "b")
    (tmp_path / "a" / "mine").touch()
    made.leave(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "mine").exists() and not (tmp_path / "a" / "b").exists()


def test_one_that_comes_in_between_keeps_the_directory_and_its_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.make(tmp_path / "a")
    remove = Path.rmdir

    def late(path: Path) -> None:
        (path / "newcomer").touch()
        remove(path)

    monkeypatch.setattr(Path, "rmdir", late)
    made.leave(tmp_path / "a")
    assert (tmp_path / "a" / "newcomer").exists() and (tmp_path / "a" / made.NOTE).read_text() == "1"


@pytest.mark.parametrize("note", ["", "many", "-3"])
def test_a_mark_that_says_nothing_removes_the_directory_alone(tmp_path: Path, note: str) -> None:
    made.make(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / made.NOTE).write_text(note)
    made.leave(tmp_path / "a" / "b")
    assert (tmp_path / "a").exists() and not (tmp_path / "a" / "b").exists()
    made.leave(tmp_path / "a" / "b")  # once more does no harm
