"""Steps that must be whole: done in another thread, ended even where an exception of a signal leaves them alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from grid.grids import undisturbed as module
from grid.grids.undisturbed import undisturbed

pytestmark = pytest.mark.row("U02")


class Struck(Exception):
    pass


@pytest.fixture
def strike() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGUSR2, handler)
    yield
    signal.signal(signal.SIGUSR2, before)


def test_a_value_and_an_error_come_back() -> None:
    assert undisturbed("t", lambda: 5) == 5 and undisturbed("t", lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        undisturbed("t", lambda: 1 / 0)


def test_the_main_thread_has_it_done_and_others_do_it_themselves() -> None:
    assert undisturbed("named", threading.current_thread).name == "named"
    found: list[bool] = []
    thread = threading.Thread(
        target=lambda: found.append(undisturbed("t", threading.current_thread) is threading.current_thread())
    )
    thread.start()
    thread.join()
    assert found == [True]


def test_an_exception_is_raised_at_once_and_the_body_ends_before_it_is_taken_back(strike: None) -> None:
    left, done = threading.Event(), threading.Event()
    steps: list[str] = []

    def body() -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert left.wait(20)
        steps.append("body")

    def torn() -> None:
        steps.append("torn")
        done.set()

    with pytest.raises(Struck):
        undisturbed("t", body, torn)
    assert steps == []
    left.set()
    assert done.wait(20) and steps == ["body", "torn"]


def test_a_body_that_was_just_through_is_taken_back_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def start(name: str, run: object) -> None:
        run()  # type: ignore[operator]
        if not done.is_set():
            raise Struck  # between the body's end and our wait

    monkeypatch.setattr(module, "_start", start)
    with pytest.raises(Struck):
        undisturbed("t", lambda: 5, done.set)
    assert done.is_set()


def test_where_no_thread_can_be_started_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert undisturbed("t", lambda: threading.current_thread() is threading.main_thread())
