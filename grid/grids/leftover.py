"""Calls whose results nobody needs any more: taken back if they have not begun, told to stop if they run.

The instance that runs them must heed orders (`grid/kernel/stop.py`). A second service, published when it is first
needed, carries the orders to the hosts. Where that fails the call runs to its end, and its result is ignored all the
same; or, where a time is given, its server is ended by force then, and replaced as far as its service is.

Lives here: `UnderWay`, `LeftOver`, with a thread of its own while there is something to stop: asking hosts takes round
            trips.
Elsewhere:  who needs what no more (`grid/tasks/master.py`, `grid/jobs/manager/desk.py`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grid.errors import GridError
from grid.kernel.stop import Stopper

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid

logger = logging.getLogger(__name__)

_ANSWER_S = 30.0
_GRACE_S = 0.2
"""Short calls end by themselves in this time, and a master that ends takes its workers along anyway."""


@dataclass(frozen=True)
class UnderWay:
    """A call that may have to be stopped."""

    server: str
    place: Any
    """Result of `heed` on that server; None: it heeds no orders."""
    ticket: int
    result: Any
    end: Callable[[], object] | None = None
    """Ends its server by force."""


class LeftOver:
    """See the module. Thread-safe."""

    def __init__(self, g: AbstractGrid) -> None:
        self._grid = g
        self._orders: queue.SimpleQueue[tuple[Sequence[UnderWay], float | None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._service_id = ""
        self._closing = threading.Event()

    def stop(self, calls: Sequence[UnderWay], force_s: float | None = None) -> None:
        """Stop them, some time soon. Returns at once.

        Args:
            force_s: Seconds after which the servers of those that run on are ended by force; None: never.
        """
        calls = [call for call in calls if not call.result.done()]
        if not calls or self._closing.is_set():
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="grid-left-over", daemon=True)
                self._thread.start()
        self._orders.put((calls, None if force_s is None else time.monotonic() + force_s))

    def close(self, timeout: float) -> None:
        """End the thread and the service."""
        self._closing.set()
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join(timeout)
        if self._service_id:
            try:
                self._grid.terminate(self._service_id)
            except GridError:
                pass

    def _work(self) -> None:
        late: list[tuple[float, UnderWay]] = []  # deadline, call
        while True:
            now = time.monotonic()
            for _, call in [entry for entry in late if entry[0] <= now]:
                self._force(call)
            late = [entry for entry in late if entry[0] > now and not entry[1].result.done()]
            try:
                order = self._orders.get(timeout=max(0.0, min(end for end, _ in late) - now) if late else None)
            except queue.Empty:
                continue
            if order is None:
                return
            calls, deadline = order
            if deadline is not None:
                late += [(deadline, call) for call in calls if call.end is not None]
            if deadline is not None and deadline <= time.monotonic():
                continue  # by force at once
            if self._closing.wait(_GRACE_S):
                return
            try:
                self._stop(calls)
            except Exception as exc:
                logger.info("left-over calls run on: %s", exc)

    def _force(self, call: UnderWay) -> None:
        if call.end is None or call.result.done():
            return
        logger.info("%s did not stop its call in time, and is ended", call.server)
        try:
            call.end()
        except Exception as exc:
            logger.info("%s could not be ended: %s", call.server, exc)

    def _stop(self, calls: Sequence[UnderWay]) -> None:
        running = [call for call in calls if not call.result.cancel() and not call.result.done()]
        heeding = [
            (call, call.place) for call in running if call.place is not None and call.place.exception(_ANSWER_S) is None
        ]
        if not heeding:
            return
        if not self._service_id:
            self._service_id = self._grid.publish(Stopper())
        orders = [(call.server, *place.result(_ANSWER_S), call.ticket) for call, place in heeding]
        for result in self._grid.broadcast(self._service_id, "stop", orders):
            result.exception(_ANSWER_S)
        self._grid.release_all(self._service_id)
