"""What a socket monitor of ZeroMQ says, read without `zmq.utils.monitor`.

That module imports asyncio: 30 ms more for each start, at both ends (measured).

Lives here: one message of a monitor (zmq_socket_monitor(3): event and value in one frame, endpoint in the next); one
spelling for each endpoint.
Elsewhere:  what follows from it (`link`, `gatekeeper`).
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address
from typing import Any

import zmq

_EVENT = struct.Struct("=Hi")


def plain(endpoint: str) -> str:
    """One spelling for each endpoint. What is no address and port of TCP stays as it is.

    ZeroMQ names a first connection as it was asked for, and a later one by the address that it found: where a socket
    takes IPv6 as well, tcp://10.0.0.1:80 comes back as tcp://[::ffff:10.0.0.1]:80, and IPv6 addresses in short.
    """
    scheme, found, rest = endpoint.partition("://")
    host, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not found or not colon:
        return endpoint
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return endpoint
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return f"tcp://[{address.compressed}]:{port}"
        address = address.ipv4_mapped
    return f"tcp://{address}:{port}"


def read(monitor: zmq.Socket[Any]) -> tuple[int, str] | None:
    """The next event and the endpoint that it is about, as `plain` spells it; None if there is none now."""
    news = _next(monitor)
    return None if news is None else (news[0], plain(news[2].decode(errors="replace")))


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
