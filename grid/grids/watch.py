"""The watch of a grid: a thread that sleeps until a connection comes or goes, the clock strikes, or somebody asks.

Lives here: the thread, the question socket (`grid status`, `grid dump`, `grid stop`).
Elsewhere:  what follows from the news (`grid.py`), the register of running grids and asking them (`register.py`),
            grids in jobs (`batch/inside.py`).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import zmq

from grid.batch.inside import write_down
from grid.grids import register
from grid.grids.register import REGISTRATION, grids_dir
from grid.kernel import held
from grid.kernel.lease import start_ticks
from grid.limits import Limits
from grid.services.stack import Stack
from grid.wire.link import Link

logger = logging.getLogger(__name__)


class Watched(Protocol):
    """The grid, as far as its watch knows it."""

    grid_id: str
    label: str

    def status(self) -> dict[str, Any]: ...

    def detach(self) -> None: ...

    def stacks(self) -> Sequence[Stack]: ...


class Profiling(Protocol):
    """The part of a grid that makes profiles: it answers at once."""

    def begin(self, service_id: str, seconds: float) -> dict[str, Any]: ...

    def outcome(self, number: int) -> dict[str, Any]: ...


class Watch(threading.Thread):
    """See the module. Owns the monitor and the question socket."""

    def __init__(
        self, grid: Watched, link: Link, limits: Limits, look: Callable[[], None], profiles: Profiling
    ) -> None:
        super().__init__(name="grid-watch", daemon=True)
        self._profiles = profiles
        self._grid, self._link, self._limits, self._look = grid, link, limits, look
        self._base = grids_dir() / grid.grid_id
        register.sweep()
        self._zmq: zmq.Context[Any] = zmq.Context()
        self._questions = self._zmq.socket(zmq.REP)
        self._questions.linger = 0
        self._questions.bind(f"ipc://{self._base}.sock")
        record = {
            "id": grid.grid_id,
            "name": grid.label,
            "pid": os.getpid(),
            "started": start_ticks(os.getpid()),
            "began": time.time(),
            "namespace": held.namespace(),
        }
        self._lock = held.hold(Path(f"{self._base}.json"))  # for as long as this process lives
        Path(f"{self._base}.json").write_text(json.dumps(record))
        self._written: Path | None = None  # in a job: what the log-in host reads
        self._bell = self._zmq.socket(zmq.PAIR)
        self._bell.bind(f"inproc://bell-{id(self)}")
        self._rope = self._zmq.socket(zmq.PAIR)
        self._rope.connect(f"inproc://bell-{id(self)}")

    def run(self) -> None:
        self._written = write_down(self._grid.grid_id, self._grid.label)
        poller = zmq.Poller()
        for socket in (self._questions, self._bell, self._link.monitor):
            poller.register(socket, zmq.POLLIN)
        beat = min(1.0, self._limits.heartbeat_s / 4)
        kept = struck = time.monotonic()
        while True:
            ready = dict(poller.poll(max(0, int((struck + beat - time.monotonic()) * 1000))))
            if self._bell in ready:
                return
            try:
                if self._link.monitor in ready:
                    self._link.read_monitor()
                if self._questions in ready:
                    self._answer()
                now = time.monotonic()
                if now - struck >= beat:
                    struck = now
                    self._look()
                if now - kept >= self._limits.heartbeat_s:
                    kept = now
                    self._link.housekeep()
            except Exception:
                logger.exception("the watch stumbled, and goes on")

    def _answer(self) -> None:
        try:
            words = json.loads(self._questions.recv())
            question = words["ask"]
        except (ValueError, KeyError, TypeError):
            words, question = {}, None
        if question == "status":
            answer: dict[str, Any] = self._grid.status()
        elif question == "stacks":
            answer = {"stacks": [stack.as_dict() for stack in self._grid.stacks()]}
        elif question == "profile":
            answer = self._profiles.begin(str(words.get("service")), float(words.get("seconds", 0.0)))
        elif question == "profiled":
            answer = self._profiles.outcome(words.get("number"))
        elif question == "stop":
            answer = {"stopping": self._grid.label}
            threading.Timer(0.05, interrupt).start()  # after the answer
        elif question == "detach":
            answer = {"detaching": self._grid.label}
            threading.Timer(0.05, self._grid.detach).start()
        else:
            answer = {"error": "ask for status, stacks, profile or stop"}
        self._questions.send(json.dumps(answer).encode())

    def stop(self) -> None:
        """End the thread and take the grid off the register."""
        if self.is_alive():
            self._rope.send(b"")
            self.join(5.0)
        for socket in (self._questions, self._bell, self._rope):
            socket.close(0)
        self._zmq.term()
        if self._written is not None:
            self._written.unlink(missing_ok=True)
        for suffix in REGISTRATION[:2]:
            Path(f"{self._base}{suffix}").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def interrupt() -> None:
    """Stop this process as Ctrl-C would, so that the script's `with` and `finally` run.

    A script that a shell put into the background (`python fit.py &` in a script of its own) ignores SIGINT; its main
    thread gets the exception by another way, at the next moment that it runs Python.
    """
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        main = ctypes.c_ulong(threading.main_thread().ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(main, ctypes.py_object(KeyboardInterrupt))
    else:
        os.kill(os.getpid(), signal.SIGINT)
