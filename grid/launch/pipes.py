"""A command under way as a child process of ours: by a local shell, or by an ssh binary.

Lives here: pipes with limits on every wait, and the end of the child with all its children.
Elsewhere:  which command line is started (`local.py`, `openssh.py`).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from grid.launch.connection import RemoteProcess
from grid.launch.limits import ConnectLimits

_TOLD_S = 1.0
"""Between SIGTERM and SIGKILL."""
_LOOK_S = 0.005


class PipeProcess(RemoteProcess):
    """A child with pipes. It leads a session of its own: Ctrl-C at our terminal is ours to handle, not its."""

    def __init__(
        self,
        arguments: Sequence[str],
        command: str,
        limits: ConnectLimits,
        *,
        env: Mapping[str, str] | None = None,
        ended: Callable[[PipeProcess], None] = lambda process: None,
    ) -> None:
        super().__init__(command, limits)
        self._ended = ended
        self._child = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            bufsize=0,
            start_new_session=True,
        )
        assert self._child.stdin and self._child.stdout and self._child.stderr
        self._stdin, self._stdout, self._stderr = self._child.stdin, self._child.stdout, self._child.stderr
        os.set_blocking(self._stdin.fileno(), False)
        self._stdin_lock = threading.Lock()
        self._wake, self._wake_end = os.pipe()  # ends the drain when a daemon keeps stderr open
        self._drain = threading.Thread(target=self._drain_stderr, name="grid-stderr", daemon=True)
        self._drain.start()

    def write(self, data: bytes, timeout: float) -> None:
        """Send all of it. TimeoutError: not taken within `timeout` seconds; BrokenPipeError: it has ended."""
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            # Short waits: close() from another thread must not pull the descriptor from under a long one.
            with self._stdin_lock:
                if self._stdin.closed:
                    raise BrokenPipeError("its stdin is closed")
                poller = select.poll()
                poller.register(self._stdin, select.POLLOUT)
                ready = poller.poll(max(0.0, min(0.2, deadline - time.monotonic())) * 1000)
                if ready:
                    view = view[self._stdin.write(view[: 1 << 18]) or 0 :]
            if not ready and time.monotonic() >= deadline:
                raise TimeoutError(f"the far side took no more input for {timeout:g} s")

    def read(self, timeout: float) -> bytes:
        """What it printed; empty at the end. TimeoutError: nothing within `timeout` seconds."""
        if self._stdout.closed:
            return b""
        poller = select.poll()
        poller.register(self._stdout, select.POLLIN)
        if not poller.poll(max(0.0, timeout) * 1000):
            raise TimeoutError(f"nothing on stdout for {timeout:g} s")
        return os.read(self._stdout.fileno(), 1 << 18)

    def close_stdin(self) -> None:
        """It sees the end of its input."""
        with self._stdin_lock:
            self._stdin.close()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._child.poll()

    def wait(self, timeout: float) -> int | None:
        """The same, after at most `timeout` seconds."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """SIGTERM to its group, SIGKILL a second later to what is left of it."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _TOLD_S
        # The shell ends first. What it started may be clearing up, as an agent does that has just made directories.
        while (self.poll() is None or self._signal(0)) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self._signal(signal.SIGKILL)
        self.wait(_TOLD_S)

    def close(self) -> None:
        """Close its stdin; what has not ended a moment later is killed: unlike sshd, we must reap our child."""
        self.close_stdin()
        if self.wait(min(1.0, self._limits.close_s)) is None:
            self.kill()
        self._wait_for_drain()
        self._stdout.close()
        self._ended(self)

    def abandon(self) -> None:
        """Close its pipes, and let it go on."""
        self.close_stdin()
        self._wait_for_drain()
        self._stdout.close()
        self._ended(self)
        # it is still our child: without this it would be a zombie once it has ended
        threading.Thread(target=self._child.wait, name="grid-reaper", daemon=True).start()

    def _signal(self, number: int) -> bool:
        """Send it to the group; whether there is one. Zero only looks."""
        try:
            os.killpg(self._child.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _wait_for_drain(self) -> None:
        if self._wake_end >= 0:
            os.close(self._wake_end)
            self._wake_end = -1
        self._drain.join(self._limits.close_s)

    def _drain_stderr(self) -> None:
        poller = select.poll()
        poller.register(self._stderr, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poller.poll()}
                if self._stderr.fileno() in ready:
                    chunk = os.read(self._stderr.fileno(), 1 << 16)
                    if not chunk:
                        return
                    self._tail.feed(chunk)
                elif self._wake in ready:
                    return
        finally:
            self._tail.end()
            self._stderr.close()
            os.close(self._wake)
