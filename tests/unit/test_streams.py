"""Random streams of replicas: the same in every run, and independent of how many there are."""

from __future__ import annotations

import hashlib
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.ensemble.streams import stream_seeds, streams

pytestmark = pytest.mark.row("M23")


@given(st.integers(), st.integers(0, 20), st.integers(0, 20))
def test_a_seed_depends_on_its_number_alone(seed: int, few: int, more: int) -> None:
    first, longer = stream_seeds(seed, few), stream_seeds(seed, few + more)
    assert longer[:few] == first and len(set(longer)) == few + more
    assert all(0 <= each < 2**128 for each in longer)


def test_other_seeds_give_other_streams() -> None:
    assert not set(stream_seeds(1, 10)) & set(stream_seeds(11, 10))
    said = hashlib.sha256(b"grid.ensemble:1:0").digest()  # as it was in every version: runs can be repeated
    assert stream_seeds(1, 1) == [int.from_bytes(said[:16], "big")]


@pytest.mark.parametrize("kind", ["numpy", "python", "any"])
def test_generators_repeat(kind: str) -> None:
    if kind == "numpy":
        pytest.importorskip("numpy")
    one, other = ([each.random() for each in streams(7, 3, kind)] for _ in range(2))
    assert one == other and len(set(one)) == 3
    assert [each.random() for each in streams(7, 1, kind)] == one[:1]
    assert [each.random() for each in streams(8, 3, kind)] != one and streams(7, 0, kind) == []


@pytest.mark.parametrize("kind", ["numpy", "python", "any"])
def test_wrong_numbers_and_kinds(kind: str) -> None:
    with pytest.raises(ValueError, match="can't be -1 streams"):
        streams(7, -1, kind)
    with pytest.raises(ValueError, match="kind must be"):
        streams(7, 1, kind + "x")


def test_without_numpy_the_standard_library_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy.random", None)
    assert isinstance(streams(7, 1)[0], Random)
    with pytest.raises(ImportError):
        streams(7, 1, "numpy")
