"""Readers of a job server's streams for tests and benchmarks: many in one thread, following the list as clients must.

Lives here: `Reader`, requests by hand.
Elsewhere:  clients for users (`grid/web/client.py`).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any


class Reader:
    """Follows `/api/v1/events`: keeps the list, and checks that no change is missing or comes twice.

    Args:
        restless: Now and then it hangs up, and comes back with the last id.
        lazy: Now and then it takes nothing for a while.
    """

    def __init__(
        self, port: int, token: str = "", *, restless: bool = False, lazy: bool = False, seed: int = 0
    ) -> None:
        self.port, self.token, self.restless, self.lazy = port, token, restless, lazy
        self.jobs: dict[str, dict[str, Any]] = {}
        self.number = -1
        self.seen = ""
        self.headers = self.changes = self.connections = 0
        self.wrong: list[str] = []
        self.times: list[tuple[str, float]] = []
        self.ready = asyncio.Event()
        self._random = random.Random(seed)

    async def follow(self, until: asyncio.Event) -> None:
        """Until told to end."""
        while not until.is_set():
            try:
                await self._once(until)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)

    async def _once(self, until: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        self.connections += 1
        chunk: asyncio.Future[bytes] | None = None
        try:
            lines = [f"GET /api/v1/events HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"]
            if self.token:
                lines.append(f"authorization: Bearer {self.token}\r\n")
            if self.seen:
                lines.append(f"last-event-id: {self.seen}\r\n")
            writer.write("".join([*lines, "\r\n"]).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head[:20]:
                raise OSError(head[:100])
            leaves = self._random.uniform(0.05, 0.6) + time.monotonic() if self.restless else float("inf")
            buffer = b""
            while not until.is_set() and time.monotonic() < leaves:
                chunk = chunk or asyncio.ensure_future(self._chunk(reader))
                done, _ = await asyncio.wait([chunk], timeout=0.3)
                if not done:
                    continue
                buffer += chunk.result()
                chunk = None
                *events, buffer = buffer.split(b"\n\n")
                for event in events:
                    self._take(event)
                if self.lazy and self._random.random() < 0.05:
                    await asyncio.sleep(self._random.uniform(0.1, 0.4))
        finally:
            if chunk is not None:
                chunk.cancel()
            writer.close()

    async def _chunk(self, reader: asyncio.StreamReader) -> bytes:
        size = int(await reader.readuntil(b"\r\n"), 16)
        data = await reader.readexactly(size + 2)
        if not size:
            raise OSError("the stream ended")
        return data[:-2]

    def _take(self, event: bytes) -> None:
        if event.startswith(b":"):
            return
        first, _, rest = event.partition(b"\n")
        message = json.loads(rest[6:])
        number, seen = message["number"], first[4:].decode()
        if message["kind"] == "Jobs":
            if number < self.number:
                self.wrong.append(f"a header of {number} after {self.number}")
            self.jobs = {job["id"]: job for job in message["jobs"]}
            self.headers += 1
        else:
            if number != self.number + 1:
                self.wrong.append(f"change {number} after {self.number}")
            job = message["summary"]
            if message["change"] == "removed":
                self.jobs.pop(job["id"], None)
            else:
                self.jobs[job["id"]] = job
            self.times.append((job["id"], time.time()))
            self.changes += 1
        self.number, self.seen = number, seen
        self.ready.set()


async def load(port: int, token: str, path: str, connections: int, each: int) -> float:
    """Requests per second."""
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(each):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head[:20], head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return connections * each / (time.perf_counter() - began)
