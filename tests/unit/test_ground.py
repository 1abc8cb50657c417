"""The directories of an agent: all made or none, all removed, and no path leads out of the staging directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from grid.errors import DiskError
from grid.kernel import held
from grid.kernel.ground import Ground


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        "grid": "abcd",
        "peer": 3,
        "code": {},
        "temp_path": str(tmp_path / "new" / "temp"),
        "shared": False,
        "client": {"pid": os.getpid(), "started": 0, "leaves": []},
    }


@pytest.mark.row("G24")
def test_all_that_is_made_is_removed_also_the_directory_that_was_named(config: dict[str, Any], tmp_path: Path) -> None:
    ground = Ground(config)
    assert config["ours"][:3] == [ground.run_dir, ground.sockets, ground.blobs]
    assert all(path.is_dir() and path.stat().st_mode & 0o777 == 0o700 for path in ground.ours)
    os.close(ground.log)
    ground.remove()
    assert not any(path.exists() for path in ground.ours)
    assert not (tmp_path / "new").exists()


@pytest.mark.row("G04")
def test_a_shared_root_has_the_name_of_the_grid_alone(config: dict[str, Any]) -> None:
    ground = Ground({**config, "shared": True})
    assert ground.root.name == "run-abcd-shared" and ground.run_dir.name == "run-abcd-3"
    os.close(ground.log)
    ground.remove()
    assert not ground.root.exists()


@pytest.mark.row("X06")
def test_the_directories_are_locked_once_the_zygote_is_forked(config: dict[str, Any]) -> None:
    ground = Ground(config)
    assert not held.is_held(ground.run_dir)
    ground.hold(None)  # type: ignore[arg-type]
    assert held.is_held(ground.run_dir)
    for lock in ground._locks:
        assert lock is not None
        os.close(lock)
    os.close(ground.log)
    ground.remove()


@pytest.mark.row("G19")
def test_paths_below_the_root_and_the_files_there(config: dict[str, Any]) -> None:
    ground = Ground(config)
    for name in ("a.txt", ".hidden", "sub/b.txt", "__pycache__/c.pyc", ".git/d"):
        path = ground.below_root(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert sorted(ground.files()) == ["a.txt", "sub/b.txt"]
    with pytest.raises(DiskError, match="leads out of the staging directory"):
        ground.below_root("../elsewhere")
    os.close(ground.log)
    ground.remove()


@pytest.mark.row("M10")
def test_what_can_not_be_made_is_named_and_nothing_stays(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "new").write_text("a file")
    with pytest.raises(DiskError, match=r"can't make the directory .*new/temp"):
        Ground(config)
    assert config["ours"] == []
