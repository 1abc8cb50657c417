"""What is left of results, and goes later."""

from __future__ import annotations

import logging

import pytest

from grid.services.waste import Waste


@pytest.mark.row("U06")
def test_what_can_not_be_removed_yet_is_tried_again() -> None:
    waste, answers, asked = Waste(), [False, True], []

    def remove() -> bool:
        asked.append(1)
        return answers.pop(0)

    waste.put(remove)
    for count in (1, 2, 2):
        waste.take_out()
        assert len(asked) == count


class Value:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.here = error, False

    def bring_here(self) -> None:
        self.here = True
        if self.error is not None:
            raise self.error


@pytest.mark.row("U06")
def test_large_values_are_fetched_at_the_end_while_there_is_time(caplog: pytest.LogCaptureFixture) -> None:
    waste, values = Waste(), [Value(ValueError("no")), Value()]
    for value in values:
        waste.unfetched.add(value)
    waste.fetch(60)
    assert all(value.here for value in values)
    values = [Value()]
    waste.unfetched.add(values[0])
    with caplog.at_level(logging.WARNING):
        waste.fetch(-1)
    assert not values[0].here and "not all large results" in caplog.text
