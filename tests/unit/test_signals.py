"""Whether an exception came from a handler of a signal."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grid.wire.signals import came_by_signal

pytestmark = pytest.mark.row("U02")


class Struck(Exception):
    pass


def strike(*_: object) -> None:
    raise Struck


class Handler:
    def __call__(self, *_: object) -> None:
        raise Struck

    def method(self, *_: object) -> None:
        self()


HANDLERS: list[Callable[..., Any]] = [
    strike, lambda *_: strike(), Handler(), Handler().method, functools.partial(strike, 1),
    functools.partial(functools.partial(Handler().method, 1), 2),
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


def caught(do: Callable[[], Any]) -> BaseException:
    try:
        do()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("handler", HANDLERS)
def test_of_a_handler_whatever_it_is(handler: Callable[..., Any]) -> None:
    signal.signal(signal.SIGUSR2, handler)
    exc = caught(lambda: os.kill(os.getpid(), signal.SIGUSR2) or range(3).index(2))
    assert isinstance(exc, Struck) and came_by_signal(exc)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    assert not came_by_signal(exc)  # nobody's handler any more


def test_the_same_error_of_other_code_is_none() -> None:
    signal.signal(signal.SIGUSR2, strike)
    assert not came_by_signal(caught(lambda: 1 / 0)) and not came_by_signal(Struck())


def test_ctrl_c_is_one_and_another_thread_hears_none() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    exc = caught(lambda: os.kill(os.getpid(), signal.SIGINT) or range(3).index(2))
    assert isinstance(exc, KeyboardInterrupt)
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGUSR2, strike)
    struck = caught(lambda: os.kill(os.getpid(), signal.SIGUSR2) or range(3).index(2))
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(came_by_signal(struck)))
    thread.start()
    thread.join()
    assert found == [False] and came_by_signal(struck)
