"""Most modules have a test of their name, so that whoever changes one finds what shows its rules."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARE = 0.6


def without_a_test(modules: list[Path], tests: set[str]) -> list[Path]:
    """Those modules that have no `test_<module>.py`."""
    return [path for path in modules if f"test_{path.stem}.py" not in tests]


def modules_of(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


@pytest.mark.row("D06")
def test_three_of_five_modules_have_a_test_of_their_name() -> None:
    modules = modules_of(ROOT / "grid")
    lacking = without_a_test(modules, {path.name for path in (ROOT / "tests").rglob("test_*.py")})
    share = 1 - len(lacking) / len(modules)
    names = ", ".join(str(path.relative_to(ROOT)) for path in lacking)
    assert share >= SHARE, f"{share:.1%} of {len(modules)} modules have one; these have none: {names}"


@pytest.mark.row("D06")
def test_such_modules_are_found(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    for name in ("a.py", "room/b.py", "room/__init__.py", "__main__.py", "c.txt"):
        (tmp_path / name).touch()
    modules = modules_of(tmp_path)
    assert modules == [tmp_path / "a.py", tmp_path / "room" / "b.py"]
    assert without_a_test(modules, {"test_a.py", "test_c.py"}) == [tmp_path / "room" / "b.py"]
