"""When each call ran, worked out from when its answer came and how long the server says that it took.

Clocks of hosts are not compared: all times are the client's. A server runs one call at a time, in order, so a call ends
no later than its answer came, and no later than the next one began. So answers that came together (in one batch) are
laid one before the other, and no two calls of a server overlap. What is wrong with it: calls are shown later than they
ran by the time that an answer travels.

Lives here: plain values. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Call(NamedTuple):
    """One call: times by the client's monotonic clock, in seconds."""

    server: str
    number: int  # of the call on its link
    method: str
    made: float
    answered: float
    seconds: float  # as the server measured it
    outcome: str  # ok, error, cancelled, lost


class Life(NamedTuple):
    """A server: where, from when till when, and how it ended."""

    server: str
    host: str
    since: float
    until: float | None = None
    end: str = ""  # "", "terminated", or why it was lost


class Slice(NamedTuple):
    """A call on the timeline: seconds since its beginning."""

    begin: float
    end: float
    waited: float  # between being made and beginning
    name: str
    outcome: str


class Row(NamedTuple):
    """A server on the timeline; `slices` in order, none overlapping."""

    server: str
    host: str
    begin: float
    end: float
    death: str  # why it was lost; empty otherwise
    slices: Sequence[Slice]

    @property
    def busy(self) -> float:
        """Seconds in calls."""
        return sum(each.end - each.begin for each in self.slices)


class Timeline(NamedTuple):
    """All servers, in the order of their hosts; `dropped` calls are missing at its beginning."""

    title: str
    began: float  # wall clock, seconds since 1970
    length: float
    rows: Sequence[Row]
    dropped: int = 0


def lay_out(
    title: str,
    began: float,
    origin: float,
    now: float,
    calls: Iterable[Call],
    lives: Iterable[Life],
    labels: Mapping[tuple[str, int], str],
    dropped: int = 0,
) -> Timeline:
    """The timeline from `origin` to `now`, both by the clock of the calls.

    Args:
        labels: (server, number of the call) -> a better name than its method.
    """
    by_server: dict[str, list[Call]] = {}
    for call in calls:
        if call.outcome != "cancelled":
            by_server.setdefault(call.server, []).append(call)
    rows = []
    for life in lives:
        until = now if life.until is None else life.until
        slices = [
            each._replace(begin=each.begin - origin, end=each.end - origin)
            for each in _slices(by_server.get(life.server, []), labels)
        ]
        death = "" if life.end == "terminated" else life.end
        rows.append(Row(life.server, life.host, life.since - origin, until - origin, death, slices))
    rows.sort(key=lambda row: (row.host, row.server.rpartition("/")[0], _number(row.server)))
    return Timeline(title, began, max(0.0, now - origin), rows, dropped)


def _slices(calls: list[Call], labels: Mapping[tuple[str, int], str]) -> list[Slice]:
    slices: list[Slice] = []
    limit = float("inf")
    for call in sorted(calls, key=lambda call: (call.answered, call.number), reverse=True):
        end = min(call.answered, limit)
        begin = max(end - call.seconds, min(call.made, end))  # a call that is lost: since it was made, at most
        limit = begin
        name = labels.get((call.server, call.number), call.method)
        slices.append(Slice(begin, end, max(0.0, begin - call.made), name, call.outcome))
    return slices[::-1]


def _number(server: str) -> tuple[int, str]:
    tail = server.rpartition("/")[2]
    return (int(tail), "") if tail.isdigit() else (0, tail)


class Sum(NamedTuple):
    """Durations of all calls of one name, in seconds."""

    name: str
    calls: int
    total: float
    mean: float
    longest: float
    failed: int


def sums(timeline: Timeline) -> list[Sum]:
    """Per name of a call, the one that took most first. Packs of a map count as one name: `energy x 50` is `energy`."""
    found: dict[str, list[Slice]] = {}
    for row in timeline.rows:
        for each in row.slices:
            found.setdefault(family(each.name), []).append(each)
    made = []
    for name, slices in found.items():
        times = [each.end - each.begin for each in slices]
        failed = sum(each.outcome != "ok" for each in slices)
        made.append(Sum(name, len(slices), sum(times), sum(times) / len(times), max(times), failed))
    return sorted(made, key=lambda each: (-each.total, each.name))


def family(name: str) -> str:
    """The method of a pack: `energy x 50` -> `energy`."""
    head, times, count = name.rpartition(" x ")
    return head if times and count.isdigit() else name


def merged(slices: Sequence[Slice], grain: float) -> list[tuple[Slice, int]]:
    """Slices that are shorter than `grain` seconds, and as near to each other, as one with their number."""
    made: list[tuple[Slice, int]] = []
    for each in slices:
        if made:
            last, count = made[-1]
            short = each.end - last.begin < grain or (
                each.begin - last.end < grain and each.end - each.begin < grain and count > 1
            )
            if short and last.outcome == each.outcome and family(last.name) == family(each.name):
                made[-1] = (last._replace(end=each.end), count + 1)
                continue
        made.append((each, 1))
    return made
