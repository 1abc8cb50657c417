"""When mails are due and what they say: rules and texts, without a mail server."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs import JobState, RequestError, Settings
from grid.jobs.host.errors import JobError
from grid.jobs.mails.letters import LONGEST, MOST, compose, facts, one_line, took
from grid.jobs.mails.mailer import read_login
from grid.jobs.manager.admission import check_email, check_mails
from grid.jobs.record import Record
from grid.jobs.rules.post import FLOOD, MAILS, Letter, Note, due, pause_s, plan, wish

BERLIN = ZoneInfo("Europe/Berlin")
HOUR, DAY = 3600.0, 86400.0
NOON = datetime(2026, 11, 21, 12, 20, tzinfo=timezone.utc).timestamp()


def note(number: int, **kw: Any) -> Note:
    return Note(**{"number": number, "job": f"job-{number}", "owner": "mara", "noted": NOON, **kw})


@pytest.mark.row("J13")
def test_mails_are_due_at_once_at_full_hours_and_once_a_day() -> None:
    def when(noted: str, mails: str, zone: Any = timezone.utc) -> str:
        start = datetime.fromisoformat(noted).replace(tzinfo=zone).timestamp()
        return datetime.fromtimestamp(due(start, mails, 7, zone), zone).strftime("%d %H:%M")

    assert when("2026-11-21T12:20:05", "immediate") == "21 12:20"
    assert when("2026-11-21T12:20:05", "hourly") == "21 13:00"
    assert when("2026-11-21T12:00:00", "hourly") == "21 13:00"
    assert when("2026-11-21T06:59:59", "daily") == "21 07:00"
    assert when("2026-11-21T07:00:00", "daily") == "22 07:00"
    assert when("2026-11-21T23:59:59", "daily") == "22 07:00"
    assert when("2026-10-24T12:00:00", "daily", BERLIN) == "25 07:00"  # a day of 25 hours follows
    assert when("2026-03-28T12:00:00", "daily", BERLIN) == "29 07:00"  # and one of 23


@pytest.mark.row("J13")
@given(st.floats(0, 4e9), st.sampled_from(["hourly", "daily"]), st.integers(0, 23))
def test_what_waits_is_due_later_and_not_much_later(noted: float, mails: str, hour: int) -> None:
    for zone in (timezone.utc, BERLIN, None):
        wait_s = due(noted, mails, hour, zone) - noted
        assert 0 < wait_s <= (HOUR if mails == "hourly" else 25 * HOUR) + 1e-3


@pytest.mark.row("J13", "P06")
def test_the_submission_counts_before_the_user_and_daily_before_nothing() -> None:
    users = {"mara": {"email": "m@x", "mails": "hourly"}, "ole": {"email": "", "mails": ""}}
    assert wish(note(1), users) == ("m@x", "hourly")
    assert wish(note(1, mails="immediate"), users) == ("m@x", "immediate")
    assert wish(note(1, address="b@x"), users) == ("b@x", "hourly")
    assert wish(note(1, owner="ole"), users)[0] == "" == wish(note(1, mails="off"), users)[0]
    assert wish(note(1, owner="ole", address="b@x"), users) == ("b@x", "daily") == wish(note(1, address="b@x"), {})
    off = {"mara": {"email": "m@x", "mails": "off"}}
    assert wish(note(1), off)[0] == "" and wish(note(1, address="b@x"), off) == ("b@x", "daily")


@pytest.mark.row("J13")
def test_a_digest_takes_what_is_due_one_letter_for_each_address() -> None:
    users = {"mara": {"email": "m@x", "mails": "daily"}, "ole": {"email": "o@x", "mails": "daily"}}
    notes = [note(1), note(2, owner="ole"), note(3), note(4, noted=NOON + DAY)]
    assert plan([], users, NOON, hour=7) == plan(notes[:0], {}, 0.0, hour=7)  # nothing happened: nothing is sent
    early = plan(notes, users, NOON + 60, hour=7, zone=timezone.utc)
    assert not early.letters and early.next_due == due(NOON, "daily", 7, timezone.utc)
    done = plan(notes, users, early.next_due or 0, hour=7, zone=timezone.utc)
    assert [(each.address, [n.number for n in each.notes]) for each in done.letters] == [("m@x", [1, 3]), ("o@x", [2])]
    assert done.next_due == due(NOON + DAY, "daily", 7, timezone.utc)


@pytest.mark.row("J12", "J13")
def test_immediate_mails_are_one_for_each_job_unless_there_is_a_flood() -> None:
    users = {"mara": {"email": "m@x", "mails": "immediate"}}
    few = plan([note(n) for n in range(FLOOD)], users, NOON, hour=7)
    many = plan([note(n) for n in range(5000)], users, NOON, hour=7)
    assert [len(each.notes) for each in few.letters] == [1] * FLOOD
    assert [len(each.notes) for each in many.letters] == [5000]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "mara", "ole"]),
            st.sampled_from(["", "a@x"]),
            st.sampled_from(["", *MAILS]),
            st.floats(0, 2 * DAY),
            st.sampled_from(["", "l1"]),
        ),
        max_size=12,
    ),
    st.floats(0, 3 * DAY),
)
@pytest.mark.row("J13")
def test_each_note_is_in_one_letter_dropped_or_waits(drawn: list[Any], now: float) -> None:
    users = {"mara": {"email": "m@x", "mails": "hourly"}, "ole": {"email": "o@x", "mails": "off"}}
    notes = [
        note(number, owner=owner, address=address, mails=mails, noted=NOON + after, letter=letter)
        for number, (owner, address, mails, after, letter) in enumerate(drawn)
    ]
    planned = plan(notes, users, NOON + now, hour=7, zone=timezone.utc)
    sent = [each.number for letter in planned.letters for each in letter.notes]
    assert len(set(sent)) == len(sent) and not set(sent) & set(planned.dropped)
    assert all(letter.notes for letter in planned.letters)
    waiting = {each.number for each in notes} - set(sent) - set(planned.dropped)
    assert bool(waiting) == (planned.next_due is not None)
    assert planned.next_due is None or planned.next_due > NOON + now


@pytest.mark.row("J13")
def test_pauses_double_up_to_an_hour() -> None:
    assert [pause_s(n) for n in (1, 2, 3, 8, 10_000)] == [30.0, 60.0, 120.0, 3600.0, 3600.0]


def record(number: int = 1, **kw: Any) -> Record:
    times = {"created": NOON, "started": NOON + 1, "ended": NOON + 201}
    values: dict[str, Any] = {"state": JobState.COMPLETE, **times, **kw}
    return Record(f"job-{number}", number, "mara", "x.Fit", "2", {"data": {}}, **values)


def letter(*records: Record, **kw: Any) -> Letter:
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


@pytest.mark.row("P06", "J13")
def test_an_address_that_is_none_is_refused() -> None:
    wrong = ["no", "@x", "a@", "a@b@c", "a b@x", "a@x\r\nBcc: b@x", "a@x\x00", '"a"@x', "-f@x", "a@x,b@x", "<a@x>", 7]
    for address in (*wrong, "a" * 250 + "@host"):
        with pytest.raises(RequestError, match="e-mail"):
            check_email(address)  # type: ignore[arg-type]
    assert check_email("") == "" and check_email("mara+grid@lab.example") == "mara+grid@lab.example"


@pytest.mark.row("P06", "J13")
def test_wishes_are_known_words() -> None:
    assert [check_mails(each) for each in ("", *MAILS)] == ["", *MAILS]
    with pytest.raises(RequestError, match="immediate, hourly, daily, off"):
        check_mails("weekly")


@pytest.mark.row("J12")
def test_a_password_is_read_from_a_private_file_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "login"
    file.write_text("grid\nsecret word\n")
    file.chmod(0o644)
    with pytest.raises(JobError, match="chmod 600"):
        read_login(str(file))
    file.chmod(0o600)
    assert read_login(str(file)) == ("grid", "secret word")
    file.write_text("hush-hush\n")
    with pytest.raises(JobError, match="two lines") as caught:
        read_login(str(file))
    assert "hush" not in str(caught.value)
    with pytest.raises(JobError, match="FileNotFound"):
        read_login(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="clear"):
        Settings(mail_host="mail.example", mail_login=str(file))
    for wrong in ({"mail_hour": 24}, {"mail_tls": "ssl"}):
        with pytest.raises(ValueError, match="mail_"):
            Settings(**wrong)  # type: ignore[arg-type]
