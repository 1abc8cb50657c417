"""Packs that a system left over when it ended: taken back if they have not begun, told to stop if they run.

A busy server hears nothing but signals. So a second service, published when it is first needed, sends them on the hosts
(`runner.Stopper`). Where that fails the task runs to its end, and its result is ignored all the same.

Lives here: `LeftOver`, with a thread of its own while there is something to stop: asking hosts takes round trips.
Elsewhere:  counts of slaves, which are right once the pack is back (`schedule`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grid.errors import GridError
from grid.tasks.runner import Stopper
from grid.tasks.schedule import Pack

if TYPE_CHECKING:
    from grid.grids.abstract import AbstractGrid

logger = logging.getLogger(__name__)

_ANSWER_S = 30.0
_GRACE_S = 0.2
"""Short tasks end by themselves in this time, and a master that ends takes its workers along anyway."""


class LeftOver:
    """See the module. `stop` is called by one thread."""

    def __init__(self, g: AbstractGrid) -> None:
        self._grid = g
        self._orders: queue.SimpleQueue[Sequence[Pack] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._service_id = ""
        self._closing = threading.Event()

    def stop(self, packs: Sequence[Pack]) -> None:
        """Stop them, some time soon. Returns at once."""
        packs = [pack for pack in packs if pack.result is not None and not pack.result.done()]
        if not packs:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="grid-tasks-stop", daemon=True)
            self._thread.start()
        self._orders.put(packs)

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
        while (packs := self._orders.get()) is not None and not self._closing.wait(_GRACE_S):
            try:
                self._stop(packs)
            except Exception as exc:
                logger.info("left-over tasks run on: %s", exc)

    def _stop(self, packs: Sequence[Pack]) -> None:
        running = [pack for pack in packs if not pack.result.cancel() and not pack.result.done()]
        if not running:
            return
        if not self._service_id:
            self._service_id = self._grid.publish(Stopper())
        orders = [
            (pack.worker.name, *pack.worker.place.get(_ANSWER_S), pack.ticket)
            for pack in running
            if pack.worker.place is not None and pack.worker.place.exception(_ANSWER_S) is None
        ]
        for result in self._grid.broadcast(self._service_id, "stop", orders):
            result.exception(_ANSWER_S)
        self._grid.release_all(self._service_id)
