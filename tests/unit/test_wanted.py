"""What names an environment, and files of requirements as pip reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from grid.environments.wanted import Requirements, logical_lines, read_requirements, requirement_lines, wanted
from grid.errors import PackagesError

pytestmark = pytest.mark.row("W01", "W03")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("requirements.txt", "requirements"), ("dev.in", "requirements"), ("uv.lock", "lock"), ("pylock.toml", "lock"),
     ("pylock.dev.toml", "lock")],
)  # fmt: skip
def test_files_by_their_names(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("text")
    found = wanted(name, tmp_path)
    assert (found.kind, found.word, found.path) == (kind, name, str(tmp_path / name)) and found.read() == "text"


def test_words() -> None:
    assert wanted("here").kind == "here" and wanted("").kind == "kernel"


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.txt", "is no file here"), ("folder", "is a directory.*uv.lock: name that"), 
     ("pyproject.toml", "Lock it first"), ("environment.yml", "no kind that is known"), ("pylock.a.b.toml", "no kind")],
)  # fmt: skip
def test_what_can_not_be_used_says_what_to_do(tmp_path: Path, name: str, said: str) -> None:
    for each in ("pyproject.toml", "environment.yml", "pylock.a.b.toml"):
        (tmp_path / each).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "uv.lock").touch()
    with pytest.raises(PackagesError, match=said):
        wanted(name, tmp_path)


def test_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(PackagesError, match="not UTF-8"):
        wanted("a.txt", tmp_path).read()


def test_lines_are_joined_and_comments_go() -> None:
    text = "numpy>=2 # why\n# all\n\n  scipy \\\n  ==1.0\npkg @ https://h/x#egg=y\n"
    assert list(logical_lines(text)) == ["numpy>=2", "scipy    ==1.0", "pkg @ https://h/x#egg=y"]


def test_files_that_name_others(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "-r sub/more.txt\n-c limits.txt\nnumpy\n-e ./mine\n./wheels/a.whl ; python_version > '3'\n--pre\n"
        "git+https://h/x\nb @ git+https://h/b\n"
    )
    (tmp_path / "sub" / "more.txt").write_text("scipy\n../here[extra]\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n-r sub/under.txt\n")
    (tmp_path / "sub" / "under.txt").write_text("six<2\n")
    found = read_requirements(tmp_path / "requirements.txt")
    assert found.lines == ("scipy", "numpy", "--pre") and found.constraints == ("numpy<3", "six<2")
    assert set(found.sources) == {
        f"{tmp_path}/here[extra]", f"{tmp_path}/mine", f"{tmp_path}/wheels/a.whl; python_version > '3'",
        "git+https://h/x", "b @ git+https://h/b",
    }  # fmt: skip


def test_a_circle_is_told_and_keys_are_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    with pytest.raises(PackagesError, match="name each other"):
        read_requirements(tmp_path / "a.txt")
    one, other = Requirements(("a",), (), ()), Requirements((), ("a",), ())
    assert one.key == Requirements(("a",), (), ()).key != other.key
    assert requirement_lines([("numpy", "2.1.0")]) == ["numpy==2.1.0"]
