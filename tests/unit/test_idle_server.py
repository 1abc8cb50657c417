"""An idle server sleeps: it wakes for messages, for signals, and to look for signals that others may have taken."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from grid.kernel import serve
from grid.kernel.rouse import Rouser


class Carrier:
    """Nothing arrives unless it is put there; `waited` has how long each wait may last, in milliseconds."""

    def __init__(self) -> None:
        self.patience_ms = serve._LOOK_MS
        self.waited: list[int] = []
        self.arrived: list[bytes] = []
        self.closed = threading.Event()

    def receive(self) -> bytes | None:
        self.waited.append(self.patience_ms)
        return self.arrived.pop(0) if self.arrived else None

    def wake(self) -> None: ...

    def close(self) -> None:
        self.closed.set()


class End:
    """Takes messages and knows of no call."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier, self.due = carrier, dict[int, Any]()

    def take(self, data: bytes) -> None:
        assert data


@pytest.mark.row("M26")
def test_an_idle_server_sleeps_long_unless_somebody_else_is_told_of_its_signals() -> None:
    before = signal.set_wakeup_fd(-1)
    carrier = Carrier()
    rouser = Rouser(carrier)  # type: ignore[arg-type]
    server: Any = serve.Server.__new__(serve.Server)
    server._end, server._rouser, server._calm = End(carrier), rouser, False
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    short, long = serve._LOOK_MS, serve._CALM_MS

    def steps(count: int) -> list[int]:
        carrier.waited.clear()
        for _ in range(count):
            server._step()
        return carrier.waited

    try:
        assert steps(3) == [short, long, long]
        carrier.arrived = [b"a call, which may do anything"]
        assert steps(3) == [long, short, long]
        signal.set_wakeup_fd(writer)  # as asyncio's `add_signal_handler` does in a call
        carrier.arrived = [b"it"]
        assert steps(4) == [long, short, short, short]
        signal.set_wakeup_fd(-1)  # given back, and nobody told us
        assert steps(3) == [short, long, long]
        carrier.arrived = [b""]  # a signal was heard, and its handler may have done so
        assert steps(3) == [long, short, long]
    finally:
        rouser.end()
        signal.set_wakeup_fd(before)
        assert carrier.closed.wait(20)
        for fd in (reader, writer, rouser._reader, rouser._writer):
            os.close(fd)
