"""The way into this machine: no ssh, the same interface."""

from __future__ import annotations

import socket
import threading

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.connection import Connection, RemoteProcess
from grid.launch.forwards import FarEnd, Forward
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.pipes import PipeProcess


class LocalConnection(Connection):
    """Commands run by `sh` in the home directory, as they would through ssh."""

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, limits)
        self._lock = threading.Lock()
        self._closed = False
        self._processes: set[PipeProcess] = set()
        self._forwards: dict[tuple[str, int], Forward] = {}

    def start(self, command: str) -> RemoteProcess:
        """Run the command by `/bin/sh`. ConnectError: the connection was closed."""
        with self._lock:
            if self._closed:
                raise self._shut()
            process = PipeProcess(["/bin/sh", "-c", command], command, self.limits, ended=self._ended)
            self._processes.add(process)
            return process

    def forward(self, address: str, port: int) -> str:
        """A UNIX socket that leads to an address of this machine."""

        def open_far_end() -> FarEnd:
            far = socket.create_connection((address, port), timeout=self.limits.connect_s)
            far.settimeout(None)
            return far

        with self._lock:
            if self._closed:
                raise self._shut()
            if (address, port) not in self._forwards:
                self._forwards[address, port] = Forward(self.host.label, open_far_end)
            return self._forwards[address, port].path

    def unforward(self, address: str, port: int) -> None:
        """Close that socket and its streams."""
        with self._lock:
            forward = self._forwards.pop((address, port), None)
        if forward is not None:
            forward.close(self.limits.close_s)

    def server_address(self) -> str | None:
        """127.0.0.1."""
        return "127.0.0.1"

    def alive(self) -> bool:
        """Until it is closed."""
        return not self._closed

    def close(self) -> None:
        """End what was started and forwarded."""
        with self._lock:
            self._closed = True
            forwards, self._forwards = list(self._forwards.values()), {}
            processes = list(self._processes)
        for forward in forwards:
            forward.close(self.limits.close_s)
        for process in processes:
            process.close()

    def _ended(self, process: PipeProcess) -> None:
        with self._lock:
            self._processes.discard(process)

    def _shut(self) -> ConnectError:
        return ConnectError("the connection was closed", host=self.host.label, hint="Open another one")
