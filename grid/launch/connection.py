"""One way into one host, as staging, launch and tunnel see it.

Lives here: `Connection` and `RemoteProcess`, which every way in must fill; `run`, made of them; `Completed`.
Elsewhere:  the ways in (`local.py`, `paramiko_ssh.py`, `openssh.py`), quoting (`shell.py`), the choice of one
            (`__init__.py`).

What a command is: text for a POSIX shell, everywhere. The ways in see to it that it reaches one, whichever login
shell the user has on the host.
"""

from __future__ import annotations

import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.shell import PID_LINE, announced

if TYPE_CHECKING:
    from typing_extensions import Self

_NOISE_BYTES = 4096
"""Kept of what a login shell prints by itself."""
_EARLY_BYTES = 1 << 16
QUIET_S = 0.5
"""A process has ended and its pipes were silent for this time: a daemon has them now, so stop reading."""


@dataclass(frozen=True)
class Completed:
    """The outcome of a command. `returncode` is negative if a signal ended it."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without the last newline."""
        return self.stdout.decode("utf-8", "replace").removesuffix("\n")


class Tail:
    """The last bytes of a stream that nobody reads while it flows; finds the process id that a command announces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self._lock = threading.Lock()
        self.pid: int | None = None
        self.announced = threading.Event()
        self.ended = threading.Event()

    def end(self) -> None:
        """Nothing follows; nor does an announcement."""
        self.ended.set()
        self.announced.set()

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        with self._lock:
            self._kept += chunk
            if self.pid is None and (found := PID_LINE.search(self._kept)):
                self.pid = int(found.group(1))
                del self._kept[found.start() : found.end()]
                self.announced.set()
            if len(self._kept) > 2 * self._limit:  # not at each chunk: that would move all of it each time
                del self._kept[: -self._limit]

    def content(self) -> bytes:
        """The last bytes, `limit` at most."""
        with self._lock:
            return bytes(self._kept[-self._limit :])


class RemoteProcess(ABC):
    """A command under way. One thread may read and another write; its open stdin is the far side's lifeline."""

    def __init__(self, command: str, limits: ConnectLimits) -> None:
        self.command = command
        self._limits = limits
        self._tail = Tail(limits.stderr_bytes)
        self._line = bytearray()
        self._mark = b""  # our command's first word on stdout: what comes before is noise of start-up files
        self._early = bytearray()
        self.noise = b""
        """The beginning of what a login shell printed before the command."""

    @property
    def began(self) -> bool:
        """Whether the command has begun, as far as its output shows."""
        return not self._mark

    def _announced(self, text: str) -> str:
        """The command, with a word before its output by which `_skip` knows it."""
        mark = f"grid-out-{secrets.token_hex(8)}"
        self._mark = mark.encode()
        return announced(text, mark)

    def _skip(self, receive: Callable[[float], bytes], timeout: float) -> bytes:
        """What `receive` gives of the command's own output."""
        if not self._mark:
            return receive(timeout)
        deadline = time.monotonic() + timeout
        while True:
            chunk = receive(max(0.0, deadline - time.monotonic()))
            if not chunk:
                self._see(bytes(self._early))
                return b""
            self._early += chunk
            before, found, after = self._early.partition(self._mark)
            if found:
                self._see(bytes(before))
                self._mark, self._early = b"", bytearray()
                return bytes(after) or receive(max(0.0, deadline - time.monotonic()))
            if len(self._early) > _EARLY_BYTES:
                self._see(bytes(self._early))
                del self._early[: -len(self._mark)]

    def _see(self, noise: bytes) -> None:
        self.noise = (self.noise + noise)[:_NOISE_BYTES]

    @abstractmethod
    def write(self, data: bytes, timeout: float) -> None:
        """Write all of it to stdin.

        Raises:
            TimeoutError: The far side took no more for this time; a part of the data may have arrived.
            BrokenPipeError: It will take no more.
        """

    @abstractmethod
    def read(self, timeout: float) -> bytes:
        """The bytes that have arrived on stdout, waiting for the first; b"" at its end. TimeoutError."""

    @abstractmethod
    def close_stdin(self) -> None:
        """Tell the far side that nothing follows."""

    @abstractmethod
    def poll(self) -> int | None:
        """The exit status if it has ended: negative for a signal or a cut link."""

    @abstractmethod
    def wait(self, timeout: float) -> int | None:
        """Wait for the exit status; None if it is still running then."""

    @abstractmethod
    def kill(self) -> None:
        """End it with all that it started in its session, as far as that can be done from here."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it: the far side sees the end of its stdin. Idempotent, bounded."""

    def abandon(self) -> None:
        """Let go of it, and let it go on: what runs elsewhere does so anyway, if it ignores the end of its stdin."""
        self.close()

    def read_line(self, timeout: float) -> bytes:
        """The next line of stdout with its newline; a last line without one; b"" at the end.

        Raises:
            TimeoutError: No whole line in time; its beginning is kept for the next call.
            ValueError: A line longer than `line_bytes`: this is not the protocol that the caller speaks.
        """
        deadline = time.monotonic() + timeout
        searched = 0
        while True:
            end = self._line.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._line[: end + 1])
                del self._line[: end + 1]
                return line
            searched = len(self._line)
            if searched > self._limits.line_bytes:
                raise ValueError(f"a line of more than {self._limits.line_bytes} bytes from {self.command!r}")
            chunk = self.read(max(0.0, deadline - time.monotonic()))
            if not chunk:
                line = bytes(self._line)
                self._line.clear()
                return line
            self._line += chunk

    def stderr_bytes(self, timeout: float = 0.0) -> bytes:
        """The last `stderr_bytes` of standard error, waiting at most `timeout` for its end."""
        self._tail.ended.wait(timeout)
        return self._tail.content()

    def stderr_tail(self, timeout: float = 0.0) -> str:
        """The last lines of standard error as text, waiting at most `timeout` seconds for its end."""
        self._tail.ended.wait(timeout)
        return self._tail.content()[-16384:].decode("utf-8", "replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Connection(ABC):
    """One way into `host`. Methods may be called from any thread; leaving the `with` block closes it."""

    has_forwards = True
    """Whether `forward` works; without, the host must be reached directly."""

    in_job = False
    """Whether what starts there belongs to a batch job, and has to stay in its session: it must end with it."""

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        self.host = host
        self.limits = limits

    @abstractmethod
    def start(self, command: str) -> RemoteProcess:
        """Start a command without a terminal. Whoever calls this closes the process.

        Raises:
            ConnectError: The connection is closed or lost, or the host opens no session for us.
        """

    @abstractmethod
    def forward(self, address: str, port: int) -> str:
        """Path of a UNIX socket here whose connections are carried to `address:port` as seen from the host.

        Asking twice gives the same path. It ends with `unforward` or with this connection. A connection that the
        host can't make is closed at once: the far end of a forward answers for itself.
        """

    @abstractmethod
    def unforward(self, address: str, port: int) -> None:
        """End a forward and the streams it carries; unknown ones are ignored."""

    @abstractmethod
    def server_address(self) -> str | None:
        """Address under which this machine reached the host, None if it did so through others.

        Not the third word of $SSH_CONNECTION: behind address translation that names an address which only the
        host itself knows, and what a client needs is one to connect to.
        """

    def towards(self) -> list[str]:
        """Names and addresses of this side, for a host to find out which address of its own it is reached under.

        Empty where `server_address` answers that.
        """
        return []

    @abstractmethod
    def alive(self) -> bool:
        """False once it is closed or its link is known to be cut; a cut is noticed within `silence_s`."""

    @abstractmethod
    def close(self) -> None:
        """End all that goes through it here. Idempotent, bounded by `close_s`."""

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None) -> Completed:
        """Run a command to its end.

        A daemon that it starts must not keep stdout open: through OpenSSH that counts as not having ended.

        Raises:
            ConnectError: It took longer than `timeout` (then its cause is a TimeoutError, and what could be killed
                was), wrote more than `output_bytes`, or the link was lost.
        """
        timeout = self.limits.command_s if timeout is None else timeout
        deadline = time.monotonic() + timeout
        with self.start(command) as process:
            feeder = threading.Thread(
                target=_feed, args=(process, stdin, timeout), name=f"grid-stdin-{self.host.name}", daemon=True
            )
            feeder.start()
            try:
                output = self._collect(process, deadline)
                code = process.wait(max(0.0, deadline - time.monotonic()))
                if code is None:
                    raise TimeoutError
            except TimeoutError as exc:
                process.kill()
                raise ConnectError(
                    f"no end of the command within {timeout:g} s; killed: {shorten(command)}",
                    host=self.host.label,
                    hint=_said(process) or "Try it by hand, or allow more time",
                ) from exc
            if not process.began:
                raise self.no_command(process, code)
            if code < 0 and not self.alive():
                raise ConnectError(
                    f"the connection was lost during the command: {shorten(command)}",
                    host=self.host.label,
                    hint=f"`grid doctor {self.host.label}` says how far it is reachable now",
                )
            return Completed(code, output, process.stderr_bytes(QUIET_S))

    def no_command(self, process: RemoteProcess, status: int | None) -> ConnectError:
        """The login shell there ended before our command began."""
        printed = process.noise.decode("utf-8", "replace") + "\n" + process.stderr_tail()
        return shell_ended(self.host, status, printed)

    def _collect(self, process: RemoteProcess, deadline: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            left = deadline - time.monotonic()
            try:
                chunk = process.read(max(0.0, min(left, QUIET_S)))
            except TimeoutError:
                if process.poll() is not None:
                    break
                if left <= 0:
                    raise
                continue
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            if size > self.limits.output_bytes:
                process.kill()
                raise ConnectError(
                    f"more than {self.limits.output_bytes} bytes of output from: {shorten(process.command)}",
                    host=self.host.label,
                    hint="Send it to a file there, or read it as a stream with start()",
                )
        return b"".join(chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def shell_ended(host: Host, status: int | None, printed: str) -> ConnectError:
    """The error of a login shell that ended before our command began."""
    said = printed.strip()[-500:]
    return ConnectError(
        f"its login shell ended before our command began (exit status {status})"
        + (f"; it printed: {said}" if said else ""),
        host=host.label,
        hint="A start-up file there (.bashrc, .cshrc, .zshenv) ends it: let it do so in interactive shells only",
        stage="shell",
    )


def shorten(command: str, length: int = 200) -> str:
    """A command for a message: one line, not too long."""
    line = " ".join(command.split())
    return line if len(line) <= length else f"{line[:length]} ..."


def _feed(process: RemoteProcess, stdin: bytes, timeout: float) -> None:
    try:
        if stdin:
            process.write(stdin, timeout)
        process.close_stdin()
    except OSError:
        pass  # it ended without reading all (`head`), or the reader meets the same fault and reports it


def _said(process: RemoteProcess) -> str:
    tail = process.stderr_tail()
    return f"It wrote: {tail[-1000:]}" if tail else ""
