"""A result: done once, decoded by the first who asks, told to whoever wants to know."""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from grid.errors import CallTimeout
from grid.services.load import Load
from grid.services.result import NOBODY, Reply, Result
from grid.services.waste import Waste
from grid.wire import raised
from grid.wire.frames import CANCELLED, ERROR, Kind, pack


class Link:
    """Errands are done at once, call-backs when they are asked for; nobody waits."""

    def __init__(self) -> None:
        self.callbacks = self
        self.due: list[Callable[[], None]] = []

    def errand(self, what: Callable[[], None]) -> None:
        what()

    def put(self, what: Callable[[], None]) -> None:
        self.due.append(what)

    def wait(self, pending: Any, timeout: float | None) -> bool:
        return bool(pending.done_flag)


class Callee:
    """A server, as a result knows it."""

    name, hooks, hold, home = "s/0", (), None, None

    def __init__(self) -> None:
        self.link, self.load, self.peer = Link(), Load(), type("Peer", (), {"blobs": None})()
        self.host = type("Host", (), {"label": "here"})()
        self.service = type("Service", (), {"waste": Waste(), "has_ended": lambda self: False})()
        self.freed = 0
        self.took_back = True
        self.asked: list[Callable[[bool], None]] = []

    def free_if_idle(self) -> None:
        self.freed += 1

    def withdraw(self, call: int) -> bool:
        return self.took_back

    def withdraw_later(self, call: int, then: Callable[[bool], None]) -> None:
        self.asked.append(then)

    def oldest(self) -> Any:
        return None

    def doing(self, about: Any = None) -> str:
        return "running 'f' for 2.0 s"


def reply(value: Any, flags: int = 0) -> bytes:
    return pack(Kind.REPLY, 0, 1, 0, 1, pickle.dumps(value, 5), flags=flags)


def result() -> tuple[Result, Callee]:
    callee = Callee()
    return Result(callee, NOBODY, "f"), callee  # type: ignore[arg-type]


@pytest.mark.row("G45", "G18")
def test_a_value_is_the_same_for_all_who_ask() -> None:
    made, callee = result()
    with pytest.raises(CallTimeout, match=r"not ready after 0.1 s: 'f' on s/0 at host 'here': running 'f'"):
        made.get(0.1)
    made.deliver(0, 0.25, reply([1]))
    assert made.done() and made.get() is made.get() == [1] and made.exception() is None
    made.deliver(0, 0.25, reply([2]))  # once more, where the first was torn off
    assert made.get() == [1] and callee.load.calls == 1 and callee.load.time[0] == 0.25
    with pytest.raises(TypeError):
        made.set_result(3)


@pytest.mark.row("G15")
def test_a_server_that_was_released_is_asked_about_with_each_reply() -> None:
    made, callee = result()
    callee.hold = type("Hold", (), {"released": True})()  # type: ignore[assignment]
    made.deliver(0, 0.1, reply(1))
    assert callee.freed == 1


@pytest.mark.row("G47")
def test_an_error_comes_home_and_is_told_where_nobody_asked(caplog: pytest.LogCaptureFixture) -> None:
    error = (
        raised.told(ValueError("it is bad"), "Traceback\nValueError: it is bad"),
        "Traceback\nValueError: it is bad",
    )
    made, callee = result()
    made.deliver(ERROR, 0.1, reply(error, ERROR))
    assert made.is_untold()
    with pytest.raises(ValueError, match="it is bad"):
        made.get()
    assert not made.is_untold()
    made, callee = result()
    made.deliver(ERROR, 0.1, reply(error, ERROR))
    del made
    with caplog.at_level(logging.WARNING):
        callee.service.waste.tell()
    assert caplog.text.count("call 'f' on server s/0 at host 'here' failed, and nobody asked") == 1


@pytest.mark.row("G46")
def test_it_can_be_withdrawn_unless_it_has_begun() -> None:
    made, callee = result()
    callee.took_back = False
    assert not made.cancel() and not made.done()
    callee.took_back = True
    assert made.cancel() and made.cancelled()
    with pytest.raises(CancelledError):
        made.get()
    made.deliver(CANCELLED, 0.0, reply(None, CANCELLED))
    assert callee.load.calls == 0


@pytest.mark.row("G46")
def test_it_can_be_withdrawn_without_waiting_for_its_host() -> None:
    made, callee = result()
    told = list[str]()
    made.when_done(lambda done: told.append("done"))

    def then(withdrawn: bool) -> None:
        told.append("granted" if withdrawn else "refused")

    made.cancel_later(then)
    assert not made.done() and not told, "its host has not answered"
    callee.asked[0](False)
    assert not made.done() and told == ["refused"]
    made.cancel_later(then)
    callee.asked[1](True)
    callee.asked[1](True)  # twice is once
    assert made.cancelled() and told[1] == "granted" and told.count("granted") == 1
    made.cancel_later()
    assert len(callee.asked) == 2, "what is done is not asked for"


@pytest.mark.row("G45", "U04")
def test_it_is_a_future_for_all_who_look() -> None:
    link, heard = Link(), list[str]()
    made = Reply(link)  # type: ignore[arg-type]
    made.when_done(lambda _: heard.append("listener"))
    made.add_done_callback(lambda _: heard.append("call-back"))
    made.add_done_callback(lambda _: 1 / 0)
    assert not concurrent.futures.wait([made], timeout=0).done
    made.deliver(0, 0.1, reply("x"))
    assert heard == ["listener"], "call-backs run in a thread of their own"
    for due in link.due:
        due()
    assert heard == ["listener", "call-back"]
    made.add_done_callback(lambda _: heard.append("late"))
    assert heard[-1] == "late" and list(concurrent.futures.as_completed([made])) == [made]


@pytest.mark.row("G13")
def test_a_call_back_that_is_added_between_the_answer_and_those_before_it_is_not_lost() -> None:
    """Else `await` waits for ever, where a wait for the same result was cancelled before."""
    callee = Callee()
    result = Result(callee, NOBODY, "f")
    heard: list[int] = []
    result.add_done_callback(lambda _: heard.append(1))
    result.deliver(0, 0.0, pack(Kind.REPLY, 1, 1, 0, 1, pickle.dumps(5)))
    assert heard == [] and len(callee.link.due) == 1  # the thread of call-backs has yet to run
    result.add_done_callback(lambda _: heard.append(2))
    for each in callee.link.due:
        each()
    result.add_done_callback(lambda _: heard.append(3))
    assert heard == [1, 2, 3]


@pytest.mark.row("G13")
def test_a_listener_that_is_added_between_the_answer_and_those_before_it_is_not_lost() -> None:
    callee = Callee()
    errands: list[Callable[[], None]] = []
    callee.link.errand = errands.append  # type: ignore[method-assign]
    result = Result(callee, NOBODY, "f")
    heard: list[int] = []
    result.when_done(lambda _: heard.append(1))
    result.deliver(0, 0.0, pack(Kind.REPLY, 1, 1, 0, 1, pickle.dumps(5)))
    result.when_done(lambda _: heard.append(2))
    for each in errands:
        each()
    result.when_done(lambda _: heard.append(3))
    assert heard == [1, 2, 3]
