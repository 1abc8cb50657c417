"""The joblog: a line for each run, in the form that GNU parallel writes and reads; and the status of many runs.

    Seq	Host	Starttime	JobRuntime	Send	Receive	Exitval	Signal	Command

Lives here: lines, which numbers are done, the status of all; pure.
Elsewhere:  the file (`cli/command.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

HEADER = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
MOST_FAILED = 101
"""More failed runs than 100 are told by this status; fewer by their number."""


class LogLine(NamedTuple):
    """One run. `began`: seconds since 1970; `seconds`: how long it ran; `sent`, `received`: bytes."""

    seq: int
    host: str
    began: float
    seconds: float
    sent: int
    received: int
    status: int
    signal: int
    command: str


def written(line: LogLine) -> str:
    """The line, with its newline. Newlines of the command become blanks: one line is one run."""
    command = line.command.replace("\n", " ")
    return (
        f"{line.seq}\t{line.host}\t{line.began:.3f}\t{line.seconds:10.3f}\t{line.sent}\t{line.received}"
        f"\t{line.status}\t{line.signal}\t{command}\n"
    )


def read(lines: Iterable[str]) -> list[LogLine]:
    """The runs of a joblog, in its order. A line that is not whole (a crash cut it) is left out.

    Raises:
        ValueError: The first line is no joblog's.
    """
    found = []
    for number, text in enumerate(lines):
        if number == 0:
            if text.split("\t")[:1] != ["Seq"]:
                raise ValueError("it is no joblog: its first line does not begin with Seq")
            continue
        parts = text.rstrip("\n").split("\t", 8)
        if len(parts) < 9 or not text.endswith("\n"):
            continue
        try:
            seq, sent, received, status, signal = (int(parts[at]) for at in (0, 4, 5, 6, 7))
            found.append(
                LogLine(seq, parts[1], float(parts[2]), float(parts[3]), sent, received, status, signal, parts[8])
            )
        except ValueError:
            continue
    return found


def status_of(failed: int) -> int:
    """The exit status of all, as GNU parallel documents it: how many failed up to 100, and 101 for more."""
    return min(failed, MOST_FAILED)
