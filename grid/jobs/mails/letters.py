"""The text of mails about jobs, plain and as HTML.

Everything in them that comes from a job is taken for text: control characters go, HTML is escaped, long texts are cut.

Lives here: `facts` (what a note keeps of a job), `compose`.
Elsewhere:  when a letter is due (`rules/post.py`), sending (`mailer.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from typing import Any

from grid.jobs.host.plain import dumps
from grid.jobs.record import JobRecord, iso
from grid.jobs.rules.post import Letter

LONGEST = 500
"""Characters of a result or a reason."""
MOST = 200
"""Jobs that a digest names; it counts the others."""

_ORDER = ("error", "aborted", "complete")
_COLOURS = {"error": "#b3261e", "aborted": "#8a5a00", "complete": "#1b6e3c"}


def facts(record: JobRecord) -> dict[str, Any]:
    """The facts about a job that has ended; plain values. Not its traceback, which may show too much."""
    names = [tag.removeprefix("name=") for tag in record.tags if tag.startswith("name=")]
    return {
        "job": record.id,
        "name": one_line(names[0] if names else "", 100),
        "service": f"{record.service} {record.version}",
        "state": record.state.value,
        "reason": one_line(record.error or record.reason),
        "result": one_line(dumps(record.result)) if record.result is not None else "",
        "created": record.created,
        "started": record.started,
        "ended": record.ended,
        "tags": one_line(", ".join(record.tags)),
    }


def one_line(text: str, longest: int = LONGEST) -> str:
    """Without line ends and other control characters, and cut."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return clean if len(clean) <= longest else clean[:longest] + " ..."


def compose(letter: Letter, sender: str) -> EmailMessage:
    """The mail of a letter; the same letter makes the same mail, so that a repeated one can be known as such."""
    jobs = sorted(
        (note.facts for note in letter.notes), key=lambda each: (_ORDER.index(each["state"]), each["ended"] or 0.0)
    )
    message = EmailMessage()
    single = jobs[0] if len(jobs) == 1 else None
    counts = Counter(each["state"] for each in jobs)
    summary = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    if single:
        message["Subject"] = f"[grid] {single['name'] or single['job']}: {single['state']}"
    else:
        message["Subject"] = f"[grid] {len(jobs)} jobs ended: {summary}"
    message["From"], message["To"] = sender, letter.address
    message["Date"] = format_datetime(datetime.fromtimestamp(letter.posted, timezone.utc))
    message["Message-ID"] = f"<grid-{letter.id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: holiday notices are not to answer it
    why = _why(letter)
    message.set_content(_text(jobs, summary, why))
    message.add_alternative(_html(jobs, summary, why), subtype="html")
    return message


def _why(letter: Letter) -> str:
    how = {"immediate": "at once", "hourly": "every hour", "daily": "once a day"}[letter.mails]
    return f"Sent {how}; service.set_email(address, mails=...) takes immediate, hourly, daily or off."


def _lines(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("job", job["job"]),
        *([("name", job["name"])] if job["name"] else []),
        ("service", job["service"]),
        ("state", job["state"]),
        *([("reason", job["reason"])] if job["reason"] else []),
        ("result", job["result"] or "none"),
        ("created", iso(job["created"])),
        ("started", iso(job["started"]) if job["started"] else "never"),
        ("ended", iso(job["ended"]) if job["ended"] else "not yet"),
        *([("took", took(job))] if took(job) else []),
        ("tags", job["tags"] or "none"),
    ]


def took(job: Mapping[str, Any]) -> str:
    """From start to end, in words."""
    if not job["started"] or not job["ended"]:
        return ""
    seconds = max(0.0, job["ended"] - job["started"])
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _text(jobs: list[Mapping[str, Any]], summary: str, why: str) -> str:
    if len(jobs) == 1:
        lines = [f"{name:<8} {value}" for name, value in _lines(jobs[0])]
    else:
        lines = [f"{len(jobs)} jobs ended: {summary}.", ""]
        for job in jobs[:MOST]:
            label = f"{job['name']} ({job['job']})" if job["name"] else job["job"]
            lines.append(f"{job['state']:<9} {iso(job['ended'] or 0.0)}  {label}")
            told = job["reason"] if job["state"] != "complete" else job["result"]
            lines += [f"          {told}"] if told else []
        if len(jobs) > MOST:
            lines.append(f"... and {len(jobs) - MOST} more")
    return "\n".join([*lines, "", "-- ", why]) + "\n"


def _html(jobs: list[Mapping[str, Any]], summary: str, why: str) -> str:
    cell = "padding:4px 16px 4px 0;vertical-align:top;text-align:left"
    if len(jobs) == 1:
        title = f"{jobs[0]['name'] or jobs[0]['job']}: {jobs[0]['state']}"
        rows = [
            f'<tr><th style="{cell};font-weight:normal;color:#667">{escape(name)}</th>'
            f'<td style="{cell}">{_state(value) if name == "state" else escape(value)}</td></tr>'
            for name, value in _lines(jobs[0])
        ]
    else:
        title = f"{len(jobs)} jobs ended: {summary}"
        heads = "".join(f'<th style="{cell};color:#667">{name}</th>' for name in ("state", "job", "ended", "took", ""))
        rows = [f"<tr>{heads}</tr>"]
        for job in jobs[:MOST]:
            label = f"{job['name']} ({job['job']})" if job["name"] else job["job"]
            told = job["reason"] if job["state"] != "complete" else job["result"]
            values = (_state(job["state"]), *map(escape, (label, iso(job["ended"] or 0.0), took(job), told)))
            rows.append("<tr>" + "".join(f'<td style="{cell}">{value}</td>' for value in values) + "</tr>")
        if len(jobs) > MOST:
            rows.append(f'<tr><td colspan="5" style="{cell}">... and {len(jobs) - MOST} more</td></tr>')
    body = "\n".join(rows)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>grid</title></head>\n'
        '<body style="font-family:system-ui,sans-serif;font-size:15px;line-height:1.45;color:#1d2330">\n'
        f'<h1 style="font-size:18px">{escape(title)}</h1>\n<table style="border-collapse:collapse">\n{body}\n</table>\n'
        f'<p style="color:#667;font-size:13px">{escape(why)}</p>\n</body></html>\n'
    )


def _state(state: str) -> str:
    return f'<b style="color:{_COLOURS.get(state, "#1d2330")}">{escape(state)}</b>'
