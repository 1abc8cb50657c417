"""A connection that is a loan of a shared log-in: what both ways of ssh have in common.

The log-in (a `Line` of paramiko, a `Master` of OpenSSH) may serve other loans, too, and ends with the last of them.

Lives here: whether the loan still holds, the commands that run on it, a session for each of them.
Elsewhere:  starting a command (`paramiko_ssh.py`, `openssh.py`), who shares what (`pool.py`).
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Protocol

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.connection import Connection, RemoteProcess
from grid.launch.limits import ConnectLimits
from grid.launch.shell import kill_script


class LogIn(Protocol):
    """What is lent. `sessions` counts the commands that may run on it at once."""

    @property
    def sessions(self) -> threading.BoundedSemaphore:
        """One is taken for each command."""

    def alive(self) -> bool:
        """False once its link is known to be cut."""


class LoanConnection(Connection):
    """Commands on a log-in that others may use, too. `close` ends what went through this loan, and gives it back."""

    def __init__(self, host: Host, limits: ConnectLimits, log_in: LogIn) -> None:
        super().__init__(host, limits)
        self._log_in = log_in
        self._lock = threading.Lock()
        self._closed = False
        self._processes: set[RemoteProcess] = set()  # each has a session

    @abstractmethod
    def _begin(self, command: str) -> RemoteProcess:
        """Start a command and have it in `_processes`; it calls `_ended` when it is closed. A session is free."""

    def start(self, command: str) -> RemoteProcess:
        """Start a command in a session of its own. ConnectError: all sessions are taken, or it is closed or cut."""
        self._check_alive()
        if not self._log_in.sessions.acquire(timeout=self.limits.channel_s):
            raise ConnectError(
                f"{self.limits.sessions} commands run on this connection already (sshd's MaxSessions)",
                host=self.host.label,
                hint="Wait for some to end",
            )
        try:
            process = self._begin(command)
        except BaseException:
            self._log_in.sessions.release()
            raise
        with self._lock:
            closed = self._closed
        if closed:
            process.close()
            raise self._lost("it was closed")
        return process

    def alive(self) -> bool:
        """Whether the loan was not given back, and its log-in stands."""
        return not self._closed and self._log_in.alive()

    def kill_session(self, pid: int) -> None:
        """Kill what a command has started in its session, by another command; as far as we still get in."""
        try:
            with self.start(kill_script(pid)) as killer:
                killer.wait(self.limits.close_s)
        except ConnectError:
            pass  # cut, or out of sessions

    def _ended(self, process: RemoteProcess) -> None:
        """A process was closed: its session is free. Comes more than once."""
        with self._lock:
            if process not in self._processes:
                return
            self._processes.remove(process)
        self._log_in.sessions.release()

    def _check_alive(self) -> None:
        if not self.alive():
            raise self._lost("it was closed" if self._closed else "it was cut")

    def _lost(self, why: str) -> ConnectError:
        return ConnectError(
            f"no connection any more: {why}",
            host=self.host.label,
            hint=f"`grid doctor {self.host.label}` says how far it is reachable now",
        )
