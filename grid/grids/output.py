"""What servers print, brought home: to the terminal with a label, and to a log file per server.

Lives here: labels, log files on this machine, windows that follow them.
Elsewhere:  reading the servers' pipes (`kernel/agent.py`), `grid logs` (`cli/`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TextIO

from grid.kernel import logs
from grid.wire.places import private_dir, runtime_dir


class Output:
    """Where lines of servers go. One thread writes: the grid's."""

    def __init__(self, terminal: TextIO | None) -> None:
        self._terminal = terminal
        self._directory: Path | None = None
        self._windows: list[subprocess.Popen[bytes]] = []

    def in_directory(self, grid_id: str) -> None:
        """Keep the logs of this grid below the runtime directory."""
        self._directory = private_dir(runtime_dir() / "grids" / f"{grid_id}.logs")

    def show(self, name: str, host: str, text: str) -> None:
        """Lines that server `name` printed."""
        label = f"[{name} {host}] "
        if self._directory is not None:
            logs.append(self._file(name), (text + "\n").encode(errors="backslashreplace"))
        self._print("".join(f"{label}{line}\n" for line in text.split("\n")))

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
