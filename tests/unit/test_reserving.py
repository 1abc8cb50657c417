"""Slots for servers on a host: what is just ending is waited for, what others have only until there is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grid.grids import reserving
from grid.grids.reserving import reserve
from grid.limits import Limits
from grid.slots.needs import Needs

pytestmark = pytest.mark.row("O10", "O11")


class Clock:
    def __init__(self) -> None:
        self.now, self.pauses = 0.0, []  # type: ignore[var-annotated]

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(reserving, "time", made)
    return made


class Host:
    def __init__(self, *answers: dict[str, Any]) -> None:
        self.host, self.answers, self.asked = SimpleNamespace(label="n1"), list(answers), []  # type: ignore[var-annotated]

    def ask(self, method: str, *args: Any) -> Any:
        self.asked.append((method, *args))
        if method == "resources":
            return None
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answer(*granted: str, why: str = "", soon: bool = False, later: bool = False) -> dict[str, Any]:
    return {"granted": dict.fromkeys(granted, "a slot"), "why": why, "soon": soon, "later": later}


def go(host: Host, waits_s: float = 5.0, halted: bool = False) -> tuple[dict[str, str], str]:
    fleet = SimpleNamespace(limits=Limits(stop_s=2.0), halted=halted)
    return reserve(host, ["a", "b"], Needs(cores=1), waits_s, fleet)[:2]  # type: ignore[arg-type]


def test_enough_room_asks_once(clock: Clock) -> None:
    host = Host(answer("a", "b"))
    assert go(host) == ({"a": "a slot", "b": "a slot"}, "") and clock.pauses == []
    assert host.asked == [("resources",), ("reserve", ["a", "b"], Needs(cores=1).plain())]


def test_what_is_just_ending_is_waited_for_in_short_steps(clock: Clock) -> None:
    host = Host(answer("a", why="full", soon=True), answer("b"))
    assert set(go(host)[0]) == {"a", "b"} and clock.pauses == [0.02]
    assert host.asked[-1][1] == ["b"]  # only those that have none


def test_it_ends_soon_or_never(clock: Clock) -> None:
    assert go(Host(answer("a", why="full", soon=True)))[1] == "full"
    assert 3 * 2.0 <= clock.now < 3 * 2.0 + 0.1


def test_what_others_have_is_waited_for_and_said_once_for_each_reason(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    busy = [answer(why="anna has it", later=True)] * 3 + [answer(why="ole has it", later=True)] * 2
    assert go(Host(*busy, answer("a")))[0] == {"a": "a slot"}
    assert clock.pauses == [0.5] * 5 and [message.rpartition(": ")[2] for message in caplog.messages] == [
        "anna has it",
        "ole has it",
    ]


def test_patience_ends_and_one_slot_is_enough(clock: Clock) -> None:
    assert go(Host(answer(why="anna has it", later=True)), waits_s=2.0) == ({}, "anna has it") and clock.now == 2.0
    clock.pauses.clear()
    assert go(Host(answer("a", why="anna has it", later=True))) == ({"a": "a slot"}, "anna has it") and not clock.pauses


def test_the_end_of_the_grid_ends_it(clock: Clock) -> None:
    assert go(Host(answer(why="full", soon=True)), halted=True) == ({}, "full") and clock.pauses == []
