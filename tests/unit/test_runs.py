"""Jobs at work: what is made of what they tell, and of their ends."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from grid.jobs import RequestError
from grid.jobs.host import messages
from grid.jobs.manager.dispatch import Dispatch
from grid.jobs.manager.runs import Runs
from grid.jobs.record import JobRecord
from grid.jobs.rules.states import JobState
from tests.unit.shelf import Ear, Shelf, book_of, record


class Fakes:
    """A desk, a memory and a mailer that note what they are asked."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.waiting: list[str] = []

    def close(self, job: str, _: float) -> None:
        self.closed.append(job)

    def release(self, _: str) -> list[str]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def made(self, _: str) -> dict[str, str] | None:
        return {}

    def note(self, _: JobRecord) -> None:
        return None


class AtWork:
    def __init__(self, directory: Path, *records: JobRecord, **limits: Any) -> None:
        self.book, self.shelf = book_of(directory, *records, **limits)
        for each in self.book.all():
            if each.started is not None:
                each.state = JobState.ACTIVE
        self.shelf.written.clear()
        self.fakes: Any = Fakes()
        self.dispatch = Dispatch(self.book.records.get)
        self.runs = Runs(self.book, self.fakes, self.dispatch, self.fakes, self.fakes)
        self.ear = Ear(self.book)


def active(number: int, **values: Any) -> JobRecord:
    return record(number, started=1.0, **values)


@pytest.mark.row("J11", "J18")
def test_a_better_result_is_stored_later_and_told_only_where_it_is_meant_for_people(tmp_path: Path) -> None:
    work = AtWork(tmp_path, active(1))
    stream = work.book.streams.listen("job-1")
    work.runs.improved("job-1", {"x": 1}, loud=False)
    work.runs.improved("job-1", {"x": 2}, loud=True)
    assert work.ear.notes == [("job-1", "Improved")] * 2, "conditions hear of both"
    assert stream.get(0).partial == {"x": 2}
    assert work.shelf.written == [] and work.book.save() == {}
    assert work.shelf.written[0]["job-1"]["best"] == {"x": 2}


@pytest.mark.row("J21")
def test_what_a_job_tells_that_is_not_at_work_is_dropped(tmp_path: Path) -> None:
    work = AtWork(tmp_path, record(1))
    work.runs.said("job-1", messages.Log(level="info", text="too late"))
    work.runs.improved("job-99", 1, loud=True)
    work.runs.suspended("job-1", "the grid was stopped")
    work.runs.ended("job-1", "complete", 1, "", "")
    assert work.ear.notes == [] and work.book.record("job-1").state is JobState.PENDING


@pytest.mark.row("J21", "J11")
def test_the_end_of_a_job_is_stored_then_its_units_are_dropped_then_it_is_told(tmp_path: Path) -> None:
    work = AtWork(tmp_path, active(1))
    work.runs.ended("job-1", "complete", {"x": 1}, "", "")
    assert work.shelf.written[0]["job-1"]["result"] == {"x": 1} and work.fakes.closed == ["job-1"]
    assert work.ear.notes == [("job-1", "State"), ("job-1", "Completed"), ("job-1", "is complete")]
    work.runs.ended("job-1", "error", None, "once more", "")
    assert work.book.record("job-1").state is JobState.COMPLETE, "the first end counts"


@pytest.mark.row("J01")
def test_an_end_that_the_store_refuses_is_tried_until_it_is_stored(tmp_path: Path) -> None:
    class Slow(Shelf):
        tried = 0

        def complete(self, job: str, values: Any, *rest: Any) -> bool:
            self.tried += 1
            self.refuses = self.tried < 2
            return super().complete(job, values, *rest)

    work = AtWork(tmp_path, active(1))
    slow = Slow(tmp_path)
    work.book.store = slow  # type: ignore[assignment]
    work.runs.ended("job-1", "aborted", None, "enough", "")
    assert slow.tried == 2 and work.book.record("job-1").state is JobState.ABORTED and not work.book.troubled


@pytest.mark.row("J22")
def test_an_end_that_can_not_be_kept_for_another_reason_is_an_error_without_the_values(tmp_path: Path) -> None:
    class Picky(Shelf):
        def complete(self, job: str, values: Any, *rest: Any) -> bool:
            if values["best"] is not None:
                raise TypeError("no text")
            return super().complete(job, values, *rest)

    work = AtWork(tmp_path, active(1, best="bad", has_best=True))
    work.book.store = Picky(tmp_path)  # type: ignore[assignment]
    work.runs.ended("job-1", "complete", 1, "", "")
    ended = work.book.record("job-1")
    assert ended.state is JobState.ERROR and ended.best is None
    assert ended.error == "its end (complete) could not be kept (TypeError: no text)"


@pytest.mark.row("J19", "C27")
def test_a_job_that_goes_back_is_pending_and_frees_those_that_waited_for_its_result(tmp_path: Path) -> None:
    work = AtWork(tmp_path, active(1), record(2))
    work.dispatch.park("job-2")
    work.fakes.waiting = ["job-2"]
    work.runs.suspended("job-1", "the server stopped")
    assert work.book.record("job-1").state is JobState.PENDING and work.fakes.closed == ["job-1"]
    assert work.shelf.written[0]["job-1"]["reason"] == "the server stopped"
    assert work.dispatch.choose({}, lambda each: "").record is work.book.record("job-2")


@pytest.mark.row("J19")
def test_a_job_whose_process_died_begins_again_until_that_was_too_often(tmp_path: Path) -> None:
    work = AtWork(tmp_path, active(1, attempt=1), active(2, attempt=2), attempts=2)
    for job in ("job-1", "job-2"):
        work.runs.lost(job, "killed\nby somebody")
    assert work.book.record("job-1").reason == "its process died: killed"
    assert work.book.record("job-2").error == "its process died 2 times: killed\nby somebody"


@pytest.mark.row("P14", "J23")
def test_messages_for_a_job_that_has_not_begun_wait_up_to_a_limit_and_end_with_it(tmp_path: Path) -> None:
    class Deaf(threading.Thread):
        def __init__(self, about: JobRecord) -> None:
            super().__init__()
            self.record, self.sent, self.n_waiting = about, list[str](), 0

        def send(self, message: Any) -> None:
            self.sent.append(message.kind)

    work = AtWork(tmp_path, record(1), record(2), messages_waiting=2)
    with work.book.lock:
        for job in ("job-1", "job-2"):
            for kind in ("Pause", "Resume"):
                work.runs.control(work.book.record(job), messages.Message(kind))
        with pytest.raises(RequestError, match="2 messages wait for job job-1 already"):
            work.runs.control(work.book.record("job-1"), messages.Message("Pause"))
        begun: Any = Deaf(work.book.record("job-1"))
        work.runs.begin(begun)
        work.book.move(work.book.record("job-2"), JobState.CANCELLED, ended=1.0)
        work.runs.control(work.book.record("job-2"), messages.Message("Pause"))
    begun.join()
    assert begun.sent == ["Pause", "Resume"] and work.runs.owners() == {"job-1": "mara"}
    work.runs.execution_over(begun)
    assert work.runs.owners() == {}
