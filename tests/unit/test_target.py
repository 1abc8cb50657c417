"""What a host's Python is, as far as it decides which wheels run there."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("packaging")
from packaging.tags import Tag, sys_tags

from grid.environments.target import Target

pytestmark = pytest.mark.row("W02")


def about(**more: Any) -> dict[str, Any]:
    facts = {
        "version": [3, 12, 1], "cache_tag": "cpython-312", "platform": "linux-x86_64", "libc": ["glibc", "2.36"],
        "markers": {"python_version": "3.12", "platform_release": "6.1", "platform_version": "#1"},
    }  # fmt: skip
    return {**facts, **more}


def test_two_that_are_alike_have_one_key_and_others_not() -> None:
    one = Target.of(about())
    markers = {"python_version": "3.12", "platform_release": "6.9", "platform_version": "#2"}
    assert Target.of(about(markers=markers)).key == one.key  # an update of the kernel
    others = [about(version=[3, 13, 0]), about(platform="linux-aarch64"), about(libc=["glibc", "2.17"]),
              about(cache_tag="cpython-312t"), about(markers={"python_version": "3.11"})]  # fmt: skip
    assert len({Target.of(each).key for each in others} | {one.key}) == 6
    assert one.python == "3.12" and str(one) == "Python 3.12 (linux-x86_64, glibc 2.36)"


@pytest.mark.parametrize(
    ("facts", "tag", "runs"),
    [
        ({}, "cp312-cp312-manylinux_2_36_x86_64", True),
        ({}, "cp312-cp312-manylinux_2_37_x86_64", False),
        ({}, "cp37-abi3-manylinux2014_x86_64", True),
        ({}, "cp313-cp313-manylinux_2_17_x86_64", False),
        ({}, "py3-none-any", True),
        ({}, "cp312-cp312-manylinux_2_17_aarch64", False),
        ({"libc": ["", ""]}, "cp312-cp312-musllinux_1_2_x86_64", True),
        ({"libc": ["", ""]}, "cp312-cp312-manylinux_2_17_x86_64", False),
        ({"cache_tag": "cpython-312t"}, "cp312-cp312t-manylinux_2_17_x86_64", True),
        ({"platform": "macosx-11.0-arm64", "libc": ["", ""]}, "cp312-cp312-macosx_11_0_arm64", True),
        ({"platform": "macosx-11.0-arm64", "libc": ["", ""]}, "cp312-cp312-macosx_12_0_arm64", False),
    ],
)
def test_which_wheels_run(facts: dict[str, Any], tag: str, runs: bool) -> None:
    assert (Tag(*tag.split("-")) in Target.of(about(**facts)).tags) is runs


def test_the_best_has_the_lowest_rank_in_the_order_of_packaging() -> None:
    ranks = Target.of(about()).tags
    order = ["cp312-cp312-manylinux_2_36_x86_64", "cp312-cp312-linux_x86_64", "cp312-abi3-linux_x86_64", "py3-none-any"]
    found = [ranks[Tag(*each.split("-"))] for each in order]
    assert found == sorted(found) and found[0] == 0 and len(set(ranks.values())) == len(ranks)
    assert next(iter(sys_tags())).interpreter.startswith(("cp", "pp"))
