"""A value that stays on its host: what the client gets of it, and how another process makes it again."""

from __future__ import annotations

from typing import Any

import pytest

from grid.wire import bulk, codec
from grid.wire.kept import KeptValue, keep

pytestmark = pytest.mark.row("S04")


@pytest.fixture
def store(tmp_path: Any) -> bulk.BlobStore:
    return bulk.BlobStore(tmp_path)


@pytest.mark.parametrize("value", [None, [1, 2], b"x" * 1000])
def test_a_small_value_is_returned_as_it_is(store: bulk.BlobStore, value: object) -> None:
    assert keep(value, store) is value


@pytest.mark.parametrize(
    "value",
    [b"x" * (bulk.LARGE + 1), bytearray(b"y" * (bulk.LARGE * 2)), ["z" * bulk.LARGE, 5], {"a": list(range(200_000))}],
)
def test_a_large_value_comes_back_from_its_blob(store: bulk.BlobStore, value: object) -> None:
    kept = keep(value, store)
    assert isinstance(kept, KeptValue) and sum(kept.sizes) >= bulk.LARGE
    parts = store.read(kept.blob, kept.sizes, drop=False)
    assert kept.rebuild(parts) == value
    assert kept.rebuild(store.read(kept.blob, kept.sizes, drop=True)) == value


def test_what_a_host_needs_is_told_without_the_value(store: bulk.BlobStore) -> None:
    kept = keep([b"x" * (bulk.LARGE + 1), pytest.approx], store)
    assert isinstance(kept, KeptValue)
    needs = kept.needs()
    assert isinstance(needs, codec.Dumped) and len(needs.data) < bulk.LARGE and not needs.buffers
    assert any(name.startswith("_pytest") for name in kept.modules)
