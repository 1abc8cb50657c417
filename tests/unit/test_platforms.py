"""Platform tags of wheels, against the library `packaging` as a witness for this machine."""

from __future__ import annotations

import platform
import sys
import sysconfig

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.environments.platforms import numbers_of, platform_tags

pytestmark = pytest.mark.row("W02")


@given(st.integers(5, 60), st.sampled_from(["x86_64", "aarch64"]))
def test_a_wheel_for_an_older_c_library_runs_on_a_newer_one(minor: int, machine: str) -> None:
    tags = platform_tags(f"linux-{machine}", ("glibc", f"2.{minor}"))
    assert tags[0] == f"manylinux_2_{minor}_{machine}" and tags[-1] == f"linux_{machine}"
    older = platform_tags(f"linux-{machine}", ("glibc", f"2.{minor - 1}")) if minor > 5 else tags[1:]
    assert tags[1:] == older and len(set(tags)) == len(tags)


def test_as_packaging_says_of_this_machine() -> None:
    tags = pytest.importorskip("packaging.tags")
    if not sys.platform.startswith("linux"):
        pytest.skip("of Linux")
    own = platform_tags(sysconfig.get_platform(), platform.libc_ver())
    assert set(tags.platform_tags()) <= set(own)


@pytest.mark.parametrize(
    ("name", "libc", "tags"),
    [
        ("linux-x86_64", ("", ""), ["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"]),
        ("macosx-11.0-arm64", ("", ""), ["macosx_11_0_arm64"]),
        ("win-amd64", ("", ""), ["win_amd64"]),
    ],
)
def test_other_systems(name: str, libc: tuple[str, str], tags: list[str]) -> None:
    assert platform_tags(name, libc) == tags


@pytest.mark.parametrize(("version", "numbers"), [("2.36", (2, 36)), ("2.36-9+deb12u4", (2, 36, 9, 12, 4)), ("", ())])
def test_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert numbers_of(version) == numbers
    assert platform_tags("linux-x86_64", ("glibc", "unknown"))[0] == "manylinux_2_17_x86_64"
