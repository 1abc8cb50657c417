"""Which pending job is next, and why the others wait."""

from __future__ import annotations

import pytest

from grid.jobs.manager.dispatch import Dispatch
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from tests.unit.shelf import record


def dispatch_of(*records: JobRecord) -> Dispatch:
    dispatch = Dispatch({each.id: each for each in records}.get)
    for each in records:
        dispatch.add(each)
    return dispatch


def can_start(_: JobRecord) -> str:
    return ""


def order(dispatch: Dispatch) -> list[str]:
    """The jobs in the order in which they get places, each then at work for good."""
    active: dict[str, str] = {}
    while (found := dispatch.choose(active, can_start).record) is not None:
        found.state = JobState.ACTIVE
        active[found.id] = found.owner
    return list(active)


@pytest.mark.row("J02")
def test_of_one_owner_the_highest_priority_is_next_and_then_the_oldest() -> None:
    dispatch = dispatch_of(record(1), record(2, priority=5), record(3), record(4, priority=5))
    assert order(dispatch) == ["job-2", "job-4", "job-1", "job-3"]


@pytest.mark.row("J06", "J02")
def test_the_owner_with_the_fewest_jobs_at_work_is_next_whatever_priorities_others_have() -> None:
    many = [record(number, owner="ole", priority=9) for number in range(1, 5)]
    mine = [record(number, owner="mara") for number in range(5, 7)]
    assert order(dispatch_of(*many, *mine)) == ["job-1", "job-5", "job-2", "job-6", "job-3", "job-4"]


@pytest.mark.row("P07")
def test_a_job_that_was_cancelled_or_deleted_is_left_out_when_its_turn_comes() -> None:
    known = {each.id: each for each in (record(1), record(2), record(3))}
    dispatch = Dispatch(known.get)
    for each in known.values():
        dispatch.add(each)
    known["job-1"].state = JobState.CANCELLED
    del known["job-2"]
    assert order(dispatch) == ["job-3"]


@pytest.mark.row("J06")
def test_a_job_that_cannot_start_waits_aside_with_its_reason_and_holds_up_nobody() -> None:
    early, late = record(1, priority=9), record(2)
    early.service = "other.Service"
    dispatch = dispatch_of(early, late)
    choice = dispatch.choose({}, lambda each: "" if each is late else "its service is not here")
    assert choice.record is late and choice.waits == [(early, "its service is not here")]
    assert dispatch.choose({}, can_start).record is late, "it is asked for again only when its service came"
    assert dispatch.service_came("fits.Fit") == []
    assert dispatch.service_came("other.Service") == [early]
    assert dispatch.choose({}, can_start).record is early


@pytest.mark.row("C32")
def test_a_job_that_is_cancelled_while_it_is_looked_at_does_not_wait_aside() -> None:
    only = record(1)
    dispatch = dispatch_of(only)

    def decline(each: JobRecord) -> str:
        each.state = JobState.CANCELLED
        return "cancelled"

    choice = dispatch.choose({}, decline)
    assert choice.record is None and choice.waits == []
    assert dispatch.service_came("fits.Fit") == []


@pytest.mark.row("C27")
def test_a_parked_job_is_chosen_when_what_it_waits_for_is_computed() -> None:
    first, equal = record(1), record(2)
    dispatch = dispatch_of(first, equal)
    first.state = JobState.ACTIVE
    dispatch.park("job-2")
    assert dispatch.choose({"job-1": "mara"}, can_start).record is None
    assert dispatch.unpark(["job-2", "job-99"]) == [equal]
    assert dispatch.choose({}, can_start).record is equal


@pytest.mark.row("J19")
def test_a_job_that_is_added_twice_is_chosen_once_at_a_time() -> None:
    only = record(1)
    dispatch = dispatch_of(only, only)
    assert dispatch.choose({}, can_start).record is only
    assert dispatch.choose({only.id: "mara"}, can_start).record is None
    dispatch.add(only)  # its process died
    assert dispatch.choose({}, can_start).record is only
