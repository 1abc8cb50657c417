"""Serialising keeps nothing."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.wire import codec, raised


class Data:
    def method(self) -> None: ...


def broken(data: Data) -> Exception:
    exc = ValueError()
    exc.data = data  # type: ignore[attr-defined]
    return exc


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


WAYS: dict[str, Callable[[Data], Any]] = {
    "as it is": codec.dumps,
    "a method": lambda data: codec.dumps(data.method),
    "beside code": lambda data: codec.dumps((lambda: None, data)),
    "in a closure": lambda data: codec.dumps(lambda: data),
    "an exception": lambda data: raised.told(broken(data), ""),
}


@pytest.mark.row("E05")
@pytest.mark.parametrize("way", WAYS)
def test_what_was_serialised_is_freed_with_its_last_reference(no_collector: None, way: str) -> None:
    data = Data()
    end = weakref.ref(data)
    WAYS[way](data)
    del data
    assert end() is None, "no circle keeps it until the collector comes by"


@pytest.mark.row("S03")
def test_a_text_file_that_is_read_travels_as_its_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one\ntwo\n")
    with open(tmp_path / "text") as file:
        assert file.readline() == "one\n"
        there = codec.loads(codec.dumps((file, lambda: 1)).data)[0]
    assert isinstance(there, io.StringIO) and there.read() == "two\n"
