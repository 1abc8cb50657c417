"""The way into a host by paramiko: ssh within this process, no ssh binary needed.

Lives here: commands and forwards on a shared line.
Elsewhere:  a loan and its sessions (`loans.py`), how the line came about and who else uses it (`lines.py`).
"""

from __future__ import annotations

import random
import threading
import time

import paramiko

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch import lines
from grid.launch.connection import RemoteProcess, shorten
from grid.launch.forwards import FarEnd, Forward
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.loans import LoanConnection
from grid.launch.shell import sh_command
from grid.launch.ssh_config import resolve
from grid.text import in_words

_PACKET_BYTES = 128 << 10
"""Longest packet towards us. paramiko pays by the packet: 200 MB come at 45 MB/s with its 32 kB, at 150 with these."""

_WINDOW_BYTES = 16 << 20
"""What the far side may send before we have read it: covers 100 MB/s at 150 ms."""


class ParamikoConnection(LoanConnection):
    """A loan of a shared line; closing it ends what went through this loan, and the line with the last loan."""

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        self._line = lines.acquire(resolve(host), limits)
        super().__init__(host, limits, self._line)
        self._forwards: dict[tuple[str, int], Forward] = {}

    def _begin(self, command: str) -> ParamikoProcess:
        process = ParamikoProcess(self._open_session(), command, self)
        with self._lock:
            self._processes.add(process)
        return process

    def forward(self, address: str, port: int) -> str:
        """A UNIX socket here, each of whose streams is a channel of the line."""
        self._check_alive()
        with self._lock:
            forward = self._forwards.get((address, port))
            if forward is None:
                forward = Forward(self.host.label, lambda: self._open_stream(address, port))
                self._forwards[address, port] = forward
            return forward.path

    def unforward(self, address: str, port: int) -> None:
        """Close that socket and its channels, within `close_s`."""
        with self._lock:
            forward = self._forwards.pop((address, port), None)
        if forward is not None:
            forward.close(self.limits.close_s)

    def server_address(self) -> str | None:
        """The address that the line was connected to; None through others."""
        return self._line.address

    def close(self) -> None:
        """End what went through this loan, and the line if it was the last."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            forwards = list(self._forwards.values())
            processes = list(self._processes)
        for forward in forwards:
            forward.close(self.limits.close_s)
        for process in processes:
            process.close()
        lines.release(self._line)

    def _open_session(self) -> paramiko.Channel:
        """Others may use up the server's MaxSessions (a shared line, another program): a refusal is tried again."""
        for attempt in range(self.limits.retries + 1):
            if attempt:
                time.sleep(self.limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            try:
                return self._line.transport.open_channel(
                    "session", window_size=_WINDOW_BYTES, timeout=self.limits.channel_s
                )
            except paramiko.SSHException as exc:
                # Of two threads that are refused at once, paramiko gives one the reason and the other this.
                if not isinstance(exc, paramiko.ChannelException) and "Unable to open" not in str(exc):
                    raise self._lost(str(exc).rstrip(".")) from exc
                if not self._line.alive():
                    raise self._lost("it was cut") from exc
                refused = exc
            except (EOFError, OSError) as exc:
                raise self._lost(str(exc) or "it was cut") from exc
        raise ConnectError(
            f"sshd opened no session ({in_words(refused)})",
            host=self.host.label,
            hint="Its MaxSessions is used up, or the account may run no commands",
        ) from refused

    def _open_stream(self, address: str, port: int) -> FarEnd:
        channel = self._line.transport.open_channel(
            "direct-tcpip",
            (address, port),
            ("127.0.0.1", 0),
            window_size=_WINDOW_BYTES,
            max_packet_size=_PACKET_BYTES,
            timeout=self.limits.channel_s,
        )
        channel.settimeout(None)
        return channel


class ParamikoProcess(RemoteProcess):
    """A command on a session channel.

    Readers wait on events of the channel's buffers: the channel's own timeout is one for both directions, and is
    kept for the writer.
    """

    def __init__(self, channel: paramiko.Channel, command: str, owner: ParamikoConnection) -> None:
        super().__init__(command, owner.limits)
        self._channel = channel
        self._owner = owner
        self._arrived = threading.Event()
        self._arrived_stderr = threading.Event()
        channel.in_buffer.set_event(self._arrived)
        channel.in_stderr_buffer.set_event(self._arrived_stderr)
        # exec_command() waits for the server's answer without a limit of its own.
        watch = threading.Timer(owner.limits.channel_s, channel.close)
        watch.daemon = True
        watch.start()
        try:
            channel.exec_command(sh_command(self._announced(command)))
        except (paramiko.SSHException, EOFError, OSError) as exc:
            channel.close()
            raise ConnectError(
                f"sshd did not start the command: {shorten(command)}",
                host=owner.host.label,
                hint=f"Does `ssh {owner.host.label} true` work?",
            ) from exc
        finally:
            watch.cancel()
        name = f"grid-stderr-{owner.host.name}"
        self._drain = threading.Thread(target=self._drain_stderr, name=name, daemon=True)
        self._drain.start()

    def write(self, data: bytes, timeout: float) -> None:
        """Send all of it. TimeoutError: not taken within `timeout` seconds; BrokenPipeError: never will be."""
        deadline = time.monotonic() + timeout
        view = memoryview(data)
        while view:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                # Slices no longer than a packet: the channel copies what it is given.
                sent = self._channel.send(bytes(view[:32768]))
            except TimeoutError:
                raise TimeoutError(f"the far side took no more input for {timeout:g} s") from None
            except (OSError, EOFError, paramiko.SSHException) as exc:
                raise BrokenPipeError("the far side takes no more input") from exc
            if not sent:
                raise BrokenPipeError("the far side takes no more input")
            view = view[sent:]

    def read(self, timeout: float) -> bytes:
        """What the command printed, without what the login shell printed before it. TimeoutError: nothing came."""
        return self._skip(self._receive, timeout)

    def _receive(self, timeout: float) -> bytes:
        if not self._arrived.wait(timeout):
            raise TimeoutError(f"nothing on stdout for {timeout:g} s")
        return self._channel.recv(1 << 20)

    def close_stdin(self) -> None:
        """The far side sees the end of its input."""
        try:
            self._channel.shutdown_write()
        except (OSError, EOFError, paramiko.SSHException):
            pass  # already closed, or cut: either way nothing follows

    def poll(self) -> int | None:
        """The exit status, once sshd has told it."""
        return self._channel.exit_status if self._channel.status_event.is_set() else None

    def wait(self, timeout: float) -> int | None:
        """The same, after at most `timeout` seconds."""
        self._channel.status_event.wait(timeout)
        return self.poll()

    def kill(self) -> None:
        """Through a second session: ssh's own signals reach no process of root, and none before sshd 7.9."""
        self.close_stdin()
        if self._tail.pid is not None and self.wait(0) is None:
            self._owner.kill_session(self._tail.pid)  # else the closing channel is all the word that it gets

    def close(self) -> None:
        """Close the channel and give its session back; bounded by `close_s`."""
        try:
            self._channel.close()
        except (OSError, EOFError, paramiko.SSHException):
            pass  # the link is cut: the far side learns nothing now, its sshd ends by its own limits
        self._drain.join(self._limits.close_s)
        self._owner._ended(self)

    def _drain_stderr(self) -> None:
        try:
            while True:
                self._arrived_stderr.wait()
                chunk = self._channel.recv_stderr(1 << 18)
                if not chunk:
                    return
                self._tail.feed(chunk)
        except OSError:
            pass  # closed meanwhile
        finally:
            self._tail.end()
