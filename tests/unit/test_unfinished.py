"""Calls that run although nobody waits for them."""

from __future__ import annotations

import logging

import pytest

from grid.services import unfinished
from grid.services.unfinished import Unfinished


class Calls:
    """Done after it was asked so often."""

    def __init__(self, names: list[str], rounds: int) -> None:
        self.names, self.rounds = names, rounds

    def left(self) -> list[str]:
        return self.names if self.rounds else []

    def join(self, timeout: float | None = None) -> bool:
        self.rounds = max(0, self.rounds - 1)
        return not self.rounds


@pytest.mark.row("E04")
def test_they_are_finished_with_a_word_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unfinished, "_TELL_S", 0.0)
    calls, kept = Calls(["fit", "fit"], 3), Unfinished()
    kept.add(calls)
    with caplog.at_level(logging.WARNING):
        kept.finish()
    assert not calls.rounds and "finished first: fit" in caplog.text
    kept.say_dropped()
    assert "dropped" not in caplog.text


@pytest.mark.row("E04")
def test_what_is_dropped_is_named(caplog: pytest.LogCaptureFixture) -> None:
    kept = Unfinished()
    calls = Calls([f"call_{number}" for number in range(500)], 1)
    kept.add(calls)
    kept.add(Calls(["nobody holds it"], 1))
    with caplog.at_level(logging.WARNING):
        kept.say_dropped()
    assert "500 calls that nobody waited for are dropped: call_0, call_1" in caplog.text
    assert "nobody holds it" not in caplog.text and len(caplog.text) < 1000
