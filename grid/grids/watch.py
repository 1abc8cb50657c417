"""The watch of a grid: a thread that sleeps until a connection comes or goes, the clock strikes, or somebody asks.

Lives here: the thread, the question socket (`grid status`, `grid stop`), its registration in the runtime directory.
Elsewhere:  what follows from the news (`grid.py`), asking (`ask`, used by `cli/`).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from grid.kernel import held, remains
from grid.kernel.lease import start_ticks
from grid.limits import Limits
from grid.wire.link import Link
from grid.wire.places import private_dir, runtime_dir

if TYPE_CHECKING:
    from grid.grids.grid import Grid

REGISTRATION = (".json", ".sock", ".logs")
"""What a running grid has in `grids_dir`: its record, its question socket, its servers' logs."""

logger = logging.getLogger(__name__)


def grids_dir() -> Path:
    """Where the running grids of this user on this machine are registered: `<id>.json` and `<id>.sock` each."""
    return private_dir(runtime_dir() / "grids")


class Watch(threading.Thread):
    """See the module. Owns the monitor and the question socket."""

    def __init__(self, grid: Grid, link: Link, limits: Limits) -> None:
        super().__init__(name="grid-watch", daemon=True)
        self._grid, self._link, self._limits = grid, link, limits
        self._base = grids_dir() / grid.grid_id
        _sweep()
        grid._output.in_directory(grid.grid_id)
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
        self._bell = self._zmq.socket(zmq.PAIR)
        self._bell.bind(f"inproc://bell-{id(self)}")
        self._rope = self._zmq.socket(zmq.PAIR)
        self._rope.connect(f"inproc://bell-{id(self)}")

    def run(self) -> None:
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
                    self._grid.look_at_clock()
                if now - kept >= self._limits.heartbeat_s:
                    kept = now
                    self._link.housekeep()
            except Exception:
                logger.exception("the watch stumbled, and goes on")

    def _answer(self) -> None:
        try:
            question = json.loads(self._questions.recv())["ask"]
        except (ValueError, KeyError, TypeError):
            question = None
        if question == "status":
            answer: dict[str, Any] = self._grid.status()
        elif question == "stop":
            answer = {"stopping": self._grid.label}
            threading.Timer(0.05, interrupt).start()  # after the answer
        else:
            answer = {"error": "ask for status or stop"}
        self._questions.send(json.dumps(answer).encode())

    def stop(self) -> None:
        """End the thread and take the grid off the register."""
        if self.is_alive():
            self._rope.send(b"")
            self.join(5.0)
        for socket in (self._questions, self._bell, self._rope):
            socket.close(0)
        self._zmq.term()
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


def running_grids() -> list[dict[str, Any]]:
    """The registered grids of this user on this machine, each with `alive` and the path of its socket."""
    found = []
    for path in sorted(grids_dir().glob("*.json")):
        try:
            record = json.loads(path.read_text())
            record["alive"] = remains.is_alive(record, path)
        except (OSError, ValueError, KeyError):
            continue
        record["socket"] = str(path.with_suffix(".sock"))
        found.append(record)
    return found


def _sweep() -> None:
    """Remove what grids of killed processes left on this machine; those with an agent here were cleared by it."""
    for record in running_grids():
        if not record["alive"]:
            base = record["socket"].removesuffix(".sock")
            for end in (".json", ".sock"):
                Path(base + end).unlink(missing_ok=True)
            shutil.rmtree(base + ".logs", ignore_errors=True)
    for left, _ in remains.registrations(grids_dir())[1]:  # of one that was killed while it took itself off
        path = Path(left)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    for path in runtime_dir().glob("fwd-*-*.sock"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and start_ticks(int(pid)) is None and not remains.answers(path):
            path.unlink(missing_ok=True)


def ask(record: dict[str, Any], question: str, timeout: float = 5.0) -> dict[str, Any]:
    """Ask a running grid something.

    Raises:
        TimeoutError: No answer.
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = int(timeout * 1000)
        socket.connect(f"ipc://{record['socket']}")
        try:
            socket.send(json.dumps({"ask": question}).encode())
            answer: dict[str, Any] = json.loads(socket.recv())
        except zmq.Again as exc:
            raise TimeoutError(f"grid {record['name']!r} (process {record['pid']}) gave no answer") from exc
    return answer
