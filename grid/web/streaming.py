"""An open stream, as an answer that does not end: events as they come, a sign of life when none does.

A reader that takes nothing for `stall_s` is dropped, by closing its connection at once: what waits for it in buffers
must not be kept for it. Its token is looked at again with each sign of life.

Lives here: `EventStream` (ASGI).
Elsewhere:  what it sends (`events.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.responses import Response

from grid.jobs.host.errors import JobError, UnknownJob
from grid.web.caller import Caller
from grid.web.events import Hub, Hubs
from grid.web.guard import Receive, Scope, Send

logger = logging.getLogger(__name__)

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
PIECE = 1 << 16


class EventStream(Response):
    """See the module. `holds` tells whether the caller may go on listening."""

    def __init__(self, hubs: Hubs, hub: Hub, caller: Caller, after: str | None, holds: Callable[[], bool]) -> None:
        super().__init__()
        self._hubs, self._hub, self._caller, self._after, self._holds = hubs, hub, caller, after, holds
        self._limits = hubs.limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user, reader = self._caller.who.user, asyncio.Event()
        self._hubs.enter(user)
        self._hubs.came(self._hub, reader)
        watching = asyncio.ensure_future(self._watch(receive, reader))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await self._serve(send, reader, watching)
            if not watching.done():
                await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), self._limits.stall_s)
        except asyncio.TimeoutError:
            logger.info("a reader of %s by %s takes nothing and is dropped", self._hub.key, user)
            abort = scope.get("grid.abort")
            if abort is not None:
                abort()
        finally:
            watching.cancel()
            self._hubs.went(self._hub, reader)
            self._hubs.leave(user)

    async def _watch(self, receive: Receive, reader: asyncio.Event) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        reader.set()

    async def _serve(self, send: Send, reader: asyncio.Event, watching: asyncio.Future[None]) -> None:
        """Until the reader goes, the stream ends, or the token does."""
        hub = self._hub
        place = hub.position(self._after)
        if place is not None:
            await self._send(send, b": goes on\n\n")
        looked = hub.loop.time()
        while not watching.done():
            reader.clear()
            if hub.loop.time() - looked > self._limits.alive_s:  # a stream that is never silent is looked at, too
                if not self._holds():
                    return
                looked = hub.loop.time()
            over = hub.is_over  # first: what came before the end is then among the entries
            entries = hub.since(place) if place is not None else None
            if place is None or entries is None:
                try:
                    place, header = await hub.loop.run_in_executor(None, hub.header, self._caller)
                except (UnknownJob, JobError):
                    return  # deleted meanwhile
                await self._send(send, header or b": listening\n\n")
            elif entries:
                place = entries[-1].number
                await self._send(send, hub.frames(self._caller, entries))
            elif over:
                return
            else:
                try:
                    await asyncio.wait_for(reader.wait(), self._limits.alive_s)
                except asyncio.TimeoutError:
                    if not self._holds():
                        return
                    await self._send(send, b": alive\n\n")

    async def _send(self, send: Send, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            part = {"type": "http.response.body", "body": data[start : start + PIECE], "more_body": True}
            await asyncio.wait_for(send(part), self._limits.stall_s)
