"""Jobs that wait: which moves follow from conditions, in which order, and what is stored together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from grid.jobs.conditions.algebra import Atom, C, F, T, Value
from grid.jobs.conditions.atoms import HasServers, IsCancelled, IsCompleted
from grid.jobs.rules.states import JobState
from tests.unit.shelf import World, world_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = world_of(tmp_path)
    yield world
    world.conditions.stop()


@pytest.mark.row("C13", "C26")
def test_an_end_moves_the_jobs_that_waited_for_it_and_they_are_stored_together(world: World) -> None:
    book, conditions = world.book, world.conditions
    world.wait_for("job-4", IsCompleted("job-1"))
    world.wait_for("job-5", IsCompleted("job-4"))
    assert book.record("job-4").state is JobState.WAITING and str(conditions.waits_for("job-4")).count("job-1") == 1
    world.shelf.written.clear()
    world.end("job-1", JobState.ERROR, error="broken")
    assert book.record("job-4").state is book.record("job-5").state is JobState.CANCELLED
    assert "job-1" in book.record("job-4").reason and "job-4" in book.record("job-5").reason
    assert [list(each) for each in world.shelf.written] == [["job-1"], ["job-4", "job-5"]]
    assert conditions.waits_for("job-4") is None


@pytest.mark.row("C12")
def test_a_condition_that_is_decided_already_moves_its_job_at_once(world: World) -> None:
    world.end("job-1", result=1)
    world.wait_for("job-4", IsCompleted("job-1"))
    assert world.book.record("job-4").state is JobState.PENDING


@pytest.mark.row("C12", "C13")
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("ids", [("a1", "a2"), ("a2", "a1"), ("x", "y"), ("y", "x")])
def test_one_end_is_one_event_for_all_atoms_of_a_condition(ids: tuple[str, str], before: bool, world: World) -> None:
    """The end makes one of them satisfied and one cancelled: in which order they hear of it must not matter."""
    condition = ~IsCompleted("job-1", ids[0]) & IsCancelled("job-1", ids[1])
    if before:
        world.wait_for("job-4", condition)
    world.end("job-1", JobState.ABORTED, reason="by hand")
    if not before:
        world.wait_for("job-4", condition)
    assert world.book.record("job-4").state is JobState.CANCELLED


@pytest.mark.row("C12")
def test_atoms_that_are_asked_one_after_another_are_seen_at_one_time() -> None:
    """The job ends between two questions: the first is asked again."""
    for first in ("completed", "failed"):
        ended: list[bool] = []

        def probe(atom: Atom, ended: list[bool] = ended) -> tuple[Value, str]:
            found = {IsCompleted: C, IsCancelled: T}[type(atom)] if ended else F  # type: ignore[index]
            ended.append(True)
            return found, ""

        completed, failed = IsCompleted("job-1"), IsCancelled("job-1")
        completed.probe = failed.probe = probe
        condition = ~completed & failed if first == "completed" else failed & ~completed
        assert condition.state is C


@pytest.mark.row("C09", "C10")
def test_equal_atoms_are_one_and_end_when_nobody_waits_for_them(world: World) -> None:
    for job in ("job-4", "job-5"):
        world.wait_for(job, IsCompleted("job-1"))
    shared = [world.conditions.waits_for(job) for job in ("job-4", "job-5")]
    assert shared[0] is shared[1]
    world.conditions.forget("job-4")
    assert world.conditions.waits_for("job-4") is None and world.conditions.waits_for("job-5") is shared[1]
    world.end("job-1", result=1)
    assert world.book.record("job-4").state is JobState.WAITING and world.book.record("job-5").state is JobState.PENDING


@pytest.mark.row("C01")
def test_servers_are_counted_when_somebody_waits_for_them(world: World) -> None:
    world.wait_for("job-4", HasServers(2))
    for world.servers in (1, 2):
        world.conditions.count_servers()
        assert world.book.record("job-4").state is (JobState.PENDING if world.servers == 2 else JobState.WAITING)
