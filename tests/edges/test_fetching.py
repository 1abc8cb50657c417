"""Files that servers wrote come back: which, how, and what is refused."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid, SSHGrid, StagingError
from grid.grids import fetching
from grid.kernel import produce
from grid.testing.probe import Probe
from tests.lab import Lab

pytestmark = pytest.mark.row("A10")


class Writer(Probe):
    """Makes what is no plain file as well."""

    def link(self, name: str, to: str) -> None:
        os.symlink(to, name)

    def fifo(self, name: str) -> None:
        os.mkfifo(name)


@pytest.fixture
def grid() -> Iterator[LocalGrid]:
    with LocalGrid(1, output=None, workdir="staging") as g:
        yield g


@pytest.fixture
def writer(grid: LocalGrid) -> Iterator[Any]:
    with grid.acquire_service(grid.publish(Writer())) as proxy:
        yield proxy


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_names_patterns_and_directories_come_back_whole_with_mode_and_time(
    grid: LocalGrid, writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PIECE", 1000)
    large = random.Random(1).randbytes(10_001)
    files = {
        "one/a b'$(x)\n.dat": large,
        "one/deep/er/[b].dat": b"",
        "one/-c": b"x" * 1000,
        "one/.hidden": b"h",
        "two/tool": b"#!/bin/sh\n",
    }
    for name, data in files.items():
        there = writer.write(name, data, 0o755 if name.endswith("tool") else 0o640).get(20)
    fetched = grid.fetch_files(["one", "two/t*", "**/*.dat", "one/deep/er/[b].dat"], tmp_path)
    assert below(tmp_path / "localhost") == files
    assert set(fetched) == {"localhost"} and {path.read_bytes() for path in fetched["localhost"]} == {*files.values()}
    assert os.access(tmp_path / "localhost/two/tool", os.X_OK)
    assert (tmp_path / "localhost/two/tool").stat().st_mtime_ns == os.stat(there).st_mtime_ns
    # again: what is unchanged stays the file that it is, what was changed comes
    before = {path: path.stat().st_ino for path in fetched["localhost"]}
    writer.write("one/-c", b"y" * 1001).get(20)
    again = grid.fetch_files("one", tmp_path)["localhost"]
    assert [path.name for path in again if path.stat().st_ino != before[path]] == ["-c"]
    assert (tmp_path / "localhost/one/-c").read_bytes() == b"y" * 1001
    assert not list(tmp_path.rglob("*.part"))


def test_what_matches_nothing_is_told_with_what_there_is(grid: LocalGrid, writer: Any, tmp_path: Path) -> None:
    writer.write("three/found.txt", b"x").get(20)
    with pytest.raises(StagingError, match=r"'\*\.dcd' matches no file of servers") as caught:
        grid.fetch_files(["three/*", "*.dcd"], tmp_path)
    assert "three/found.txt" in caught.value.failures["localhost"] or "..." in str(caught.value)
    with pytest.raises(StagingError, match="not hosts of this grid: nobody"):
        grid.fetch_files("three", tmp_path, hosts="nobody")
    for bad in ("/etc/passwd", "../x", "a/../../b", ""):
        with pytest.raises(ValueError, match="relative to the directory"):
            grid.fetch_files(bad, tmp_path)
    with pytest.raises(TypeError, match="pattern"):
        grid.fetch_files(["x", 3], tmp_path)  # type: ignore[list-item]
    assert below(tmp_path) == {}


def test_links_that_lead_out_and_what_is_no_plain_file_are_refused(
    grid: LocalGrid, writer: Any, tmp_path: Path
) -> None:
    writer.write("four/real", b"in").get(20)
    writer.link("four/inside", "real").get(20)
    assert [path.read_bytes() for path in grid.fetch_files("four", tmp_path / "a")["localhost"]] == [b"in", b"in"]
    writer.link("four/out", "/etc/passwd").get(20)
    writer.fifo("four/pipe").get(20)
    with pytest.raises(StagingError, match="not plain files") as caught:
        grid.fetch_files("four", tmp_path / "b")
    assert "four/out" in str(caught.value) and "four/pipe" in str(caught.value)
    assert sorted(below(tmp_path / "b")) == ["localhost/four/inside", "localhost/four/real"]


def test_a_file_that_changes_meanwhile_is_not_mixed(
    grid: LocalGrid, writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PIECE", 10)
    writer.write("five/grows", b"a" * 100).get(20)
    pieces = fetching.pieces

    def slow(*args: Any) -> Iterator[bytes]:
        for number, piece in enumerate(pieces(*args)):
            if number == 3:
                writer.write("five/grows", b"b" * 100).get(20)
            yield piece

    monkeypatch.setattr(fetching, "pieces", slow)
    with pytest.raises(StagingError, match="changed while it was read"):
        grid.fetch_files("five", tmp_path)
    assert below(tmp_path) == {}
    monkeypatch.setattr(fetching, "pieces", pieces)
    (path,) = grid.fetch_files("five/*", tmp_path)["localhost"]
    assert path.read_bytes() == b"b" * 100


def test_a_host_can_not_write_elsewhere_and_a_place_that_can_not_be_written_is_named(
    grid: LocalGrid, writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write("six", b"x").get(20)
    (tmp_path / "file").write_text("")
    with pytest.raises(StagingError, match="not brought") as caught:
        grid.fetch_files("six", tmp_path / "file")
    assert "localhost" in caught.value.failures
    for name in ("../escaped", "/escaped", "a/../../escaped", "nul\0"):
        lies = {"files": {name: (1, 1, 0o644)}, "refused": {}, "empty": [], "present": []}
        monkeypatch.setattr(fetching.FileFetcher, "_find", lambda *_, lies=lies: lies)
        with pytest.raises(StagingError, match="leads out of"):
            grid.fetch_files("six", tmp_path / "to")
    assert not list(tmp_path.rglob("escaped*"))


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "MOST", 3)
    for number in range(5):
        (tmp_path / str(number)).touch()
    with pytest.raises(Exception, match="matches more than 3 files"):
        produce.find(str(tmp_path), ["*"])


@pytest.mark.lab
def test_files_of_hosts_elsewhere_come_by_name_of_host(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(fetching, "PIECE", 300_000)
    data = random.Random(2).randbytes(1_000_000)
    with SSHGrid(["s1", "s2"], output=None, wait="all") as g:
        sid = g.publish(Probe())
        g.gather(g.broadcast(sid, "write", "run/data.bin", data), 60)
        g.release_all()
        fetched = g.fetch_files("run/*.bin", tmp_path)
        assert {host: path.read_bytes() == data for host, (path,) in fetched.items()} == {"s1": True, "s2": True}
        assert list(g.fetch_files("run", tmp_path / "one", hosts="s2")) == ["s2"]
