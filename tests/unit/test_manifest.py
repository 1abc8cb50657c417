"""Manifests, and the archive there and back: nothing lost, nothing outside, nothing half written."""

import ast
import errno
import io
import json
import os
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.errors import StagingError
from grid.kernel import unpack as unpack_module
from grid.kernel.unpack import BLOCK_BYTES, BLOCK_HEADER, END, FILE_HEADER, MAGIC, RAW, ZLIB, unpack
from grid.staging.manifest import Entry, hash_files, missing, write_archive
from grid.staging.select import select

HOUR_NS = 3_600_000_000_000


def archive_of(root, *patterns):
    buffer = io.BytesIO()
    manifest = write_archive(select(root, patterns or "*"), buffer)
    return buffer.getvalue(), manifest


def forged(*members):
    """An archive that our own writer would not make: (header, contents) each."""
    inner = b"".join(
        FILE_HEADER.pack(len(text)) + text + contents
        for text, contents in ((json.dumps(header).encode(), contents) for header, contents in members)
    )
    return io.BytesIO(MAGIC + BLOCK_HEADER.pack(RAW, len(inner)) + inner + BLOCK_HEADER.pack(END, 0))


def files_below(root):
    return {path.relative_to(root).as_posix(): path for path in Path(root).rglob("*") if not path.is_dir()}


class Trickle(io.BytesIO):
    """A channel that answers with less than was asked for."""

    def read(self, size=-1):
        return super().read(min(size, 7))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "src"
    (root / "pkg/deep").mkdir(parents=True)
    (root / "pkg/a b.py").write_text("x = 1\n")
    (root / "pkg/deep/ü\n.txt").write_bytes(b"\0" * 1000)
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "empty").write_text("")
    return root


@pytest.fixture
def target(tmp_path):
    (tmp_path / "host").mkdir()
    return tmp_path / "host"


@pytest.mark.row("F02", "F11")
@pytest.mark.parametrize("channel", [io.BytesIO, Trickle])
def test_the_archive_brings_contents_modes_and_folders(tree, target, channel):
    data, manifest = archive_of(tree)
    assert unpack(channel(data), target) == sorted(manifest)
    assert hash_files(select(target, "*"), {}) == manifest
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "pkg/deep/ü\n.txt").read_bytes() == b"\0" * 1000


def test_files_larger_than_a_block(tmp_path, target):
    noise, text = os.urandom(3 * BLOCK_BYTES + 11), b"0123456789abcdef" * 60_000
    (tmp_path / "noise").write_bytes(noise)
    (tmp_path / "text").write_bytes(text)
    data, _ = archive_of(tmp_path, "noise", "text")
    assert len(data) < len(noise) + len(text) / 10
    unpack(io.BytesIO(data), target)
    assert (target / "noise").read_bytes() == noise
    assert (target / "text").read_bytes() == text


def test_an_empty_archive(target):
    buffer = io.BytesIO()
    assert write_archive([], buffer) == {}
    assert unpack(io.BytesIO(buffer.getvalue()), target) == []


def test_existing_files_are_replaced_whole(tree, target):
    (target / "pkg").mkdir()
    old = target / "pkg/a b.py"
    old.write_text("older and longer than the new one")
    old.chmod(0o400)
    with old.open() as reader:
        unpack(io.BytesIO(archive_of(tree)[0]), target)
        assert reader.read() == "older and longer than the new one"
    assert old.read_text() == "x = 1\n"


def test_byte_code_of_a_replaced_module_goes(tree, target):
    cache = target / "pkg/__pycache__"
    cache.mkdir(parents=True)
    for name in ("a b.cpython-311.pyc", "a b.cpython-313.opt-1.pyc", "other.cpython-311.pyc"):
        (cache / name).write_bytes(b"")
    unpack(io.BytesIO(archive_of(tree)[0]), target)
    assert [path.name for path in cache.iterdir()] == ["other.cpython-311.pyc"]


