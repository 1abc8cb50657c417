"""Wheels by content, with a bound: the longest unused go, fresh ones stay."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("packaging")
from grid.environments.cache import FRESH_S, WheelCache
from grid.environments.fitting import Wheel

pytestmark = pytest.mark.row("W04", "W05")


def put(cache: WheelCache, tmp_path: Path, name: str, size: int, age_s: float = 0.0) -> Wheel:
    file = tmp_path / f"{name}-1-py3-none-any.whl"
    file.write_bytes(name.encode() * size)
    wheel = cache.put(file)
    used = time.time() - age_s
    os.utime(cache.path(wheel.sha256), (used, used))
    return wheel


def test_a_wheel_is_kept_by_its_content(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path / "cache")
    wheel = put(cache, tmp_path, "a", 100)
    assert wheel == Wheel("a-1-py3-none-any.whl", hashlib.sha256(b"a" * 100).hexdigest(), 100)
    assert cache.path(wheel.sha256).read_bytes() == b"a" * 100 and cache.has(wheel.sha256)
    assert cache.wheel("other.whl", wheel.sha256) == Wheel("other.whl", wheel.sha256, 100)
    assert not cache.has("0" * 64) and cache.wheel("x.whl", "0" * 64) is None
    assert [path.name for path in (tmp_path / "cache" / "wheels").iterdir()] == [wheel.sha256]


def test_those_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path / "cache", bound=250)
    old, middle = (put(cache, tmp_path, name, 100, FRESH_S * age) for name, age in (("a", 3), ("b", 2)))
    assert cache.has(old.sha256)  # used now: the other one is the oldest
    os.utime(cache.path(old.sha256), (time.time() - FRESH_S * 1.5,) * 2)
    put(cache, tmp_path, "c", 100)
    assert not cache.path(middle.sha256).exists() and cache.path(old.sha256).exists()


def test_fresh_ones_stay_whatever_the_bound(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path / "cache", bound=10)
    wheels = [put(cache, tmp_path, name, 100) for name in "abc"]
    assert all(cache.path(each.sha256).exists() for each in wheels)


def test_what_was_noted_comes_back_and_what_is_torn_is_nothing(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path / "cache")
    wheels = [Wheel("a.whl", "0" * 64, 5)]
    assert cache.recall("plans", "k") is None and cache.recall_wheels("k") is None
    cache.note_wheels("k", wheels)
    assert WheelCache(tmp_path / "cache").recall_wheels("k") == wheels
    (tmp_path / "cache" / "plans" / "k.json").write_text("[[")
    assert cache.recall_wheels("k") is None
    cache.note("hosts", "h", {"a": 1})
    assert cache.recall("hosts", "h") == {"a": 1}
    cache.forget("hosts", "h")
    cache.forget("hosts", "h")
    assert cache.recall("hosts", "h") is None
    assert not list((tmp_path / "cache").rglob(".new-*"))


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = WheelCache(tmp_path / "cache")
    with pytest.raises(TypeError):
        cache.note("plans", "k", object())
    assert cache.recall("plans", "k") is None and not list((tmp_path / "cache" / "plans").iterdir())
