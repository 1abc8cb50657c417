"""What a socket monitor of ZeroMQ says, read without `zmq.utils.monitor`.

That module imports asyncio: 30 ms more for each start, at both ends (measured).

Lives here: one message of a monitor (zmq_socket_monitor(3): event and value in one frame, endpoint in the next).
Elsewhere:  what follows from it (`link`, `gatekeeper`).
"""

from __future__ import annotations

import struct
from typing import Any

import zmq

_EVENT = struct.Struct("=Hi")


def read(monitor: zmq.Socket[Any]) -> tuple[int, str] | None:
    """The next event and the endpoint that it is about; None if there is none now."""
    news = _next(monitor)
    return None if news is None else (news[0], news[2].decode(errors="replace"))


def read_value(monitor: zmq.Socket[Any]) -> tuple[int, int] | None:
    """The next event and its value: for most the descriptor of the connection; None if there is none now."""
    news = _next(monitor)
    return None if news is None else news[:2]


def _next(monitor: zmq.Socket[Any]) -> tuple[int, int, bytes] | None:
    try:
        head, endpoint = monitor.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None
    event, value = _EVENT.unpack(head)
    return event, value, endpoint
