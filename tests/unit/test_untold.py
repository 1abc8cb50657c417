"""An error that nobody asked for is told once; one that was asked for, never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grid.services.untold import Untold
from grid.wire import codec, raised
from grid.wire.frames import ERROR, Kind, pack

pytestmark = pytest.mark.row("U10")
FACTS = ("energy", "Model.0/1", "n1")


def frame() -> bytes:
    try:
        _ = 1 / 0
    except ZeroDivisionError as exc:
        text = f'Traceback:\n  File "model.py", line 7, in energy\n{type(exc).__name__}: {exc}\n'
        dumped = codec.dumps_whole((raised.told(exc, ""), text))
    return pack(Kind.REPLY, 0, 0, 0, 1, dumped, (), ERROR)


class Waste(list[Callable[[], Any]]):
    put = list.append


def test_it_is_told_once_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    waste = Waste()
    error = Untold(frame(), FACTS, waste)  # type: ignore[arg-type]
    assert error.armed
    error.tell()
    error.tell()
    assert not error.armed and len(caplog.records) == 1
    assert "call 'energy' on server Model.0/1 at host 'n1' failed" in caplog.messages[0]
    assert "ZeroDivisionError: division by zero (model.py, line 7)" in caplog.messages[0]
    del error
    assert waste == []


def test_what_was_asked_for_is_told_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    waste = Waste()
    error = Untold(frame(), FACTS, waste)  # type: ignore[arg-type]
    error.asked()
    error.tell()
    del error
    assert waste == [] and not caplog.records


def test_one_that_is_dropped_is_told_by_another_thread_later(caplog: pytest.LogCaptureFixture) -> None:
    waste = Waste()
    error = Untold(frame(), FACTS, waste)  # type: ignore[arg-type]
    del error
    assert not caplog.records and len(waste) == 1  # any lock may be held where an object is freed
    waste[0]()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("raw", [b"", b"torn", pack(Kind.REPLY, 0, 0, 0, 1, b"no pickle", (), ERROR)])
def test_one_that_can_not_be_read_is_told_all_the_same(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    error = Untold(raw, FACTS, Waste())  # type: ignore[arg-type]
    error.tell()
    assert "an error that can't be read here" in caplog.messages[0]
