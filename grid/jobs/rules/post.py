"""When mails about jobs are due, and which go together.

    immediate   as soon as the job has ended; a flood of ends to one address goes as one letter
    hourly      at the next full hour
    daily       at the next `hour` o'clock of the server's time zone
    off         never

A job that has ended leaves a `Note`; when it is due, all due notes to one address go in one letter. Without notes there
is no letter. Whose address and which wish count is looked up when a letter is made, so a change counts at once.

Lives here: `Note`, `due`, `plan`. No IO, no clock.
Elsewhere:  where notes are kept (`store/`), what a letter says (`mails/letters.py`), who sends it (`mails/mailer.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any

MAILS = ("immediate", "hourly", "daily", "off")
DEFAULT = "daily"
FLOOD = 10
"""More immediate notes than that to one address, at one look, go as one letter."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A job has ended, and somebody may want to know. Times are seconds since 1970."""

    number: int = 0
    job: str
    owner: str
    address: str = ""
    """That of the submission; empty: the owner's."""
    mails: str = ""
    """The wish of the submission, one of `MAILS`; empty: the owner's."""
    noted: float
    letter: str = ""
    """Id of the letter that it is in; empty: none yet."""
    posted: float = 0.0
    """When it was put into that."""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Letter:
    """Notes that go to one address together. `id` is empty for one that is to be made."""

    id: str = ""
    address: str
    mails: str
    posted: float = 0.0
    notes: tuple[Note, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The letters to send now, and when to look again (None: not before another note)."""

    letters: tuple[Letter, ...] = ()
    dropped: tuple[int, ...] = ()
    """Numbers of notes that nobody wants (any more)."""
    next_due: float | None = None


def wish(note: Note, users: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Address and one of `MAILS` for a note; an empty address if nobody wants it."""
    user = users.get(note.owner, {})
    address = note.address or user.get("email", "")
    mails = note.mails or user.get("mails", "") or DEFAULT
    if mails == "off" and note.address and not note.mails:
        mails = DEFAULT  # "off" was said of the owner's own address
    return ("", mails) if mails == "off" else (address, mails)


def due(noted: float, mails: str, hour: int, zone: tzinfo | None = None) -> float:
    """When a note of that time is sent.

    Args:
        hour: Of the daily digest, 0 to 23.
        zone: Whose hours; default: this machine's.
    """
    if mails == "immediate":
        return noted
    moment = datetime.fromtimestamp(noted, zone)
    if mails == "hourly":
        # By the clock of the sea: an hour is an hour, also where the wall clock is put back.
        past_hour = moment.minute * 60 + moment.second + moment.microsecond / 1e6
        return noted - past_hour + 3600.0
    when = moment.replace(hour=hour, minute=0, second=0, microsecond=0, fold=0)
    if when.timestamp() <= noted:
        when = (when.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=moment.tzinfo)
    return when.timestamp()


def plan(
    notes: Iterable[Note],
    users: Mapping[str, Mapping[str, Any]],
    now: float,
    *,
    hour: int,
    zone: tzinfo | None = None,
) -> Plan:
    """Letters that are due: those made before and not sent, as they were, then new ones. Same input, same plan."""
    made: dict[str, list[Note]] = {}
    fresh: dict[tuple[str, str], list[Note]] = {}
    dropped: list[int] = []
    next_due: float | None = None
    for note in notes:
        address, mails = wish(note, users)
        if not address:
            dropped.append(note.number)
        elif note.letter:
            made.setdefault(note.letter, []).append(note)
        else:
            when = due(note.noted, mails, hour, zone)
            if when <= now:
                fresh.setdefault((address, mails), []).append(note)
            else:
                next_due = when if next_due is None else min(next_due, when)
    letters = []
    for letter, inside in made.items():
        address, mails = wish(inside[0], users)
        letters.append(Letter(id=letter, address=address, mails=mails, posted=inside[0].posted, notes=tuple(inside)))
    for (address, mails), inside in fresh.items():
        single = mails == "immediate" and len(inside) <= FLOOD
        groups: Sequence[Sequence[Note]] = [[note] for note in inside] if single else [inside]
        letters += [Letter(address=address, mails=mails, notes=tuple(group)) for group in groups]
    return Plan(letters=tuple(letters), dropped=tuple(dropped), next_due=next_due)


def pause_s(attempt: int, first_s: float = 30.0, longest_s: float = 3600.0) -> float:
    """How long to wait after that many failures: doubling, up to an hour."""
    return float(min(longest_s, first_s * 2.0 ** min(attempt - 1, 30)))
