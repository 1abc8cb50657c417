"""Single calls of executors and joblib: futures of the standard kind, made by a thread that comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from grid.compat import work
from grid.compat.work import PooledCalls
from grid.errors import CallTimeout, ServerLost
from tests.grounds import Ground, Seat, service_of


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def calls_on(*names: str, **how: Any) -> tuple[PooledCalls, list[Seat]]:
    service, seats = service_of(*names)
    return PooledCalls(service, **how), seats


@pytest.mark.row("G45")
def test_calls_are_made_first_come_first_served_and_the_thread_ends_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_LINGER_S", 0.0)
    calls, (one,) = calls_on("s/0")
    futures = [calls.make("f", (number,), {}) for number in range(3)]
    for number in range(3):
        due = one.next_call()
        assert due.args == (number,)
        due.end(number * 10)
    assert [future.result(20) for future in futures] == [0, 10, 20]
    assert calls.join(20) and not calls.left()
    calls.service.ground._check_usable()
    until(lambda: calls._handing is None or calls.is_done(False))
    again = calls.make("f", (7,), {})  # another thread makes it
    until(one.running)
    one.made[-1].end(70)
    assert again.result(20) == 70
    calls.close()


@pytest.mark.row("E02")
def test_a_call_whose_server_died_is_made_again_and_then_told_with_its_arguments() -> None:
    calls, (one, two) = calls_on("s/0", "s/1", retries=1)
    future = calls.make("f", (5,), {})
    until(lambda: one.running() or two.running())
    first, second = (one, two) if one.running() else (two, one)
    first.die()
    until(second.running)
    second.die()
    with pytest.raises(ServerLost, match=r"the call f\(5,?\) was there, in attempt 2"):
        future.result(20)
    calls.close()


@pytest.mark.row("E08")
def test_what_waits_can_be_withdrawn_and_what_runs_be_ended() -> None:
    calls, (one,) = calls_on("s/0")
    ground = calls.service.ground
    assert isinstance(ground, Ground)
    futures = [calls.make("f", (number,), {}) for number in range(3)]
    until(one.running)
    assert not futures[0].cancel() and futures[0].running()
    with pytest.raises(CallTimeout, match=r"the call of 'f' is not done after 0.01 s: it runs; 2 calls wait"):
        futures[0].result(0.01)
    assert calls.left() == ["f", "f", "f"]
    calls.end_running()
    for future in futures[1:]:
        with pytest.raises(CancelledError):
            future.result(20)
    until(lambda: ground.ended == [one])
    one.die()
    with pytest.raises(ServerLost):
        futures[0].result(20)
    assert calls.join(20)


@pytest.mark.row("G45")
def test_an_error_of_one_call_is_its_own_affair() -> None:
    calls, (one,) = calls_on("s/0")
    futures = [calls.make("f", (number,), {}) for number in range(2)]
    one.next_call().end(error=SystemExit(3))
    one.next_call().end("fine")
    assert isinstance(futures[0].exception(20), SystemExit) and futures[1].result(20) == "fine"
    done = threading.Event()
    futures[1].add_done_callback(lambda _: done.set())
    assert done.is_set()
    calls.close()
