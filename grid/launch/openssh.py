"""The way into a host by the user's own ssh binary: all that it can do, second factors and Kerberos included.

Lives here: commands and forwards through a control master.
Elsewhere:  a loan and its sessions (`loans.py`), the master (`masters.py`), pipes to a child process (`pipes.py`).
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import subprocess
import time

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch import masters
from grid.launch.connection import shorten
from grid.launch.forwards import socket_path
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.loans import LoanConnection
from grid.launch.pipes import PipeProcess
from grid.launch.shell import announced, sh_command

_REFUSED_S = 3.0
"""A client that is refused a session has ended by then; one that lives has got in."""


class OpenSSHConnection(LoanConnection):
    """A loan of a shared master; closing it ends what went through this loan, and our master with the last loan."""

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        self._key, self._master, self._config = masters.acquire(host, limits)
        super().__init__(host, limits, self._master)
        self._forwards: dict[tuple[str, int], str] = {}
        self._address: str | None = None

    def _begin(self, command: str) -> OpenSSHProcess:
        """A client that is refused a session (MaxSessions: others use the host, too) is started again."""
        said = ""
        alone = False
        for attempt in range(self.limits.retries + 1):
            if attempt and not alone:
                time.sleep(self.limits.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            process = OpenSSHProcess(self, command, alone=alone)
            with self._lock:
                self._processes.add(process)
            if process.started(self.limits.channel_s):
                return process
            said = process.stderr_tail(0.2)
            ended = process.wait(0.5)
            if ended not in (None, 255, -1):  # ssh itself was content
                with contextlib.suppress(TimeoutError):
                    process.read(0.2)
            with self._lock:
                self._processes.discard(process)  # not `_ended`: the session stays ours for the next attempt
            process.close()
            if ended not in (None, 255, -1):
                raise self.no_command(process, ended)
            if not self._master.alive():
                raise self._lost("it was cut")
            # MaxSessions: where the master has the only one, or others use the host, a log-in of its own does it.
            alone = alone or (attempt >= 1 and self._master.can_log_in_alone)
        raise ConnectError(
            f"sshd did not start the command: {shorten(command)}" + (f" ({shorten(said)})" if said else ""),
            host=self.host.label,
            hint=f"Its MaxSessions may be used up; does `ssh {self.host.label} true` work?",
        )

    def forward(self, address: str, port: int) -> str:
        """A UNIX socket of the master's (`ssh -O forward`). ConnectError: ssh refuses."""
        self._check_alive()
        with self._lock:
            if (address, port) not in self._forwards:
                path = socket_path(self.host.label)
                done = self._control("-O", "forward", "-L", _rule(path, address, port))
                if done.returncode:
                    raise ConnectError(
                        f"ssh makes no forward to {address} port {port}: "
                        f"{done.stderr.decode('utf-8', 'replace').strip()}",
                        host=self.host.label,
                        hint="It needs OpenSSH 6.7 or newer here",
                    )
                self._forwards[address, port] = path
            return self._forwards[address, port]

    def unforward(self, address: str, port: int) -> None:
        """End a forward. Streams that it carries go on until one end closes: ssh has no word for that."""
        with self._lock:
            path = self._forwards.pop((address, port), None)
        if path is None:
            return
        try:
            self._control("-O", "cancel", "-L", _rule(path, address, port))
        except ConnectError:
            pass  # the master has ended, its forwards with it
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass

    def server_address(self) -> str | None:
        """None behind a jump host or a ProxyCommand: then nobody here knows an address to connect to."""
        if self._config.get("proxyjump", "none") != "none" or self._config.get("proxycommand", "none") != "none":
            return None
        if self._address is None:
            self._address = self._find_address()
        return self._address

    def _find_address(self) -> str | None:
        """ssh does not tell which of a name's addresses it took; the host knows unless addresses are translated."""
        name = self._config.get("hostname", self.host.name)
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError:
            return None
        known = [str(entry[4][0]) for entry in found]
        words = self.run('echo "$SSH_CONNECTION"').text.split()
        return words[2] if len(words) == 4 and words[2] in known else known[0]

    def close(self) -> None:
        """End what went through this loan, and our master if it was the last."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            processes = list(self._processes)
            forwards = list(self._forwards)
        for process in processes:
            process.close()
        for address, port in forwards:
            self.unforward(address, port)
        masters.release(self._key, self._master)

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return self._master.control(*arguments)
        except subprocess.TimeoutExpired as exc:
            raise self._lost("its master does not answer") from exc


class OpenSSHProcess(PipeProcess):
    """A command behind a multiplexed ssh client."""

    def __init__(self, owner: OpenSSHConnection, command: str, *, alone: bool) -> None:
        self._owner = owner
        self._alone = alone
        words = owner._master.client_alone() if alone else owner._master.client()
        mark = f"grid-out-{secrets.token_hex(8)}"
        super().__init__([*words, sh_command(announced(command, mark))], command, owner.limits, ended=owner._ended)
        self._mark = mark.encode()  # nobody reads before
        self._ahead = b""

    def read(self, timeout: float) -> bytes:
        """What the command printed, without what the login shell printed before it."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        return self._skip(super().read, timeout)

    def started(self, timeout: float) -> bool:
        """Wait until the command has announced itself, for a while; False if it never will."""
        deadline = time.monotonic() + min(timeout, _REFUSED_S)
        while not self._tail.announced.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):  # a shell that prints much waits until somebody reads
                self._ahead += self._skip(super().read, 0.02)
                if not self._ahead:
                    self._tail.announced.wait(0.02)  # it has ended
        if not self._tail.announced.is_set():
            return self.poll() is None  # a slow start-up file, or one that reads what comes later
        return self._tail.pid is not None

    def poll(self) -> int | None:
        """The command's exit status; -1 if ssh itself failed or the link was cut."""
        code = super().poll()
        # ssh's own failures look like a command that returned 255; a cut link is told apart by the master.
        return -1 if code == 255 and (self._alone or not self._owner.alive()) else code

    def wait(self, timeout: float) -> int | None:
        """The same, after at most `timeout` seconds."""
        super().wait(timeout)
        return self.poll()

    def kill(self) -> None:
        """By a second command through the master, then the client here."""
        self.close_stdin()
        if self._tail.pid is not None and self.poll() is None:
            self._owner.kill_session(self._tail.pid)
        super().kill()


def _rule(path: str, address: str, port: int) -> str:
    return f"{path}:[{address}]:{port}" if ":" in address else f"{path}:{address}:{port}"
