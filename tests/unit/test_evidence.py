"""The kernel's count of processes that it killed for lack of memory."""

from __future__ import annotations

import io
from typing import Any

import pytest

from grid.kernel import evidence

pytestmark = pytest.mark.row("M10", "N03")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("pgfault 5\noom_kill 3\nx 1\n", 3),
        ("oom_kill_things 9\noom_kill 0\n", 0),
        ("oom_killer 4\n", None),
        ("oom_kill many\n", None),
        ("oom_kill \n", None),
        ("", None),
        (None, None),
    ],
)
def test_the_count_or_nothing(monkeypatch: pytest.MonkeyPatch, text: str | None, count: int | None) -> None:
    def opened(path: str, *_: Any) -> io.StringIO:
        assert path == "/proc/vmstat"
        if text is None:
            raise FileNotFoundError(path)
        return io.StringIO(text)

    monkeypatch.setattr("builtins.open", opened)
    found = evidence.oom_kills()
    monkeypatch.undo()
    assert found == count
