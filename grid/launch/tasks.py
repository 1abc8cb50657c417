"""Ways onto the nodes of the batch job that we are in: by the batch system's own launcher.

What it starts is accounted to the job and ends with it. There is no sshd in between and none is needed, so there are no
forwards either: nodes of a job reach each other directly.

    srun, qrsh          carry standard input and output themselves: a command is a child of ours like any other
    pbsdsh, pbs_tmrsh   give their tasks no input, and their output goes to the job's file: streams are files, see
                        `spool.py`

Lives here: a connection of either kind, `towards`.
Elsewhere:  the command line of each launcher (`batch_systems/`), which launcher, which nodes (`allocation.py`); pipes
            (`pipes.py`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from abc import abstractmethod
from typing import BinaryIO

from grid.batch_systems import Launcher
from grid.batch_systems.known import launcher_named
from grid.batch_systems.sge import SPARED, WARNING
from grid.errors import AllocationError, ConnectError
from grid.hosts import Host
from grid.launch.connection import Connection, RemoteProcess
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.pipes import PipeProcess
from grid.launch.shell import follow_child
from grid.launch.spool import LAUNCHER_SAID, Spool, SpooledProcess


class TaskConnection(Connection):
    """Commands run as tasks of the job that we are in, on one of its nodes."""

    has_forwards = False
    in_job = True

    def __init__(self, host: Host, launcher: Launcher, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, limits)
        self.launcher = launcher
        if shutil.which(launcher.name) is None:
            raise ConnectError(
                f"the command {launcher.name} is not on the PATH",
                host=host.label,
                hint="Are we in a job of that batch system? Otherwise use ssh",
            )
        self._lock = threading.Lock()
        self._closed = False
        self._processes: set[RemoteProcess] = set()

    def _words(self) -> list[str]:
        try:
            return self.launcher.words(self.host.name, os.environ)
        except AllocationError as exc:
            raise ConnectError(str(exc), host=self.host.label, hint="Run the script on the job's first node") from exc

    @abstractmethod
    def _begin(self, command: str) -> RemoteProcess:
        """Start a command; calls `_ended` when it is let go of."""

    def start(self, command: str) -> RemoteProcess:
        """Start a command on the node by the launcher. ConnectError: the connection was closed, or it can't be run."""
        with self._lock:
            if self._closed:
                raise ConnectError("the connection was closed", host=self.host.label, hint="Open another one")
            process = self._begin(command)
            self._processes.add(process)
            return process

    def forward(self, address: str, port: int) -> str:
        """Always a ConnectError: launchers carry no connections."""
        raise ConnectError(
            f"{self.launcher.name} carries no connection to {address} port {port}",
            host=self.host.label,
            hint="Nodes of a job must reach each other: is there a firewall? `ssh` as the launcher has tunnels",
        )

    def unforward(self, address: str, port: int) -> None:
        """There are none."""
        return

    def server_address(self) -> str | None:
        """None: the node says where it listens, see `towards`."""
        return None

    def towards(self) -> list[str]:
        """Names and addresses of this machine, the likeliest first."""
        return own_addresses(self.host.name)

    def alive(self) -> bool:
        """Until it is closed: whether a node answers shows when something is started there."""
        return not self._closed

    def close(self) -> None:
        """End what was started."""
        with self._lock:
            self._closed = True
            processes = list(self._processes)
        for process in processes:
            process.close()

    def _ended(self, process: RemoteProcess) -> None:
        with self._lock:
            self._processes.discard(process)


class StreamingConnection(TaskConnection):
    """A launcher that carries the streams of what it starts."""

    def __init__(self, host: Host, launcher: Launcher, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, launcher, limits)
        self._spool = Spool.local() if launcher.splits_words else None

    def _begin(self, command: str) -> RemoteProcess:
        shell = passing_on(command)
        words = [*self._words(), "/bin/sh", "-c", shell]
        if self._spool is not None:
            script = self._spool.new() / "run.sh"
            script.write_text(f"#!/bin/sh\n{shell}\n")
            words[-2:] = [str(script)]
        env = {name: value for name, value in os.environ.items() if not self.launcher.without(name)}
        return PipeProcess(words, command, self.limits, env=env, ended=self._ended)

    def close(self) -> None:
        """End what was started, and remove the files of commands."""
        super().close()
        if self._spool is not None:
            self._spool.remove()


class SpooledConnection(TaskConnection):
    """A launcher that carries none: they are files."""

    def __init__(self, host: Host, launcher: Launcher, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, launcher, limits)
        self._spool = Spool.local()

    def _begin(self, command: str) -> RemoteProcess:
        words = self._words()

        def launch(script: str) -> subprocess.Popen[bytes]:
            # TORQUE's is never to be killed: after that, later ones of the job fail (6.1.3). It ends with its task. In
            # a group of its own, so that Ctrl-C spares it, but in the job's session, so that the job's end does not.
            with open(os.path.join(os.path.dirname(script), LAUNCHER_SAID), "wb") as said:
                return _in_own_group([*words, "/bin/sh", script], said)

        return SpooledProcess(self._spool, launch, command, self.limits, ended=self._ended)

    def close(self) -> None:
        """End what was started, and remove its files."""
        super().close()
        self._spool.remove()


def _in_own_group(words: list[str], said: BinaryIO) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    if sys.version_info >= (3, 11):
        return subprocess.Popen(words, stdin=null, stdout=said, stderr=said, process_group=0)
    return subprocess.Popen(words, stdin=null, stdout=said, stderr=said, preexec_fn=os.setpgrp)


def passing_on(command: str) -> str:
    """Shell text that runs a command with its streams, and hands SIGTERM on to it instead of dying of it.

    Batch systems end a task when its first process has ended: the kernel behind it would have no time to clear up.
    """
    return (
        f"{SPARED}; exec 3<&0; sh -c {shlex.quote(command)} <&3 3<&- & exec 3<&- </dev/null; "
        f'{follow_child(f"TERM HUP {WARNING}")}; exit "$status"'
    )


def connect_task(host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> TaskConnection:
    """A way onto a node of the job that we are in, by the launcher that `host.ssh` names.

    Raises:
        ConnectError: Its command is not there.
    """
    launcher = launcher_named(host.ssh, os.environ)
    kind = StreamingConnection if launcher.carries_streams else SpooledConnection
    return kind(host, launcher, limits)


def own_addresses(node: str) -> list[str]:
    """Addresses under which a node may reach this machine, the likeliest first; loopback only if there is no other.

    Not what our own name resolves to: on many machines that is 127.0.0.1.
    """
    found: list[str] = []
    try:
        for family, _, _, _, target in socket.getaddrinfo(node, 9, type=socket.SOCK_DGRAM):
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(target)
                found.append(probe.getsockname()[0])
    except OSError:
        pass  # its name is not known here: any of our addresses may do
    try:
        listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        listed = []
    return sorted(dict.fromkeys([*found, *listed]), key=lambda address: address.startswith(("127.", "::1")))
