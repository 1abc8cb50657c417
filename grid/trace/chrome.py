"""A timeline as trace events, which Perfetto and chrome://tracing open: a process is a host, a thread a server.

Source of the format: "Trace Event Format", Google; `ts` and `dur` are in microseconds.
Lives here: plain values. Pure.
"""

from __future__ import annotations

from typing import Any

from grid.trace.timeline import Timeline


def trace_events(timeline: Timeline) -> dict[str, Any]:
    """The whole file, ready for `json.dumps`."""
    hosts = {host: number for number, host in enumerate(dict.fromkeys(row.host for row in timeline.rows), 1)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": host}} for host, pid in hosts.items()
    ]
    for tid, row in enumerate(timeline.rows, 1):
        where = {"pid": hosts[row.host], "tid": tid}
        events.append({"ph": "M", "name": "thread_name", **where, "args": {"name": row.server}})
        for each in row.slices:
            events.append(
                {
                    "ph": "X",
                    "name": each.name,
                    "cat": each.outcome,
                    "ts": round(each.begin * 1e6, 1),
                    "dur": round((each.end - each.begin) * 1e6, 1),
                    **where,
                    "args": {"outcome": each.outcome, "waited_ms": round(each.waited * 1e3, 3)},
                }
            )
        if row.death:
            lost = {"ph": "i", "name": "server lost", "s": "t", "ts": round(row.end * 1e6, 1), **where}
            events.append({**lost, "args": {"why": row.death}})
    about = {"grid": timeline.title, "began": timeline.began, "seconds": timeline.length, "dropped": timeline.dropped}
    return {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}
