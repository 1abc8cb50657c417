"""Which mails are due when, and what goes into one letter."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.jobs.mails.letters import facts
from grid.jobs.record import JobRecord
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


def letter(*records: JobRecord, **kw: Any) -> Letter:
    notes = tuple(note(each.number, facts=facts(each)) for each in records)
    return Letter(**{"id": "l1", "address": "m@x", "mails": "daily", "posted": NOON, "notes": notes, **kw})
