"""Streams as files: for launchers that carry none, and for jobs that start later than we ask.

A command gets a directory of its own below a spool directory that both sides see (0700, in the home of the nodes):

    run.sh     the command, with its streams led here; what the launcher starts
    stdin      written before the start, all of it: what comes after finds a closed stream. Removed once it is open
    stdout, stderr, status
    pid        of the shell that runs it

Readers look again every `POLL_S`: a shared directory tells nobody when a file grows.

Lives here: the directory, the script, `SpooledProcess`.
Elsewhere:  who launches the script (`tasks.py`, `grids/pilots.py`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from grid.batch_systems.sge import SPARED, WARNING
from grid.kernel.lease import start_ticks
from grid.launch.connection import RemoteProcess
from grid.launch.limits import ConnectLimits
from grid.launch.shell import follow_child, kill_script
from grid.wire.places import trusted

POLL_S = 0.05
OLD_S = 30 * 86400.0
"""Nobody can see whether a process of another machine lives; no job lasts longer than this."""
LAUNCHER_SAID = "launcher"
"""File with what the launcher itself printed: the reason, where it has started nothing."""
LATE_S = 1.0
"""A status that has not come this long after the end of its launcher will not come."""

VARIABLE = "GRID_SPOOL"
"""Names a directory that all nodes see, where ~/.grid/spool is none."""


def run_script(command: str, directory: str) -> str:
    """Text of `run.sh`: runs a command with its streams in files of `directory`. POSIX shell.

    SIGTERM goes on to the command: some batch systems send it to their tasks alone, and then kill what is left.
    """
    where = shlex.quote(directory)
    return (
        "#!/bin/sh\n"
        f"cd {where} || exit 1\n"
        "umask 077\n"
        "echo $$ >pid.new && mv pid.new pid\n"
        "exec 3<stdin && rm -f stdin\n"  # it may hold keys: nobody else reads it
        f"{SPARED}\n"
        f"sh -c {shlex.quote('cd; ' + command)} <&3 3<&- >stdout 2>stderr &\n"
        f"{follow_child(f'TERM HUP {WARNING}')}\n"
        'echo "$status" >status.new && mv status.new status\n'
    )


def own_directory() -> Path:
    """Where all spool directories of this process are, if it has any.

    Its name is known before it is made, so that a kernel on this machine can be told what to remove if we are killed.
    """
    base = Path(os.environ.get(VARIABLE) or Path.home() / ".grid" / "spool")
    return base / f"{socket.gethostname()}-{os.getpid()}-{start_ticks(os.getpid())}"


def remove_dead(base: Path) -> list[str]:
    """Remove what killed processes of this machine have left in a spool; and of others what is older than `OLD_S`."""
    removed = []
    for path in base.glob("*-*-*"):
        host, pid, ticks = path.name.rsplit("-", 2)
        try:
            here = host == socket.gethostname()
            dead = str(start_ticks(int(pid))) != ticks if here else time.time() - path.stat().st_mtime > OLD_S
        except (OSError, ValueError):
            continue
        if dead:
            shutil.rmtree(path, ignore_errors=True)
            removed.append(str(path))
    return removed


class Spool:
    """One spool directory of ours on this machine, removed at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._number = 0

    @classmethod
    def local(cls) -> Spool:
        """A new one below $GRID_SPOOL or ~/.grid/spool."""
        ours = own_directory()
        hint = f"Name a directory of yours with {VARIABLE}; input with keys lies there for a moment"
        ours = trusted(ours.parent, hint) / ours.name
        ours.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_dead(ours.parent)
        ours.mkdir(mode=0o700, exist_ok=True)
        directory = ours / os.urandom(4).hex()
        directory.mkdir(mode=0o700)
        return cls(directory)

    def new(self) -> Path:
        """A directory for one command."""
        with self._lock:
            self._number += 1
            path = self.directory / str(self._number)
        path.mkdir(mode=0o700)
        return path

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.directory.parent.rmdir()  # unless another connection has its own in it


