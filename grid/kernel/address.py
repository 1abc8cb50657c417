"""Which of its own addresses a process should listen at, where nobody could tell it beforehand."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from grid.errors import ConnectError


def address_towards(peers: Iterable[str]) -> str:
    """The address of this machine from which it would reach the first of `peers` that it has a way to.

    What its own name resolves to is no answer: on many machines that is 127.0.0.1. Nothing is sent.

    Args:
        peers: Names or addresses, the likeliest first. Loopback ones count only if no other is left.
    Raises:
        ConnectError: There is no way to any of them.
    """
    asked = list(peers)
    loopback = None
    for peer in asked:
        try:
            found = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)
        except OSError:
            continue
        for family, _, _, _, target in found:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect(target)
                except OSError:
                    continue
                address: str = probe.getsockname()[0]
            if not address.startswith("127.") and address != "::1":
                return address
            loopback = loopback or address
    if loopback:
        return loopback
    raise ConnectError(
        f"it has no way to any of {', '.join(asked)}",
        host=os.uname().nodename,
        hint="Do the nodes share a network with the machine that the script runs on?",
    )
