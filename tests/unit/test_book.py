"""The book of a job manager: what is stored before it is told, what is told in which order, what is stored later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grid.jobs import JobError, MoveError, RequestError, StoreError, UnknownJob
from grid.jobs.host import messages
from grid.jobs.rules.states import JobState
from tests.unit.shelf import Ear, book_of, record


@pytest.mark.row("J21", "J11")
def test_a_move_is_stored_before_anybody_hears_of_it(tmp_path: Path) -> None:
    book, shelf = book_of(tmp_path, record(1))
    ear = Ear(book)
    shelf.refuses = True
    with pytest.raises(StoreError):
        book.move(book.record("job-1"), JobState.ACTIVE, attempt=1)
    assert book.record("job-1").state is JobState.PENDING and book.record("job-1").attempt == 0 and ear.notes == []
    shelf.refuses = False
    book.move(book.record("job-1"), JobState.ACTIVE, attempt=1)
    assert shelf.written == [{"job-1": {"state": JobState.ACTIVE, "attempt": 1}}]
    assert ear.notes == [("job-1", "State"), ("job-1", "is active")]


@pytest.mark.row("J21")
def test_a_move_that_the_table_does_not_have_changes_nothing(tmp_path: Path) -> None:
    book, shelf = book_of(tmp_path, record(1, JobState.COMPLETE))
    with pytest.raises(MoveError, match="job-1 is complete"):
        book.move(book.record("job-1"), JobState.CANCELLED)
    assert shelf.written == []


@pytest.mark.row("J21", "J15")
def test_an_end_is_told_after_the_state_and_once_more_to_whoever_comes_later(tmp_path: Path) -> None:
    book, _ = book_of(tmp_path, record(1))
    ear = Ear(book)
    with book.lock:
        book.move(book.record("job-1"), JobState.CANCELLED, reason="because", ended=5.0)
    assert ear.notes == [("job-1", "State"), ("job-1", "Cancelled"), ("job-1", "is cancelled")]
    late = book.listen("job-1")
    assert [late.get(0).kind for _ in range(2)] == ["Join", "Cancelled"]


@pytest.mark.row("C13", "J01")
def test_moves_that_follow_from_conditions_are_told_at_once_and_stored_with_the_next_save(tmp_path: Path) -> None:
    book, shelf = book_of(tmp_path, record(1, JobState.WAITING))
    ear = Ear(book)
    values = book.apply(book.record("job-1"), JobState.PENDING)
    assert ear.notes[-1] == ("job-1", "is pending") and shelf.written == []
    shelf.refuses = True
    book.store_soon({"job-1": values})
    assert book.troubled and book.save() == {} and shelf.written == []
    shelf.refuses = False
    assert book.save() == {}
    assert shelf.written == [{"job-1": {"state": JobState.PENDING}}]
    assert book.save() == {} and len(shelf.written) == 1, "once is enough"


@pytest.mark.row("J22")
def test_of_what_jobs_tell_one_unfit_value_is_named_and_the_others_are_stored(tmp_path: Path) -> None:
    book, shelf = book_of(tmp_path, record(1, JobState.ACTIVE), record(2, JobState.ACTIVE))
    shelf.unfit, shelf.written = {"best"}, []
    book.note(book.record("job-1"), best="\udcff")
    book.note(book.record("job-2"), progress=[1, 2, "steps"])
    refused = book.save()
    assert list(refused) == ["job-1"] and isinstance(refused["job-1"], RequestError)
    assert shelf.written == [{"job-2": {"progress": [1, 2, "steps"]}}]
    assert book.save() == {}


@pytest.mark.row("J19", "J01")
def test_jobs_that_were_active_are_pending_again_and_numbers_go_on(tmp_path: Path) -> None:
    book, shelf = book_of(tmp_path, record(3, JobState.ACTIVE), record(7, JobState.COMPLETE))
    assert book.record("job-3").state is JobState.PENDING and book.record("job-7").state is JobState.COMPLETE
    assert shelf.written == [{"job-3": {"state": JobState.PENDING, "reason": "the server was restarted"}}]
    assert book.next_number() == 8


@pytest.mark.row("J23")
def test_what_a_user_has_counts_until_it_is_deleted(tmp_path: Path) -> None:
    book, _ = book_of(tmp_path, record(1, JobState.COMPLETE), jobs_each=2)
    book.insert("mara", [record(2)])
    book.enter(record(2))
    with pytest.raises(RequestError, match="mara has 2 jobs here"):
        book.insert("mara", [record(3)])
    book.insert("ole", [record(3, owner="ole")])
    book.delete(["job-1"])
    book.insert("mara", [record(4)])


@pytest.mark.row("J20")
def test_only_jobs_that_have_ended_leave_the_list_all_or_none(tmp_path: Path) -> None:
    book, _ = book_of(tmp_path, record(1, JobState.COMPLETE), record(2))
    for leave in (lambda: book.archive(["job-1", "job-2"], True), lambda: book.delete(["job-1", "job-2"])):
        with pytest.raises(JobError, match="job-2 is pending"):
            leave()
    assert not book.record("job-1").archived
    changes: Any = book.listen("jobs")
    assert [each["id"] for each in changes.get(0).jobs] == ["job-1", "job-2"]
    book.archive(["job-1"], True)
    book.archive(["job-1"], False)
    book.delete(["job-1"])
    assert [changes.get(0).change for _ in range(3)] == ["removed", "created", "removed"]
    with pytest.raises(UnknownJob):
        book.record("job-1")


@pytest.mark.row("J18")
def test_what_is_whispered_reaches_conditions_and_no_stream(tmp_path: Path) -> None:
    book, _ = book_of(tmp_path, record(1, JobState.PENDING))
    ear = Ear(book)
    stream = book.streams.listen("job-1")
    book.whisper("job-1", messages.Improved(partial=1))
    book.emit("job-1", messages.Log(level="info", text="aloud"))
    assert ear.notes == [("job-1", "Improved"), ("job-1", "Log")]
    assert stream.get(0).kind == "Log"
    assert [message.text for message in book.kept("job-1", "Log")] == ["aloud"]
