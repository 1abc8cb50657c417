"""Races, and the moves that conditions decide: with a store in memory, no thread but the judge of expressions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import RequestError, UnknownJob
from grid.jobs.conditions.atoms import HasServers, IsCompleted, KnownAtom
from grid.jobs.fetch.deposits import Deposits
from grid.jobs.manager.admission import atom_id
from grid.jobs.manager.book import Book
from grid.jobs.manager.conditions import Conditions
from grid.jobs.manager.races import Races
from grid.jobs.rules.states import JobState
from tests.unit.shelf import Shelf, book_of, record

W, P, A = JobState.WAITING, JobState.PENDING, JobState.ACTIVE


class World:
    def __init__(self, book: Book, shelf: Shelf, directory: Path) -> None:
        self.book, self.shelf, self.servers, self.aborted = book, shelf, 0, list[tuple[str, str]]()
        self.conditions = Conditions(book, Deposits(directory), lambda: self.servers)
        self.races = Races(book, self.conditions, lambda job, reason: self.aborted.append((job, reason)))

    def end(self, job: str, state: JobState = JobState.COMPLETE, **values: Any) -> None:
        record = self.book.record(job)
        record.state = JobState.ACTIVE
        with self.book.lock:
            self.book.move(record, state, ended=1.0, **values)
        while self.conditions.judge.turn():
            pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    book, shelf = book_of(tmp_path, *(record(number) for number in range(1, 4)), record(4, W), record(5, W), races=2)
    world = World(book, shelf, tmp_path)
    yield world
    world.conditions.stop()


def known(atom: KnownAtom) -> KnownAtom:
    atom.id = atom_id(atom.kind, atom.arguments)
    return atom


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


@pytest.mark.row("C13", "C26")
def test_an_end_moves_the_jobs_that_waited_for_it_and_they_are_stored_together(world: World) -> None:
    book, conditions = world.book, world.conditions
    conditions.wait_for(book.record("job-4"), known(IsCompleted("job-1")))
    conditions.wait_for(book.record("job-5"), known(IsCompleted("job-4")))
    conditions.settle()
    assert book.record("job-4").state is W and str(conditions.waits_for("job-4")).count("job-1") == 1
    world.shelf.written.clear()
    world.end("job-1", JobState.ERROR, error="broken")
    assert book.record("job-4").state is book.record("job-5").state is JobState.CANCELLED
    assert "job-1" in book.record("job-4").reason and "job-4" in book.record("job-5").reason
    assert [list(each) for each in world.shelf.written] == [["job-1"], ["job-4", "job-5"]]
    assert conditions.waits_for("job-4") is None


@pytest.mark.row("C12")
def test_a_condition_that_is_decided_already_moves_its_job_at_once(world: World) -> None:
    world.end("job-1", result=1)
    world.conditions.wait_for(world.book.record("job-4"), known(IsCompleted("job-1")))
    world.conditions.settle()
    assert world.book.record("job-4").state is P


@pytest.mark.row("C09", "C10")
def test_equal_atoms_are_one_and_end_when_nobody_waits_for_them(world: World) -> None:
    for job in ("job-4", "job-5"):
        world.conditions.wait_for(world.book.record(job), known(IsCompleted("job-1")))
    shared = [world.conditions.waits_for(job) for job in ("job-4", "job-5")]
    assert shared[0] is shared[1]
    world.conditions.forget("job-4")
    assert world.conditions.waits_for("job-4") is None and world.conditions.waits_for("job-5") is shared[1]
    world.end("job-1", result=1)
    assert world.book.record("job-4").state is W and world.book.record("job-5").state is P


@pytest.mark.row("C01")
def test_servers_are_counted_when_somebody_waits_for_them(world: World) -> None:
    world.conditions.wait_for(world.book.record("job-4"), known(HasServers(2)))
    for world.servers in (1, 2):
        world.conditions.count_servers()
        assert world.book.record("job-4").state is (P if world.servers == 2 else W)
