"""Slots that servers of one agent have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grid.kernel.reservations import Reservations
from grid.slots.needs import Needs
from grid.slots.resources import Said


@pytest.mark.row("O17")
def test_a_server_that_comes_back_gets_a_slot_after_its_earlier_process_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    monkeypatch.setenv("GRID_LOCKS_DIR", str(tmp_path))
    slots = Reservations(2, Said(cores=8, memory=8 << 30), os.environ, "me")
    assert list(slots.reserve(["one"], Needs(memory="1G"))["granted"]) == ["one"]
    slots.leaving("one")
    answer = slots.reserve(["one", "two"], Needs(memory="1G"))  # there is room for more, but its end would free it
    assert list(answer["granted"]) == ["two"] and answer["soon"]
    slots.free("one")
    assert list(slots.reserve(["one"], Needs(memory="1G"))["granted"]) == ["one"]
