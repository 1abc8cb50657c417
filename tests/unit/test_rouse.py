"""A main thread that waits hears signals at once, and a storm of them makes one message."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from grid.kernel.rouse import Rouser

pytestmark = pytest.mark.row("U03", "U14")


class Waker:
    def __init__(self) -> None:
        self.woken, self.closed = threading.Semaphore(0), threading.Event()
        self.count = 0

    def wake(self) -> None:
        self.count += 1
        self.woken.release()

    def close(self) -> None:
        self.closed.set()


def end(rouser: Rouser, waker: Waker) -> None:
    rouser.end()
    assert waker.closed.wait(20)
    for each in (rouser._reader, rouser._writer):  # it leaves them to the end of its process
        os.close(each)


@pytest.fixture
def waker() -> Iterator[Waker]:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    yield Waker()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR2, before)


def test_a_signal_wakes_and_the_next_one_after_it_was_heard(waker: Waker) -> None:
    rouser = Rouser(waker)  # type: ignore[arg-type]
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR2)
        assert waker.woken.acquire(timeout=20)
        os.kill(os.getpid(), signal.SIGUSR2)  # of a storm nobody has heard yet
        rouser.heard()
    end(rouser, waker)


def test_unheard_signals_make_one_message(waker: Waker) -> None:
    rouser = Rouser(waker)  # type: ignore[arg-type]
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGUSR2)
    assert waker.woken.acquire(timeout=20)
    end(rouser, waker)
    assert waker.count == 1


def test_somebody_elses_wake_up_is_left_alone(waker: Waker) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    rouser = Rouser(waker)  # type: ignore[arg-type]
    assert signal.set_wakeup_fd(writer) == writer
    rouser.listen()
    assert signal.set_wakeup_fd(-1) == writer
    rouser.listen()  # it was given back: now it is ours
    assert signal.set_wakeup_fd(-1) not in (-1, writer)
    end(rouser, waker)
    os.close(reader)
    os.close(writer)
