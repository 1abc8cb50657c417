"""Ids and keys are safe as names of files."""

from __future__ import annotations

import pytest

from grid.jobs import RequestError
from grid.jobs.host.names import safe_key


@pytest.mark.row("J24")
@pytest.mark.parametrize("key", ["a", "job-1", "A.b_c-9", "x" * 128])
def test_safe_keys(key: str) -> None:
    assert safe_key(key) == key


@pytest.mark.row("J24")
@pytest.mark.parametrize("key", ["", ".a", "..", "a/b", "a b", "ä", "a\n", "x" * 129, "a\0", None, 3])
def test_unsafe_keys_are_refused(key: object) -> None:
    with pytest.raises(RequestError):
        safe_key(key)  # type: ignore[arg-type]
