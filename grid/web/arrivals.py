"""Connections that come in: each has a place from the first byte of TCP on, before TLS and before a token.

asyncio's own server takes whatever comes: it has no places before the end of the handshake, and says so for each file
too many.

Lives here: `Newcomers`: accepting, handshakes, cutting; `Seldom`; `raise_files`.
Elsewhere:  who has a place (`door.py`), what is said on a connection (`connections.py`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable
from typing import Any

from grid.web.door import Door
from grid.web.limits import WebLimits

logger = logging.getLogger(__name__)

FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
AT_A_TIME = 32
"""Connections that are taken before others have a turn."""
TLS_BUFFER = 32 << 10
SPARE_FILES = 256
"""For the store, jobs, and what else the process has open."""


class Seldom:
    """A logger for what strangers cause: one line a second, which says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last, self._left_out = clock, float("-inf"), 0

    def warning(self, text: str, *arguments: Any) -> None:
        """Log it, unless something was logged just now."""
        now = self._clock()
        if now - self._last < 1.0:
            self._left_out += 1
            return
        more = f" ({self._left_out} such lines were left out)" if self._left_out else ""
        self._last, self._left_out = now, 0
        logger.warning(text + "%s", *arguments, more)


class Arrival:
    """One connection, from the accept on."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.connection, self.address = connection, address
        self.transport: Any = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cut(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()
        elif self.task is not None:
            self.task.cancel()


class Newcomers:
    """See the module. All of it in the event loop.

    Args:
        make: Gives the protocol of a connection.
    """

    def __init__(
        self,
        listening: socket.socket,
        limits: WebLimits,
        context: ssl.SSLContext | None,
        make: Callable[[Arrival], asyncio.Protocol],
    ) -> None:
        self._socket, self._limits, self._context, self._make = listening, limits, context, make
        self.door = Door(limits)
        self.seldom = Seldom()
        self._tasks: set[asyncio.Task[None]] = set()
        if context is not None and hasattr(sslproto.SSLProtocol, "max_size"):
            # each connection has a buffer of that size, filled with zeros, from its first byte on: asyncio's 256 kB
            # would be most of what a stranger can cost, and a smaller one reads as fast
            sslproto.SSLProtocol.max_size = TLS_BUFFER

    async def accept(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._socket.listen(self._limits.backlog)
        try:
            while True:
                try:
                    connection, where = await loop.sock_accept(self._socket)
                    self._take(Arrival(connection, str(where[0])))
                    for _ in range(AT_A_TIME):  # a crowd has not to wait for a turn of the loop each
                        connection, where = self._socket.accept()
                        connection.setblocking(False)
                        self._take(Arrival(connection, str(where[0])))
                except BlockingIOError:
                    continue
                except OSError as exc:
                    if exc.errno in FULL:
                        self.seldom.warning("connections can't be taken (%s); strangers are cut", exc.strerror)
                        self._cut(self.door.spare())
                        await asyncio.sleep(0.05)
                    elif self._socket.fileno() == -1:
                        return
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()
        arrival.timer = loop.call_later(self._limits.stranger_s, self._late, arrival)
        arrival.task = task = loop.create_task(self._greet(arrival))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._greeted(arrival, task))
        self._cut(self.door.came(arrival, arrival.address))

    async def _greet(self, arrival: Arrival) -> None:
        """Shake hands, and hand the connection over; while it says nothing it costs no more than a socket."""
        loop = asyncio.get_running_loop()
        patience = self._limits.header_s if self._context is not None else None
        try:
            await asyncio.wait_for(_readable(arrival.connection), self._limits.header_s)
            arrival.transport, _ = await loop.connect_accepted_socket(
                lambda: self._make(arrival), arrival.connection, ssl=self._context, ssl_handshake_timeout=patience
            )
        except (OSError, asyncio.TimeoutError, asyncio.CancelledError) as exc:  # ssl's errors are OSErrors
            if not isinstance(exc, asyncio.CancelledError):
                logger.debug("a handshake of %s ended: %s", arrival.address, exc)
        except Exception as exc:
            self.seldom.warning("a connection of %s failed (%s: %s)", arrival.address, type(exc).__name__, exc)

    def _greeted(self, arrival: Arrival, task: asyncio.Task[None]) -> None:
        """Also of one that was cut before it had its first turn."""
        self._tasks.discard(task)
        if arrival.transport is None:
            arrival.connection.close()
            self.left(arrival)

    def _late(self, arrival: Arrival) -> None:
        if self.door.is_stranger(arrival):
            self._cut(arrival)

    def _cut(self, arrival: Any) -> None:
        if arrival is not None:
            self.left(arrival)
            arrival.cut()

    def proved(self, arrival: Arrival, user: str) -> bool:
        """It has shown a valid token; whether there is a place for it."""
        has, victim = self.door.proved(arrival, user)
        self._cut(victim)
        return has

    def left(self, arrival: Arrival) -> None:
        """It has ended."""
        if arrival.timer is not None:
            arrival.timer.cancel()
            arrival.timer = None
        self.door.left(arrival)

    def unforeseen(self, _: Any, context: dict[str, Any]) -> None:
        """Takes asyncio's messages about connections; strangers cause most of them."""
        exc = context.get("exception")
        if exc is not None and not isinstance(exc, (OSError, ssl.SSLError)):
            logger.error("%s", context.get("message"), exc_info=exc)
        else:
            self.seldom.warning("%s (%s)", context.get("message"), exc)


async def _readable(connection: socket.socket) -> None:
    """Until there is something to read of it."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(connection.fileno(), lambda: None if future.done() else future.set_result(None))
    try:
        await future
    finally:
        loop.remove_reader(connection.fileno())


def raise_files(wanted: int) -> int:
    """Let this process have as many files open, as far as it may; how many it may then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
        except (ValueError, OSError) as exc:
            logger.warning("the limit of open files stays at %d (%s)", soft, exc)
    return wanted if soft == resource.RLIM_INFINITY else soft
