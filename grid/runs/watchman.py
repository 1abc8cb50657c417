"""Watches one script that runs on without its shell: takes what it prints, and notes how it ended.

Each SIGTERM that it gets ends the script more firmly: as Ctrl-C would, so that its `with` blocks end their grids; by
SIGTERM; by SIGKILL.

Lives here: this process. Elsewhere: the files that it writes (`detached.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from grid.kernel import held
from grid.kernel.lease import start_ticks
from grid.runs.detached import PART_BYTES, PARTS

_FIRM = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_LAST_WORDS_S = 2.0
"""Processes that the script leaves behind may hold its output open for longer: nobody waits for those."""


class Parts:
    """The output of a run, in files of which the last are kept."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._number, self._size = directory, 0, PART_BYTES
        self._file: IO[bytes] | None = None

    def write(self, data: bytes) -> None:
        """Add it, cut where a part is full."""
        while data:
            if self._size >= PART_BYTES:
                self._begin()
            assert self._file is not None
            piece, data = data[: PART_BYTES - self._size], data[PART_BYTES - self._size :]
            self._file.write(piece)
            self._size += len(piece)

    def _begin(self) -> None:
        if self._file is not None:
            self._file.close()
        self._number, self._size = self._number + 1, 0
        self._file = (self._directory / f"output.{self._number:06}").open("wb", buffering=0)
        (self._directory / f"output.{self._number - PARTS:06}").unlink(missing_ok=True)


def watch(directory: Path, facts: dict[str, Any]) -> None:
    """Run the script to its end."""
    lock = held.hold(directory)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, *facts["words"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    firmness = iter(_FIRM)

    def end(*_: object) -> None:
        number = next(firmness, signal.SIGKILL)
        try:
            if number is signal.SIGKILL:
                os.killpg(child.pid, number)
            else:
                child.send_signal(number)
        except ProcessLookupError:
            pass

    signal.signal(signal.SIGTERM, end)
    me = {"pid": os.getpid(), "started": start_ticks(os.getpid()), "namespace": held.namespace(), "child": child.pid}
    _write(directory / "run.json", {**facts, **me, "began": time.time()})
    taker = threading.Thread(target=_take, args=(child.stdout, Parts(directory)), daemon=True)
    taker.start()
    status = child.wait()
    taker.join(_LAST_WORDS_S)
    _write(directory / "end.json", {"status": 128 - status if status < 0 else status, "ended": time.time()})
    if lock is not None:
        os.close(lock)
    os._exit(0)  # the thread may wait for those that hold the output open


def _take(stream: IO[bytes], parts: Parts) -> None:
    while data := os.read(stream.fileno(), 1 << 16):
        try:
            parts.write(data)
        except OSError:
            pass  # the disk is full: the script goes on, and what it says is lost


def _write(path: Path, facts: dict[str, Any]) -> None:
    half = path.with_suffix(".part")
    half.write_text(json.dumps(facts))
    half.replace(path)


def main() -> None:
    """The program: a directory and what runs, as its arguments."""
    watch(Path(sys.argv[1]), json.loads(sys.argv[2]))
