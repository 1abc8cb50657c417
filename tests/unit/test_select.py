"""Which files a pattern list takes: the rules one by one, then against a slow reference."""

import fnmatch
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grid.errors import StagingError
from grid.staging.select import DEFAULT_EXCLUDE, StagedFile, misfits, select


def make(root, *paths):
    for path in paths:
        target = Path(root, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path)


def taken(root, *patterns, **options):
    return [file.relative for file in select(root, patterns, **options).files]


@pytest.fixture
def tree(tmp_path):
    make(
        tmp_path,
        *("top.py", "top.txt", "Isd/foo.txt", "Isd/a/foo.txt", "Isd/a/b/c/foo.txt", "other/Isd/foo.txt"),
        *("data/one.txt", "data/two.csv", "data/deep/three.txt", "pkg/mod.py", "pkg/sub/mod.py"),
        *("cns/secret.py", "pkg/cns/secret.py", ".svn/entries.py", ".git/hook.py", "pkg/__pycache__/mod.py"),
    )
    return tmp_path


@pytest.mark.row("F02")
def test_the_folder_structure_is_kept(tree):
    assert taken(tree, "data/*.txt") == ["data/deep/three.txt", "data/one.txt"]


@pytest.mark.row("F03")
def test_the_folder_part_is_a_starting_folder(tree):
    assert taken(tree, "Isd/foo.txt") == ["Isd/a/b/c/foo.txt", "Isd/a/foo.txt", "Isd/foo.txt"]


@pytest.mark.row("F03")
def test_without_recursion_only_the_starting_folder_is_searched(tree):
    assert taken(tree, "Isd/foo.txt", "*.py", recursive=False) == ["Isd/foo.txt", "top.py"]


@pytest.mark.row("F04")
def test_a_pattern_without_folder_descends_everywhere(tree):
    assert taken(tree, "*.py") == ["pkg/mod.py", "pkg/sub/mod.py", "top.py"]
    assert taken(tree, "./*.py") == taken(tree, "*.py")


@pytest.mark.row("F03", "F04")
def test_folders_may_have_wildcards(tree):
    assert taken(tree, "*/Isd/foo.txt") == ["other/Isd/foo.txt"]
    assert taken(tree, "**/Isd/foo.txt", recursive=False) == ["Isd/foo.txt", "other/Isd/foo.txt"]
    assert taken(tree, "Isd/**/foo.txt") == taken(tree, "Isd/foo.txt")
    assert taken(tree, "data/") == ["data/deep/three.txt", "data/one.txt", "data/two.csv"]


@pytest.mark.row("F02")
def test_each_file_is_taken_once_and_in_order(tree):
    assert taken(tree, "*.txt", "data/*.txt", "data/one.txt", "*") == sorted(taken(tree, "*"))


@pytest.mark.row("F05")
def test_the_default_excludes(tree):
    assert not [path for path in taken(tree, "*") if any(text in path for text in DEFAULT_EXCLUDE)]
    assert "cns/secret.py" in taken(tree, "*", exclude=())


@pytest.mark.row("F05")
def test_exclude_looks_at_the_path_below_root_only(tmp_path):
    root = tmp_path / "cns" / ".git" / "project"
    make(root, "a.py", "xcns/b.py", "b.cns")
    assert taken(root, "*") == ["a.py", "b.cns"]
    assert taken(root, "*", exclude=["b."]) == ["a.py"]


@pytest.mark.row("F09")
def test_patterns_that_match_nothing_are_recorded(tree):
    selection = select(tree, ["*.py", "*.f90", "nowhere/*", "cns/*"])
    assert selection.empty == ["*.f90", "nowhere/*", "cns/*"]
    assert selection.files


def test_a_pattern_that_names_a_folder_gets_advice(tree):
    selection = select(tree, "data")
    assert selection.empty == ["data"]
    assert "write 'data/'" in selection.warnings[0]


