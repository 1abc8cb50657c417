"""Connections: how long the head of a request may take, and an end for readers that take nothing.

uvicorn limits none of these: a client could hold connections that send nothing, or heads without end.

Lives here: `protocol`.
Elsewhere:  how many, and whose (`arrivals.py`, `door.py`), limits of requests (`guard.py`) and streams
            (`streaming.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from grid.web.arrivals import Arrival, Newcomers
from grid.web.limits import WebLimits


def protocol(limits: WebLimits) -> Any:
    """The class of connections of one server; made with an `Arrival` and the `Newcomers` that it is one of."""
    base: Any
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base
    except ImportError:  # it is not installed: slower, and as good
        from uvicorn.protocols.http.h11_impl import H11Protocol as base

    class HttpConnection(base):  # type: ignore[misc]  # httptools' or h11's, as they are installed
        _grid_timer: asyncio.TimerHandle | None = None
        _grid_head = 0

        def __init__(self, arrival: Arrival, arrivals: Newcomers, **options: Any) -> None:
            super().__init__(**options)
            self._grid_arrival, self._grid_arrivals = arrival, arrivals

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._grid_wait_for_head()
            app: Any = self.app  # type: ignore[has-type]
            arrival, arrivals = self._grid_arrival, self._grid_arrivals
            arrival.transport = transport

            async def with_abort(scope: Any, receive: Any, send: Any) -> None:
                if self._grid_timer is not None:
                    self._grid_timer.cancel()
                scope["grid.abort"] = transport.abort
                scope["grid.proved"] = lambda user: arrivals.proved(arrival, user)
                arrivals.door.works(arrival)
                try:
                    await app(scope, receive, send)
                finally:
                    arrivals.door.rests(arrival)

            self.app = with_abort

        def connection_lost(self, exc: Exception | None) -> None:
            if self._grid_timer is not None:
                self._grid_timer.cancel()
            self._grid_arrivals.left(self._grid_arrival)
            super().connection_lost(exc)

        def _grid_wait_for_head(self) -> None:
            if self._grid_timer is not None:
                self._grid_timer.cancel()
            self._grid_timer = asyncio.get_running_loop().call_later(limits.header_s, self.transport.abort)

        # httptools' call-backs; h11 has a limit of its own for heads

        def on_message_begin(self) -> None:
            self._grid_head = 0
            self._grid_wait_for_head()
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._grid_count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._grid_count(len(name) + len(value) + 4)
            super().on_header(name, value)

        def _grid_count(self, size: int) -> None:
            self._grid_head += size
            if self._grid_head > limits.head:
                self.transport.abort()

        def on_headers_complete(self) -> None:
            if self._grid_timer is not None:
                self._grid_timer.cancel()
            super().on_headers_complete()

    return HttpConnection