@pytest.mark.row("F11")
@pytest.mark.parametrize("path", ["../x", "a/../../x", "/tmp/x", "", ".", "..", "a//x", "a/./x", "x/", "a\0b"])
def test_path_escapes_are_refused(target, path):
    with pytest.raises(StagingError) as caught:
        unpack(forged(([path, 1, 0o644], b"!")), target)
    assert repr(path) in str(caught.value)
    assert files_below(target.parent) == {}


def test_a_link_on_the_host_leads_nowhere(tree, target, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "pkg").symlink_to(outside)
    with pytest.raises(StagingError, match="link"):
        unpack(io.BytesIO(archive_of(tree)[0]), target)
    assert list(outside.iterdir()) == []


def test_a_link_under_the_name_of_a_file_is_replaced(tree, target, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (target / "run.sh").symlink_to(tmp_path / "precious")
    unpack(io.BytesIO(archive_of(tree)[0]), target)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (target / "run.sh").is_symlink()


def test_special_permission_bits_do_not_arrive(target):
    unpack(forged((["x", 1, 0o6755], b"!")), target)
    assert (target / "x").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("header", [["x", -1, 0], ["x"], {"x": 1}, ["x", "1", 0], [1, 1, 1], "x"])
def test_odd_headers_are_refused(target, header):
    with pytest.raises(StagingError, match="damaged"):
        unpack(forged((header, b"!")), target)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 some other kind of archive",
        MAGIC,
        MAGIC + BLOCK_HEADER.pack(9, 3) + b"abc",
        MAGIC + BLOCK_HEADER.pack(RAW, 0),
        MAGIC + BLOCK_HEADER.pack(RAW, 2**31),
        MAGIC + BLOCK_HEADER.pack(ZLIB, 3) + b"abc",
        MAGIC + BLOCK_HEADER.pack(RAW, 4) + FILE_HEADER.pack(2**31),
    ],
)
def test_what_is_no_archive_is_refused(target, data):
    with pytest.raises(StagingError):
        unpack(io.BytesIO(data), target)


def test_a_block_may_not_swell(target):
    swollen = zlib.compress(bytes(64 * BLOCK_BYTES))
    assert len(swollen) < BLOCK_BYTES
    with pytest.raises(StagingError, match="damaged"):
        unpack(io.BytesIO(MAGIC + BLOCK_HEADER.pack(ZLIB, len(swollen)) + swollen), target)


def test_an_archive_cut_anywhere_is_noticed_and_leaves_whole_files_only(tree, target):
    data, manifest = archive_of(tree)
    for length in range(len(data)):
        with pytest.raises(StagingError):
            unpack(io.BytesIO(data[:length]), target)
        assert hash_files(select(target, "*"), {}).items() <= manifest.items()


@pytest.mark.row("F12")
def test_what_cannot_be_written_is_named(tree, target):
    (target / "pkg").write_text("a file where a folder is needed")
    with pytest.raises(StagingError, match=r"a b\.py"):
        unpack(io.BytesIO(archive_of(tree, "*.py")[0]), target)
    (target / "run.sh").mkdir()
    with pytest.raises(StagingError, match=r"run\.sh"):
        unpack(io.BytesIO(archive_of(tree, "run.sh")[0]), target)
    assert set(files_below(target)) == {"pkg"}