@pytest.mark.row("F10")
def test_absolute_names_inside_root(tree):
    make(tree, "data/deep/one.txt", "a[1].txt", "a1.txt")
    assert taken(tree, tree / "data/one.txt") == ["data/one.txt"]  # not data/deep/one.txt
    assert taken(tree, tree / "a[1].txt") == ["a[1].txt"]
    assert taken(tree, f"{tree}/data/*.txt") == taken(tree, "data/*.txt")
    assert taken(tree, f"{tree}/data/") == taken(tree, "data/")
    assert taken(tree, tree) == taken(tree, "*")


@pytest.mark.row("F10")
def test_absolute_names_through_a_link_to_root(tree, tmp_path_factory):
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(tree)
    assert taken(tree, link / "data/one.txt") == ["data/one.txt"]
    assert taken(link, tree / "data/one.txt") == ["data/one.txt"]


@pytest.mark.row("F10")
@pytest.mark.parametrize("pattern", ["/etc/passwd", "/etc/*", "../*", "data/../../*", "..", "data/../.."])
def test_leading_out_of_root_is_an_error_with_advice(tree, pattern):
    with pytest.raises(StagingError, match="rootdir") as caught:
        select(tree, [pattern])
    assert repr(pattern) in str(caught.value)


def test_dots_inside_root_are_harmless(tree):
    assert taken(tree, "data/../Isd/./foo.txt") == taken(tree, "Isd/foo.txt")


@pytest.mark.parametrize("bad", ["", "a\0b"])
def test_senseless_patterns_are_refused(tree, bad):
    with pytest.raises(StagingError):
        select(tree, [bad])


def test_root_must_be_a_folder(tree):
    with pytest.raises(StagingError, match="nowhere"):
        select(tree / "nowhere", "*")


@pytest.mark.row("F11")
@pytest.mark.parametrize("name", ["two words.py", "Größe_π.py", "new\nline.py", "[x].py", "-rf.py", "a\\b.py", " .py"])
def test_odd_names(tmp_path, name):
    make(tmp_path, name, f"dir {name}/{name}")
    assert taken(tmp_path, "*.py") == sorted([name, f"dir {name}/{name}"])
    assert taken(tmp_path, name, recursive=False) == [name]


@pytest.mark.row("F11")
def test_names_that_are_not_text(tmp_path):
    raw = os.fsencode(tmp_path) + b"/b\xff.py"
    try:
        Path(os.fsdecode(raw)).write_text("")
    except OSError:
        pytest.skip("this file system takes text only")
    assert taken(tmp_path, "*.py") == [os.fsdecode(b"b\xff.py")]


