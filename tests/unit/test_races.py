"""Races: the first result that is good enough ends the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.jobs import RequestError, UnknownJob
from grid.jobs.rules.states import JobState
from tests.unit.shelf import World, world_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = world_of(tmp_path)
    yield world
    world.conditions.stop()


@pytest.mark.row("C38")
def test_the_first_result_that_is_good_enough_ends_the_others(world: World) -> None:
    race = world.races.open(["job-1", "job-2", "job-3"], "x < 5")
    world.end("job-2", result={"x": 7})
    assert world.races.status(race)["over"] is False
    world.end("job-3", result={"x": 4})
    assert world.races.status(race) == {
        "jobs": ["job-1", "job-2", "job-3"],
        "expression": "x < 5",
        "winner": "job-3",
        "over": True,
    }
    reason = f"job-3 was first in {race} with x < 5"
    assert world.aborted == [("job-1", reason), ("job-2", reason)]
    assert world.shelf.open_races == {}, "a decided race does not wait again after a restart"
    world.end("job-1", result={"x": 1})
    assert world.races.status(race)["winner"] == "job-3" and len(world.aborted) == 2


@pytest.mark.row("C38")
def test_a_race_that_nobody_can_win_is_over_without_a_winner(world: World) -> None:
    race = world.races.open(["job-1", "job-2"], "x < 5")
    world.end("job-1", JobState.ERROR, error="broken")
    world.end("job-2", result={"x": 9})
    assert world.races.status(race)["winner"] is None and world.races.status(race)["over"] is True
    assert world.aborted == [] and world.shelf.open_races == {}


@pytest.mark.row("C38", "J01")
def test_an_open_race_goes_on_after_a_restart(world: World, tmp_path: Path) -> None:
    race = world.races.open(["job-1"], "x < 5")
    again = World(world.book, world.shelf, tmp_path)
    again.races.load()
    again.races.run()
    again.end("job-1", result={"x": 1})
    assert again.races.status(race)["winner"] == "job-1"
    again.conditions.stop()


@pytest.mark.row("C38", "J23")
def test_races_are_refused_by_name_and_decided_ones_make_room(world: World) -> None:
    with pytest.raises(UnknownJob, match="job-99"):
        world.races.open(["job-1", "job-99"], "x < 5")
    with pytest.raises(RequestError, match="a race needs jobs"):
        world.races.open([], "x < 5")
    first = world.races.open(["job-1"], "x < 5")
    world.races.open(["job-2"], "x < 5")
    with pytest.raises(RequestError, match="2 races are open"):
        world.races.open(["job-3"], "x < 5")
    world.end("job-1", result={"x": 1})
    world.races.open(["job-3"], "x < 5")
    world.end("job-2", result={"x": 1})
    world.end("job-3", result={"x": 1})
    world.races.open(["job-3"], "x < 5")
    assert len(world.races) == 2
    with pytest.raises(UnknownJob, match="decided before a restart"):
        world.races.status(first)