@pytest.mark.row("F12")
def test_a_full_disk_is_named(tree, target, monkeypatch):
    def full(handle, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(unpack_module.os, "write", full)  # a real full disk: tests/edges
    with pytest.raises(StagingError, match=r"run\.sh.*No space left.*disk is full"):
        unpack(io.BytesIO(archive_of(tree, "run.sh")[0]), target)
    assert files_below(target) == {}


def test_the_receiving_end_needs_the_standard_library_alone():
    nodes = ast.walk(ast.parse(Path(unpack_module.__file__).read_text()))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    nodes = ast.walk(ast.parse(Path(unpack_module.__file__).read_text()))
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == {"grid.errors"}


@pytest.mark.row("F13")
def test_only_what_differs_is_missing():
    mine = {"a": Entry("1", 1, 0o644), "b": Entry("2", 1, 0o644), "c": Entry("3", 1, 0o644)}
    theirs = {"b": Entry("x", 1, 0o644), "c": Entry("3", 1, 0o755), "d": Entry("4", 1, 0o644)}
    assert missing(mine, {}) == ["a", "b", "c"]
    assert missing(mine, mine) == []
    assert missing(mine, {**mine, **theirs}) == ["b", "c"]


@pytest.mark.row("F13")
def test_unchanged_files_are_not_read_again(tree):
    cache = {}
    soon = hash_files(select(tree, "*"), cache)
    assert cache == {}  # changed a moment ago: another change might not show
    assert hash_files(select(tree, "*"), cache, clock_ns=lambda: 10**30) == soon
    assert len(cache) == 4
    for stamp in cache:
        cache[stamp] = "from the cache"
    assert {entry.sha256 for entry in hash_files(select(tree, "*"), cache).values()} == {"from the cache"}


@pytest.mark.row("F13")
def test_a_change_that_keeps_size_and_time_is_seen(tree):
    path, cache = tree / "run.sh", {}
    before = hash_files(select(tree, "run.sh"), cache, clock_ns=lambda: 10**30)
    status = path.stat()
    path.write_text("#!/bin/ko\n"[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert hash_files(select(tree, "run.sh"), cache) != before


def test_a_file_that_vanished_is_named(tree):
    selection = select(tree, "run.sh")
    (tree / "run.sh").unlink()
    with pytest.raises(StagingError, match=r"run\.sh.*No such file"):
        hash_files(selection, {})
    with pytest.raises(StagingError, match=r"run\.sh.*No such file"):
        write_archive(selection, io.BytesIO())


def test_a_file_that_changed_is_sent_as_it_is_now(tree, target):
    selection = select(tree, "run.sh")
    (tree / "run.sh").write_text("longer than it was when it was chosen")
    buffer = io.BytesIO()
    manifest = write_archive(selection, buffer)
    unpack(io.BytesIO(buffer.getvalue()), target)
    assert hash_files(select(target, "*"), {}) == manifest


# What is always true.

name = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..") and len(os.fsencode(text)) < 120
)
relative = st.lists(name, min_size=1, max_size=4).map("/".join)


@pytest.mark.row("F02", "F11")
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(relative, st.binary(max_size=5000), max_size=8))
def test_any_tree_survives_the_round_trip(contents):
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        for path, data in contents.items():
            try:
                Path(here, path).parent.mkdir(parents=True, exist_ok=True)
                Path(here, path).write_bytes(data)
            except OSError:  # a file where a folder is wanted, or the other way round
                pass
        buffer = io.BytesIO()
        sent = write_archive(select(here, "*", exclude=()), buffer)
        assert unpack(io.BytesIO(buffer.getvalue()), there) == list(sent)
        arrived = {path: file.read_bytes() for path, file in files_below(there).items()}
        assert arrived == {path: contents[path] for path in sent}


@pytest.mark.row("F11")
@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "", "a", "link", "/", "~", "\0"]), min_size=1, max_size=5).map("/".join))
def test_no_path_leads_outside(path):
    with tempfile.TemporaryDirectory() as around:
        root, outside = Path(around, "root"), Path(around, "outside")
        root.mkdir()
        outside.mkdir()
        (root / "link").symlink_to(outside)
        try:
            unpack(forged(([path, 1, 0o644], b"!")), root)
        except StagingError as exc:
            assert repr(path) in str(exc)
        assert list(outside.iterdir()) == []
        assert set(Path(around).iterdir()) == {root, outside}