@pytest.mark.row("F14")
def test_the_working_directory_is_left_alone(tree, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    select(tree, "*")
    assert Path.cwd() == elsewhere
    assert [f.relative for f in select(os.path.relpath(tree), "top.py")] == ["top.py"]


def test_links_to_files_are_taken_as_contents(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere") / "big.dat"
    outside.write_text("12345")
    (tree / "link.dat").symlink_to(outside)
    (tree / "inner.dat").symlink_to("data/one.txt")
    files = {file.relative: file for file in select(tree, "*.dat")}
    assert files["link.dat"].size == 5
    assert files["inner.dat"].size == len("data/one.txt")


def test_links_to_folders_are_searched(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("elsewhere")
    make(outside, "x/far.dat")
    (tree / "linked").symlink_to(outside)
    assert taken(tree, "*.dat") == ["linked/x/far.dat"]


def test_loops_of_links_end(tree):
    (tree / "data/self").symlink_to("self")
    (tree / "data/up").symlink_to("..")
    (tree / "data/above").symlink_to("../..")
    (tree / "data/all").symlink_to("/")
    (tree / "data/to_isd").symlink_to("../Isd")
    (tree / "Isd/to_data").symlink_to("../data")
    found = taken(tree, "foo.txt")
    assert {"Isd/foo.txt", "data/to_isd/foo.txt"} <= set(found)
    assert max(path.count("/") for path in found) < 8


def test_what_is_no_file_is_skipped_with_a_warning(tree):
    os.mkfifo(tree / "pipe.dat")
    (tree / "dead.dat").symlink_to("nowhere")
    selection = select(tree, "*.dat")
    assert selection.files == []
    assert "'dead.dat', 'pipe.dat'" in selection.warnings[0]


@contextmanager
def as_somebody():
    """Root may read everything; be somebody else for a while."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_unreadable_files_are_named():
    with tempfile.TemporaryDirectory() as root:  # not tmp_path: its parents are closed to others
        make(root, "fine.py", "closed one.py", "shut/x.py")
        os.chmod(root, 0o755)
        os.chmod(f"{root}/closed one.py", 0)
        os.chmod(f"{root}/shut", 0)
        try:
            with as_somebody(), pytest.raises(StagingError) as caught:
                select(root, "*.py")
            with as_somebody():
                assert taken(root, "*.py", exclude=["closed", "shut/"]) == ["fine.py"]
        finally:
            os.chmod(f"{root}/shut", 0o755)
    assert "'closed one.py'" in str(caught.value)
    assert "'shut/'" in str(caught.value)
    assert "exclude" in str(caught.value)


@pytest.mark.row("F07")
def test_compiled_files_are_skipped_with_a_warning(tree):
    make(tree, "old.pyc", "pkg/x.cpython-311.pyc")
    selection = select(tree, "*.pyc")
    assert selection.files == []
    assert selection.empty == []
    assert "'old.pyc', 'pkg/x.cpython-311.pyc'" in selection.warnings[0]


@pytest.mark.row("F07")
def test_extensions_whose_tag_cannot_fit():
    names = ["a.cpython-311-x86_64-linux-gnu.so", "b.cpython-39-x86_64-linux-gnu.so", "c.abi3.so", "libd.so", "e.py"]
    files = [StagedFile(f"pkg/{name}", Path(name), 1, 0o644) for name in names]
    assert misfits(files, "cpython-311-x86_64-linux-gnu") == ["pkg/b.cpython-39-x86_64-linux-gnu.so"]
    assert len(misfits(files, "cpython-313-aarch64-linux-gnu")) == 2


def test_sizes_and_modes(tree):
    os.chmod(tree / "top.py", 0o750)
    (file,) = select(tree, "top.py")
    assert (file.size, file.mode, file.source) == (6, 0o750, tree / "top.py")


# What is always true.

names = st.sampled_from(["a", "b", "ab", "a.py", "b.py", "x y.py", "cns", "[a]"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
wild = st.sampled_from(["*", "*.py", "a*", "?", "[ab]", "a", "b.py", "[a]", "ab"])
patterns = st.lists(wild, min_size=1, max_size=3).map("/".join)


def reference(files, pattern, exclude, recursive):
    """The rules again, the slow way: each file's path held against each way to split it."""

    def fits(name, part):
        return name == part or fnmatch.fnmatchcase(name, part)

    *folders, last = pattern.split("/")
    for path in files:
        *parts, name = path.split("/")
        starts = len(parts) >= len(folders) and all(map(fits, parts, folders))
        deep_enough = recursive or len(parts) == len(folders)
        if starts and deep_enough and fits(name, last) and not any(text in path for text in exclude):
            yield path


@pytest.mark.row("F02", "F03", "F04", "F05")
@settings(max_examples=120, deadline=None)
@given(
    wanted=st.lists(paths, max_size=12),
    chosen=st.lists(patterns, min_size=1, max_size=3),
    exclude=st.lists(st.sampled_from(["cns/", "ab", "b.py", "/a/"]), max_size=2),
    recursive=st.booleans(),
)
def test_select_agrees_with_the_slow_reference(wanted, chosen, exclude, recursive):
    with tempfile.TemporaryDirectory() as root:
        files = []
        for path in dict.fromkeys(wanted):
            try:
                make(root, path)
                files.append(path)
            except OSError:  # a file where a folder is wanted, or the other way round
                pass
        selection = select(root, chosen, exclude, recursive)
        per_pattern = {p: set(reference(files, p, exclude, recursive)) for p in chosen}
        assert [file.relative for file in selection] == sorted(set().union(*per_pattern.values()))
        assert selection.empty == [p for p in chosen if not per_pattern[p]]
        for file in selection:
            assert file.source == Path(root, file.relative)
            assert file.source.read_text() == file.relative
