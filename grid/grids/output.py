"""What servers print, brought home: to the terminal with a label, and to a log file per server.

Lives here: labels, log files on this machine, windows that follow them.
Elsewhere:  reading the servers' pipes (`kernel/agent.py`), `grid logs` (`cli/`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from grid.kernel import logs
from grid.wire.places import private_dir, runtime_dir

_MARK_S = 1.0
"""Lines that arrive within this time count as having come together."""


class Output:
    """Where lines of servers go. One thread writes: the grid's."""

    def __init__(self, terminal: TextIO | None, clock: Callable[[], float] = time.time) -> None:
        self._terminal, self._clock = terminal, clock
        self._directory: Path | None = None
        self._windows: list[subprocess.Popen[bytes]] = []
        self._marks: dict[str, tuple[int, float, str]] = {}  # server -> offset, time and host of the last mark

    def in_directory(self, grid_id: str) -> None:
        """Keep the logs of this grid below the runtime directory."""
        self._directory = private_dir(runtime_dir() / "grids" / f"{grid_id}.logs")

    def show(self, name: str, host: str, text: str) -> None:
        """Lines that server `name` printed."""
        label = f"[{name} {host}] "
        if self._directory is not None:
            self._mark(name, host)
            logs.append(self._file(name), (text + "\n").encode(errors="backslashreplace"))
        self._print("".join(f"{label}{line}\n" for line in text.split("\n")))

    def _mark(self, name: str, host: str) -> None:
        """Note when what follows arrived, and from where: once a second, and where the log begins or its host changes.

        Beside the log, because a log has what servers print and nothing else. Each line: offset, time, host.
        """
        path, now = self._file(name), self._clock()
        try:
            size = path.stat().st_size
        except OSError:
            size = 0
        before = self._marks.get(name)
        if before is not None and before[0] <= size and now - before[1] < _MARK_S and before[2] == host:
            return
        anew = before is None or size < before[0]  # the log was turned
        self._marks[name] = size, now, host
        try:
            with open(path.with_suffix(".times"), "w" if anew else "a") as file:
                file.write(f"{size} {now:.3f} {host}\n")
        except OSError:
            pass  # a full disk: lines without a time

    def say(self, text: str) -> None:
        """A line of the grid itself."""
        self._print(f"grid: {text}\n")

    def _print(self, text: str) -> None:
        if self._terminal is not None:
            try:
                self._terminal.write(text)
                self._terminal.flush()
            except (OSError, ValueError):
                self._terminal = None  # it was closed

    def _file(self, name: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{name.replace('/', '.')}.log"

    def forget(self, name: str) -> None:
        """A server has ended, and its log is closed."""
        if self._directory is not None:
            logs.remove(self._file(name))
            self._file(name).with_suffix(".times").unlink(missing_ok=True)
            self._marks.pop(name, None)

    def open_window(self, name: str, host: str, size: tuple[int, int]) -> None:
        """Follow a server's log in a terminal of its own: a tmux window inside tmux, else xterm where there is X."""
        if self._directory is None:
            return
        path = self._file(name)
        path.touch()
        follow = f"exec tail -n +1 -F {shlex.quote(str(path))}"
        title = f"{name} {host}"
        if os.environ.get("TMUX") and shutil.which("tmux"):
            command = ["tmux", "new-window", "-d", "-n", title, follow]
        elif os.environ.get("DISPLAY") and shutil.which("xterm"):
            command = ["xterm", "-T", title, "-geometry", f"{size[0]}x{size[1]}", "-e", "sh", "-c", follow]
        else:
            return
        self._windows.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))

    def close(self) -> None:
        """End the windows and remove the logs."""
        for window in self._windows:
            window.terminate()
            window.wait()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