class SpooledProcess(RemoteProcess):
    """A command whose streams are files. It is launched when its input is complete: at the first read or wait."""

    def __init__(
        self,
        spool: Spool,
        launch: Callable[[str], subprocess.Popen[bytes]],
        command: str,
        limits: ConnectLimits,
        *,
        ended: Callable[[SpooledProcess], None],
    ) -> None:
        super().__init__(command, limits)
        self._launch, self._ended = launch, ended
        self._directory = spool.new()
        self._launcher_heard = False
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._input: list[bytes] = []
        self._offset = 0
        self._errors_seen = 0
        self._status: int | None = None
        self._launcher_ended: float | None = None

    def write(self, data: bytes, timeout: float) -> None:
        """Keep it for the file of its input. BrokenPipeError: it was started, and takes no more."""
        with self._starting:
            if self._child is not None:
                raise BrokenPipeError("its input was complete when it was started")
            self._input.append(data)

    def close_stdin(self) -> None:
        """The input is complete: start it."""
        self._start()

    def read(self, timeout: float) -> bytes:
        """The new part of its output file; empty at the end. TimeoutError: nothing within `timeout` seconds."""
        self._start()
        deadline = time.monotonic() + timeout
        while True:
            over = self._has_ended()  # before looking, so that its last words are found
            if data := self._more():
                return data
            if over:
                return b""
            if time.monotonic() >= deadline:
                raise TimeoutError(f"nothing on stdout for {timeout:g} s")
            time.sleep(POLL_S)

    def poll(self) -> int | None:
        """Its exit status, from its file or the launcher's; None while it runs."""
        return self._status if self._child is not None and self._has_ended() else None

    def wait(self, timeout: float) -> int | None:
        """The same, after at most `timeout` seconds."""
        self._start()
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return status

    def kill(self) -> None:
        """By a second task on that node: the launcher itself must not be killed."""
        pid = self._content("pid").strip()
        if self._child is None or self.poll() is not None or not pid.isdigit():
            return
        script = self._directory / "kill.sh"
        script.write_text(f"#!/bin/sh\n{kill_script(int(pid))}\n")
        killer = self._launch(str(script))
        try:
            killer.wait(self._limits.close_s)
        except subprocess.TimeoutExpired:
            pass  # nobody waits for it; the job's end is its end
        self.wait(self._limits.close_s)

    def close(self) -> None:
        """End the launcher, after a moment for a process that was told to end, and remove its files."""
        if self._child is not None:
            # A kernel that was told to end is about to; to kill it takes another task, which takes longer.
            if self.wait(min(LATE_S, self._limits.close_s)) is None:
                self.kill()
            try:
                self._child.wait(self._limits.close_s)
            except subprocess.TimeoutExpired:
                self._child.send_signal(signal.SIGTERM)
                self._child.wait()
        self._look_at_stderr()
        self._tail.end()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._ended(self)

    def stderr_tail(self, timeout: float = 0.0) -> str:
        """The last lines of its file of errors; does not wait."""
        self._look_at_stderr()
        return super().stderr_tail(0.0)

    def stderr_bytes(self, timeout: float = 0.0) -> bytes:
        """The last bytes of that file; does not wait."""
        self._look_at_stderr()
        return super().stderr_bytes(0.0)

    def _start(self) -> None:
        with self._starting:
            if self._child is not None:
                return
            for name, data in (("stdin", b"".join(self._input)), ("stdout", b""), ("stderr", b"")):
                with open(os.open(self._directory / name, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(data)
            self._input.clear()
            script = self._directory / "run.sh"
            script.write_text(run_script(self.command, str(self._directory)))
            self._child = self._launch(str(script))

    def _has_ended(self) -> bool:
        if self._status is None:
            text = self._content("status").strip()
            if text:
                code = int(text)
                self._status = 128 - code if code > 128 else code
            elif self._child is not None and self._child.poll() is not None:
                self._launcher_ended = self._launcher_ended or time.monotonic()
                if not (self._directory / "pid").exists():
                    self._status = self._child.returncode or 1  # the launcher gave up: nothing was started
                elif time.monotonic() - self._launcher_ended > LATE_S:
                    self._status = -signal.SIGKILL  # it was killed with its shell, which says nothing then
        return self._status is not None

    def _more(self) -> bytes:
        try:
            with open(self._directory / "stdout", "rb") as file:  # anew each time: NFS looks only when a file is opened
                file.seek(self._offset)
                data = file.read(1 << 18)
        except OSError:
            return b""
        self._offset += len(data)
        return data

    def _look_at_stderr(self) -> None:
        # What the launcher said comes first, and counts once nothing has been started: it is short and does not grow.
        if self._child is not None and self._child.poll() is not None and not self._launcher_heard:
            self._launcher_heard = True
            self._tail.feed(self._content(LAUNCHER_SAID)[-4096:])
        text = self._content("stderr")
        self._tail.feed(text[self._errors_seen :])
        self._errors_seen = len(text)

    def _content(self, name: str) -> bytes:
        try:
            return (self._directory / name).read_bytes()
        except OSError:
            return b""
