"""One thread with an inbox: order, failures, its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from grid.tasks.loop import Loop

LIMIT_S = 30.0

pytestmark = pytest.mark.row("K26")


class Heard:
    def __init__(self) -> None:
        self.loop = Loop("a-loop", self.failed)
        self.errors: list[BaseException] = []
        self.beats = threading.Semaphore(0)
        self.rounds = 0

    def failed(self, exc: BaseException) -> None:
        self.errors.append(exc)

    def beat(self) -> None:
        self.beats.release()

    def then(self) -> None:
        self.rounds += 1

    def wait(self) -> None:
        """Until all that was put before is done."""
        done = threading.Event()
        self.loop.do(done.set)
        assert done.wait(LIMIT_S)


@pytest.fixture
def heard() -> Iterator[Heard]:
    heard = Heard()
    yield heard
    heard.loop.stop(LIMIT_S)


def test_acts_are_done_in_order_by_one_thread_also_those_put_before_it_began(heard: Heard) -> None:
    found: list[tuple[int, bool]] = []
    for number in range(600):
        heard.loop.do(lambda number=number: found.append((number, heard.loop.is_current)))  # type: ignore[misc]
    assert not found and not heard.loop.is_current
    heard.loop.start(heard.beat, 3600.0, heard.then)
    heard.wait()
    assert found == [(number, True) for number in range(600)]
    assert heard.rounds >= 2, "also in a long row the rest is not forgotten"


def test_what_an_act_raises_is_told_and_the_next_is_done(heard: Heard) -> None:
    def leave() -> None:
        raise SystemExit(3)

    heard.loop.start(heard.beat, 3600.0, heard.then)
    heard.loop.do(lambda: 1 / 0)
    heard.loop.do(leave)
    heard.wait()
    assert [type(each) for each in heard.errors] == [ZeroDivisionError, SystemExit]


def test_it_beats_at_once_and_again_while_nothing_is_put(heard: Heard) -> None:
    heard.loop.start(heard.beat, 0.001, heard.then)
    for _ in range(3):
        assert heard.beats.acquire(timeout=LIMIT_S)


def test_it_ends_after_what_was_put_before_and_can_be_ended_from_within() -> None:
    heard, found = Heard(), []
    heard.loop.start(heard.beat, 3600.0, heard.then)
    heard.loop.do(lambda: found.append(1))
    heard.loop.do(lambda: heard.loop.stop(LIMIT_S))  # by itself: it doesn't wait for itself
    heard.loop.stop(LIMIT_S)
    assert found == [1] and heard.loop.is_stopping
    assert "a-loop" not in {thread.name for thread in threading.enumerate()}


def test_one_that_was_never_started_can_be_ended(heard: Heard) -> None:
    heard.loop.stop(0.1)
