"""What mails about jobs say."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs import JobState
from grid.jobs.mails.letters import LONGEST, MOST, compose, facts, one_line, took
from grid.jobs.record import JobRecord
from grid.jobs.rules.post import Letter, Note

NOON = datetime(2026, 11, 21, 12, 20, tzinfo=timezone.utc).timestamp()


def note(number: int, **kw: Any) -> Note:
    return Note(**{"number": number, "job": f"job-{number}", "owner": "mara", "noted": NOON, **kw})


def record(number: int = 1, **kw: Any) -> JobRecord:
    times = {"created": NOON, "started": NOON + 1, "ended": NOON + 201}
    values: dict[str, Any] = {"state": JobState.COMPLETE, **times, **kw}
    return JobRecord(f"job-{number}", number, "mara", "x.Fit", "2", {"data": {}}, **values)


def letter(*records: JobRecord, **kw: Any) -> Letter:
    notes = tuple(note(each.number, facts=facts(each)) for each in records)
    return Letter(**{"id": "l1", "address": "m@x", "mails": "daily", "posted": NOON, "notes": notes, **kw})


def parts(made: Any) -> tuple[Any, str, str]:
    parsed = email.message_from_bytes(made.as_bytes(), policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/alternative"
    plain, html = parsed.iter_parts()
    assert (plain.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    return parsed, plain.get_content(), html.get_content()


@pytest.mark.row("J12")
def test_a_mail_names_the_job_its_state_its_result_and_times() -> None:
    head, plain, html = parts(compose(letter(record(tags=["name=sevens", "x"], result=49)), "grid@lab.example"))
    assert head["Subject"] == "[grid] sevens: complete" and head["To"] == "m@x" and head["From"] == "grid@lab.example"
    assert head["Message-ID"] == "<grid-l1@lab.example>" and head["Auto-Submitted"] == "auto-generated"
    assert head["Date"].datetime.timestamp() == NOON
    for line in ("result   49", "state    complete", "ended    2026-11-21T12:23:21+00:00", "took     3 min 20 s"):
        assert line in plain
    assert "sevens: complete" in html and ">49<" in html


@pytest.mark.row("J13")
def test_a_digest_counts_its_jobs_and_shows_the_failed_ones_first() -> None:
    many = [record(n, result=n) for n in range(1, MOST + 50)]
    bad = record(999, state=JobState.ERROR, error="ValueError: <b>too bad</b>")
    head, plain, html = parts(compose(letter(*many, bad), "g@x"))
    assert head["Subject"] == f"[grid] {MOST + 50} jobs ended: 1 error, {MOST + 49} complete"
    assert plain.index("job-999") < plain.index("job-1\n") and "... and 50 more" in plain and "job-249" not in plain
    assert "<b>too bad" not in html and "&lt;b&gt;too bad" in html and len(html) < 200_000


@pytest.mark.row("J12", "J22")
@given(st.text(), st.text(), st.text())
def test_whatever_a_job_says_makes_no_header_no_markup_and_no_failure(name: str, error: str, key: str) -> None:
    hostile = f"{name}\r\nBcc: all@x\r\n\r\n<script>alert(1)</script>"
    made = record(state=JobState.ERROR, tags=[f"name={hostile}"], error=error + hostile, result={key: hostile})
    head, plain, html = parts(compose(letter(made), "g@x"))
    assert sorted({key.lower() for key in head}) == sorted(
        ("subject", "from", "to", "date", "message-id", "auto-submitted", "mime-version", "content-type")
    )
    assert "<script" not in html and "\nBcc" not in plain


@pytest.mark.row("J12")
def test_texts_are_cut_and_tracebacks_stay_at_home() -> None:
    made = record(state=JobState.ERROR, error="x" * 10**6, trace="File secret.py", result="y" * 10**6)
    sent = compose(letter(made), "g@x").as_string()
    assert len(sent) < 20 * LONGEST and "secret.py" not in sent
    assert one_line("a\n\tb\x00\x1b[1m\ud800 c") == "a b [1m c"
    assert took({"started": NOON, "ended": NOON + 0.25}) == "0.25 s" and took({"started": None, "ended": NOON}) == ""
    assert took({"started": 0.5, "ended": 7500.5}) == "2 h 5 min"


@pytest.mark.row("J12", "J13")
def test_the_same_letter_makes_the_same_mail() -> None:
    made = letter(record(1), record(2, result={"a": 1}))

    def fixed() -> str:
        return str(compose(made, "g@x")["Message-ID"]) + str(compose(made, "g@x").get_body(("html",)))

    assert fixed() == fixed()
    assert compose(made, "g@x")["Message-ID"] != compose(replace(made, id="l2"), "g@x")["Message-ID"]
