"""Timelines: which call ran when, as trace events and as a picture; what `grid top` shows of an answer."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.cli.top import screen
from grid.hooks import Answered
from grid.trace import Trace
from grid.trace.chrome import trace_events
from grid.trace.picture import page, span, svg, ticks
from grid.trace.timeline import Call, Life, Slice, Timeline, family, lay_out, merged, sums

pytestmark = pytest.mark.row("D03", "G44")

NASTY = "<b>&\"'\x00\x1b\ud800"


def timeline(calls: list[Call], lives: list[Life] | None = None, labels: Any = None) -> Timeline:
    lives = lives if lives is not None else [Life("M.0/0", "here", 100.0)]
    return lay_out("t", 0.0, 100.0, 200.0, calls, lives, labels or {})


times = st.floats(0, 50, allow_nan=False)


@given(st.lists(st.tuples(times, times, times), max_size=30))
def test_calls_of_a_server_never_overlap(drawn: list[tuple[float, float, float]]) -> None:
    """Whatever is told, in whatever batches the answers came: in order, one at a time, none after its answer."""
    calls, made = [], 100.0
    answered = 100.0
    for number, (gap, took, wait) in enumerate(drawn):
        made += gap / 10
        answered = max(answered, made + took) + (wait if number % 3 == 0 else 0.0)  # the others came with it
        calls.append(Call("M.0/0", number, f"m{number}", made, answered, took, "ok"))
    (row,) = timeline(calls).rows
    assert [each.name for each in row.slices] == [call.method for call in calls]
    for before, after in zip(row.slices, row.slices[1:], strict=False):
        assert before.end <= after.begin + 1e-9
    for each, call in zip(row.slices, calls, strict=True):
        assert each.begin <= each.end <= call.answered - 100.0 + 1e-9
        assert each.end - each.begin <= call.seconds + 1e-9 and each.waited >= 0


def test_answers_of_one_batch_are_laid_one_before_the_other() -> None:
    calls = [Call("M.0/0", number, "m", 100.0, 104.0, 1.0, "ok") for number in range(3)]
    (row,) = timeline(calls).rows
    assert [(each.begin, each.end, each.waited) for each in row.slices] == [(1, 2, 1), (2, 3, 2), (3, 4, 3)]
    assert row.busy == 3


def test_packs_have_the_name_of_their_method_and_withdrawn_calls_none() -> None:
    calls = [
        Call("M.0/0", 1, "map", 100.0, 101.0, 0.5, "ok"),
        Call("M.0/0", 2, "map", 100.0, 102.0, 0.5, "error"),
        Call("M.0/0", 3, "never", 100.0, 103.0, 0.0, "cancelled"),
    ]
    made = timeline(calls, labels={("M.0/0", 1): "energy x 50"})
    assert [each.name for each in made.rows[0].slices] == ["energy x 50", "map"]
    assert [(one.name, one.calls, one.failed) for one in sums(made)] == [("energy", 1, 0), ("map", 1, 1)]
    assert family("a x b") == "a x b" and family("f x 3") == "f"


def test_servers_are_rows_in_the_order_of_their_hosts_and_numbers() -> None:
    lives = [
        Life("M.0/10", "b", 100.0, 150.0, "terminated"),
        Life("M.0/9", "b", 100.0, 120.0, "killed"),
        Life("N.1/0", "a", 110.0),
    ]
    rows = timeline([], lives).rows
    assert [(row.server, row.begin, row.end, row.death) for row in rows] == [
        ("N.1/0", 10, 100, ""),
        ("M.0/9", 0, 20, "killed"),
        ("M.0/10", 0, 50, ""),
    ]


def test_trace_events_are_what_perfetto_reads() -> None:
    calls = [Call("M.0/0", 1, NASTY, 101.0, 102.0, 0.5, "error")]
    told = json.loads(json.dumps(trace_events(timeline(calls, [Life("M.0/0", "here", 100.0, 103.0, NASTY)]))))
    events = told["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "i"}
    (call,) = [event for event in events if event["ph"] == "X"]
    assert (call["ts"], call["dur"], call["args"]) == (1.5e6, 0.5e6, {"outcome": "error", "waited_ms": 500.0})
    names = {event["name"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {"process_name": "here", "thread_name": "M.0/0"}


def test_pictures_are_well_formed_and_nothing_in_them_is_code() -> None:
    calls = [Call("M.0/0", number, NASTY, 100.0 + number, 100.9 + number, 0.5, "ok") for number in range(5)]
    made = timeline(calls, [Life("M.0/0", NASTY, 100.0, 103.0, NASTY)])._replace(title=NASTY)
    picture = svg(made)
    ElementTree.fromstring(picture)
    assert "<b>" not in picture and "<b>" not in page(made)
    ElementTree.fromstring(svg(timeline([], [])))
    assert "0 servers" in page(timeline([], []))


def test_many_short_calls_are_few_boxes() -> None:
    slices = [Slice(n * 1e-4, n * 1e-4 + 5e-5, 0.0, "m", "ok") for n in range(100_000)]
    boxes = merged(slices, 0.01)
    assert len(boxes) <= 1200 and sum(count for _, count in boxes) == 100_000
    apart = [Slice(float(n), n + 0.5, 0.0, "m", "ok" if n % 2 else "error") for n in range(5)]
    assert [count for _, count in merged(apart, 0.01)] == [1] * 5
    long = [Slice(0, 1, 0, "m", "ok"), Slice(1.001, 2, 0, "m", "ok")]
    assert len(merged(long, 0.01)) == 2, "long calls stay apart though they follow at once"


@given(st.floats(1e-6, 1e6))
def test_ticks_are_few_and_round(length: float) -> None:
    made = ticks(length)
    assert made[0] == 0 and 2 <= len(made) <= 11 and made[-1] <= length * 1.0001


def test_times_for_people() -> None:
    assert [span(s) for s in (2e-5, 0.0123, 4.2, 500)] == ["20 us", "12.3 ms", "4.20 s", "500 s"]
    assert ticks(0.0) == [0.0]


def test_a_trace_is_bounded_and_says_what_is_missing(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.json", "t", kept=10)
    trace.came("M.0/0", "here")
    for number in range(25):
        trace.answered(Answered("M.0/0", number, "@call", time.monotonic(), 0.0, "ok"))
        trace.label("M.0/0", number, f"{number}")
    trace.went("M.0/0", "lost")
    told = trace.timeline()
    assert told.dropped == 15 and len(told.rows[0].slices) == 10 and told.rows[0].death == "lost"
    trace.save()
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["dropped"] == 15
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def test_a_trace_that_cannot_be_is_refused_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"\.json, \.html, \.svg"):
        Trace(tmp_path / "t.txt", "t")
    with pytest.raises(ValueError, match="no directory"):
        Trace(tmp_path / "none" / "t.json", "t")
    first, second = Trace(tmp_path / "u.json", "t"), Trace(tmp_path / "u.json", "t")
    assert (first.path.name, second.path.name) == ("u.json", "u-2.json")
    second.path.mkdir()
    second.save()
    assert "could not be written" in caplog.text, "the end of a grid is not kept up"


def test_the_screen_shows_what_there_is_room_for() -> None:
    from rich.console import Console

    def server(number: int) -> dict[str, Any]:
        state = "acquired" if number % 10 == 0 else "free"
        about = {"host": "[red]h", "state": state, "doing": "[bold]x", "jobs": 1, "calls": 2, "mean_s": 0.001}
        return {"name": f"M.0/{number}", **about}

    service = {"free": 90, "acquired": 10, "starting": 0, "waiting": 3, "servers": [server(n) for n in range(100)]}
    status = {
        "homes": [{"host": "a", "state": "up"}, {"host": "b", "state": "down"}],
        "services": {"M.0": service},
        "failures": {"b": "[/] it is off"},
    }
    found = [
        {"id": "1", "name": "[x]fit", "pid": 7, "began": time.time(), "status": status, "error": ""},
        {"id": "2", "name": "mute", "pid": 8, "began": time.time(), "status": None, "error": "gave no answer"},
    ]
    out = io.StringIO()
    Console(file=out, width=120, height=30).print(screen(found, {"1": {"M.0": 1234.0}}, 30))
    shown = out.getvalue()
    assert len(shown.splitlines()) <= 30
    for words in ("[x]fit", "1 of 2 hosts up: b down", "1234", "[red]h", "[bold]x", "[/] it is off", "gave no answer"):
        assert words in shown
    assert "slot" not in shown
    service["servers"][0] |= {
        "slot": "cores 0-3, devices GPU-1",
        "costs": {"cpu_s": 75.0, "peak_memory": 2_500_000_000},
    }
    Console(file=(wide := io.StringIO()), width=160, height=30).print(screen(found, {}, 30))
    for words in ("cores 0-3, devices GPU-1", "75 s", "2.5 GB", "peak memory"):
        assert words in wide.getvalue(), wide.getvalue()
    assert "M.0/0 " in shown and "M.0/90" in shown and "M.0/99" not in shown and "servers more" in shown
