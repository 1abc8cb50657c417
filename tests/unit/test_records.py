"""Records of submitted jobs, their scripts' own words, and what both mean together with the batch system's."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from grid.batch import records
from grid.batch.records import KEPT_S, End, Record, lost_outputs, marker, markers, outcome_of, read_end
from grid.batch_systems import JobState, JobStatus, Outcome

pytestmark = pytest.mark.row("L07")
RECORD = Record("12.vm", "fit", "torque", 1000.0, "./fit", token="abc", walltime_s=100.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_record_is_kept_for_its_owner_alone_and_forgotten_with_its_marks() -> None:
    now = time.time()
    old = replace(RECORD, job="a/1", submitted=now - KEPT_S - 60, token="old")
    new = replace(RECORD, submitted=now, outputs=["x"])
    newer = replace(RECORD, job="13.vm", submitted=now + 1)
    for each in (newer, old, new):
        each.keep()
        marker(each.token).write_text("0 1 2")
    files = list(records.base_directory().glob("job-*"))
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600} and len(files) == 3
    assert records.base_directory().stat().st_mode & 0o777 == 0o700
    (records.base_directory() / "job-torn.json").write_text('{"job": ')
    (records.base_directory() / "job-other.json").write_text('{"of": "another version"}')
    assert records.records() == [new, newer]
    assert not marker("old").exists() and marker("abc").exists()


def test_the_word_of_a_script_is_the_worst_of_its_tasks() -> None:
    assert read_end("") is None and read_end("abc") is None and RECORD.end is None
    marker("abc").write_text("0 10 20\n")
    assert read_end("abc") == RECORD.end == End(0, 10.0, 20.0)
    Path(f"{marker('abc')}.2").write_text("3 5 15")
    Path(f"{marker('abc')}.3").write_text("torn")
    Path(f"{marker('abc')}.new").write_text("9 9 9")
    assert len(markers("abc")) == 3
    assert read_end("abc") == End(3, 5.0, 20.0, of_array=True)


DONE, FAILED, TOLD = End(0, 0.0, 50.0), End(3, 0.0, 50.0), End(143, 0.0, 50.0)


@pytest.mark.parametrize(
    ("state", "outcome", "record", "end", "found"),
    [
        ("QUEUED", None, RECORD, None, ("queued", None)),
        ("HELD", None, RECORD, DONE, ("held", None)),  # a word of an earlier run
        ("RUNNING", None, RECORD, None, ("running", None)),
        ("RUNNING", None, RECORD, DONE, ("exiting", 0)),
        ("RUNNING", None, replace(RECORD, restarts=True), FAILED, ("running", None)),
        ("RUNNING", None, RECORD, replace(DONE, of_array=True), ("running", None)),
        ("EXITING", None, RECORD, None, ("exiting", None)),
        ("EXITING", None, RECORD, TOLD, ("killed", 143)),
        ("EXITING", None, replace(RECORD, restarts=True), TOLD, ("exiting", 143)),  # it may be queued again
        ("DONE", None, RECORD, DONE, ("done", 0)),
        ("DONE", Outcome.FAILED, RECORD, DONE, ("done", 0)),  # the script's own word counts first
        ("UNKNOWN", None, RECORD, DONE, ("done", 0)),
        ("DONE", Outcome.DONE, RECORD, FAILED, ("failed", 3)),
        ("DONE", None, RECORD, TOLD, ("killed", 143)),
        ("DONE", Outcome.KILLED, RECORD, FAILED, ("killed", 3)),
        ("DONE", Outcome.CANCELLED, RECORD, TOLD, ("cancelled", 143)),
        ("DONE", None, replace(RECORD, cancelled=True), TOLD, ("cancelled", 143)),
        ("DONE", None, replace(RECORD, cancelled=True), None, ("cancelled", 7)),
        ("DONE", Outcome.DONE, RECORD, None, ("killed", 7)),  # a crashed first node can be told of as 0
        ("DONE", Outcome.DONE, replace(RECORD, token=""), None, ("done", 7)),
        ("DONE", Outcome.DONE, None, None, ("done", 7)),
        ("DONE", Outcome.FAILED, RECORD, None, ("failed", 7)),
        ("DONE", None, None, None, ("done", 7)),
        ("DONE", None, RECORD, None, ("killed", 7)),
        ("UNKNOWN", None, RECORD, None, ("unknown", None)),
        ("UNKNOWN", None, None, None, ("unknown", None)),
    ],
)
def test_the_table_of_outcomes(
    state: str, outcome: Outcome | None, record: Record | None, end: End | None, found: tuple[str, int | None]
) -> None:
    said = JobStatus("12.vm", JobState[state], exit_status=7, outcome=outcome)
    word, _, status = outcome_of(said, record, end)
    assert (word, status) == found


@pytest.mark.parametrize(
    ("ended", "reason"), [(50.0, "by a signal"), (84.0, "by a signal"), (86.0, "walltime"), (200.0, "walltime")]
)
def test_why_a_script_was_told_to_end(ended: float, reason: str) -> None:
    said = JobStatus("12.vm", JobState.DONE)
    assert reason in records.why_killed(said, RECORD, End(143, 0.0, ended))
    killed = replace(said, outcome=Outcome.KILLED, reason="memory")
    assert records.why_killed(killed, RECORD, End(143, 0.0, ended)) == "memory"
    assert "by a signal" in records.why_killed(said, None, End(143, 0.0, ended))


def test_outputs_that_did_not_arrive(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    (tmp_path / "link").symlink_to("nowhere")
    record = replace(RECORD, outputs=[str(tmp_path / name) for name in ("here", "link", "lost")])
    assert lost_outputs(record) == [str(tmp_path / "lost")]
    assert lost_outputs(record, [str(tmp_path / "here")]) == []
