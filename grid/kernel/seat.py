"""A server that lives in somebody else's process: the place of an instance on a worker of Dask.

Its owner calls `call` from an event loop, in any order; calls run by their numbers, one at a time, in a thread that the
instance has to itself. Loading, performing and replies are those of `serve`.

Lives here: turns, the thread. Elsewhere: what a call is (`serve`), who calls (`grids/dask.py`).
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grid._version import __version__
from grid.kernel import serve
from grid.kernel.yielding import Generators
from grid.wire import codec, mainimage
from grid.wire.frames import CANCELLED, ERROR, IMAGE, Kind, pack, unpack


def report() -> dict[str, Any]:
    """Facts about this process: for the client, before it puts anything here."""
    return {
        "grid": __version__,
        "python": sys.version_info[:2],
        "host": platform.node(),
        "pid": os.getpid(),
    }


class Seat(serve.Server):
    """See the module."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"grid-{name}")
        self._turn = 1
        self._early: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}
        self._current = 0
        self._withdrawn: set[int] = set()
        self._generators = Generators()
        self._claim = threading.Lock()

    async def call(self, turn: int, data: bytes) -> bytes:
        """Run a call when its turn comes; the frame of its reply. Turn 1 brings the instance."""
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._early[turn] = (data, done)
        while self._turn in self._early:
            now, (frame, waiting) = self._turn, self._early.pop(self._turn)
            self._turn += 1
            self._hand_over(now, frame, waiting)
        return await done

    def _hand_over(self, turn: int, frame: bytes, done: asyncio.Future[bytes]) -> None:
        loop = asyncio.get_running_loop()

        def tell(reply: bytes) -> None:
            if not done.done():
                done.set_result(reply)

        def work() -> None:
            loop.call_soon_threadsafe(tell, self._answer(turn, frame))

        self._thread.submit(work)

    async def withdraw_call(self, turn: int) -> bool:
        """Whether a call will not run: it had not begun."""
        return self.withdraw(turn)

    async def end(self) -> None:
        """No more calls will come; the running one is finished."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _answer(self, turn: int, data: bytes) -> bytes:
        with self._claim:
            self._current = turn
            withdrawn = turn in self._withdrawn
            self._withdrawn.discard(turn)
        if withdrawn:
            return pack(Kind.REPLY, 0, 0, 0, turn, flags=CANCELLED)
        began = time.perf_counter()
        try:
            frame = unpack(bytearray(data))
            buffers = frame.buffers
            if frame.flags & IMAGE:
                mainimage.arrive(buffers[0])
                buffers = buffers[1:]
            value: Any
            if turn == 1:
                self.instance = codec.loads(frame.pickle, buffers)
                value = None
            else:
                method, args, kwargs = codec.loads(frame.pickle, buffers)
                began = time.perf_counter()
                if method[0] != "@":
                    value = getattr(self.instance, method)(*args, **kwargs)
                else:
                    value = self._own(method, args, kwargs)
        except BaseException as exc:
            return self._error(turn, exc, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        try:
            dumped = self._dumped(value, method) if turn > 1 else codec.dumps(None)
        except Exception as exc:
            return self._error(turn, exc, seconds)
        return pack(Kind.REPLY, 0, 0, 0, turn, dumped.data, dumped.buffers, 0, seconds)

    def _error(self, turn: int, exc: BaseException, seconds: float) -> bytes:
        return pack(Kind.REPLY, 0, 0, 0, turn, codec.dumps_whole(serve.told(exc)), (), ERROR, seconds)
