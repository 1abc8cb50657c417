"""Ways onto the nodes of the batch job that we are in: by the batch system's own launcher.

What it starts is accounted to the job and ends with it. There is no sshd in between and none is needed, so there are no
forwards either: nodes of a job reach each other directly.

    srun, qrsh   carry standard input and output themselves: a command is a child of ours like any other
    pbsdsh       gives its tasks no input, and their output goes to the job's file: streams are files (`spool.py`)

Lives here: the command line of each launcher, `towards`.
Elsewhere:  which launcher, which nodes (`allocation.py`); pipes (`pipes.py`).

Sources: the manuals of srun, pbsdsh and qrsh; what TORQUE 6.1.3 and Slurm 22.05 did when tried.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from abc import abstractmethod

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.connection import Connection, RemoteProcess
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits
from grid.launch.pipes import PipeProcess
from grid.launch.spool import Spool, SpooledProcess

_STEP_VARIABLES = ("SLURM_EXPORT_ENV", "SLURM_STEP_NODELIST", "SLURM_NTASKS_PER_NODE", "SLURM_DISTRIBUTION")
"""Settings of the job that would change what a single srun of ours does; the first makes it fail altogether."""


class TaskConnection(Connection):
    """Commands run as tasks of the job that we are in, on one of its nodes."""

    launcher = ""
    has_forwards = False
    in_job = True

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, limits)
        if shutil.which(self.launcher) is None:
            raise ConnectError(
                f"the command {self.launcher} is not on the PATH",
                host=host.label,
                hint="Are we in a job of that batch system? Otherwise use ssh",
            )
        self._lock = threading.Lock()
        self._closed = False
        self._processes: set[RemoteProcess] = set()

    @abstractmethod
    def _begin(self, command: str) -> RemoteProcess:
        """Start a command; calls `_ended` when it is let go of."""

    def start(self, command: str) -> RemoteProcess:
        with self._lock:
            if self._closed:
                raise ConnectError("the connection was closed", host=self.host.label, hint="Open another one")
            process = self._begin(command)
            self._processes.add(process)
            return process

    def forward(self, address: str, port: int) -> str:
        raise ConnectError(
            f"{self.launcher} carries no connection to {address} port {port}",
            host=self.host.label,
            hint="Nodes of a job must reach each other: is there a firewall? `ssh` as the launcher has tunnels",
        )

    def unforward(self, address: str, port: int) -> None:
        return

    def server_address(self) -> str | None:
        return None

    def towards(self) -> list[str]:
        return own_addresses(self.host.name)

    def alive(self) -> bool:
        return not self._closed

    def close(self) -> None:
        with self._lock:
            self._closed = True
            processes = list(self._processes)
        for process in processes:
            process.close()

    def _ended(self, process: RemoteProcess) -> None:
        with self._lock:
            self._processes.discard(process)


class SrunConnection(TaskConnection):
    """A job step of Slurm for each command."""

    launcher = "srun"

    def _begin(self, command: str) -> RemoteProcess:
        job = os.environ.get("SLURM_JOB_ID", "")
        words = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={self.host.name}", "--export=ALL"]
        words += ["--cpu-bind=none", "--mpi=none", "--unbuffered", "--quiet", *([f"--jobid={job}"] if job else [])]
        env = {name: value for name, value in os.environ.items() if name not in _STEP_VARIABLES}
        return PipeProcess([*words, "/bin/sh", "-c", command], command, self.limits, env=env, ended=self._ended)


class QrshConnection(TaskConnection):
    """A task of SGE's tight integration for each command."""

    launcher = "qrsh"

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, limits)
        self._spool = Spool.local()

    def _begin(self, command: str) -> RemoteProcess:
        script = self._spool.new() / "run.sh"  # like rsh, qrsh may put its words together and split them anew
        script.write_text(f"#!/bin/sh\n{command}\n")
        words = ["qrsh", "-inherit", "-V", self.host.name, "/bin/sh", str(script)]
        return PipeProcess(words, command, self.limits, ended=self._ended)

    def close(self) -> None:
        super().close()
        self._spool.remove()


class PbsdshConnection(TaskConnection):
    """A task of TORQUE's or PBS's task manager for each command."""

    launcher = "pbsdsh"

    def __init__(self, host: Host, limits: ConnectLimits = DEFAULT_LIMITS) -> None:
        super().__init__(host, limits)
        self._spool = Spool.local()

    def _begin(self, command: str) -> RemoteProcess:
        def launch(script: str) -> subprocess.Popen[bytes]:
            # Never to be killed: after that, later ones of the job fail (seen with 6.1.3). It ends with its task.
            return subprocess.Popen(
                ["pbsdsh", "-h", self.host.name, "/bin/sh", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

        return SpooledProcess(self._spool, launch, command, self.limits, ended=self._ended)

    def close(self) -> None:
        super().close()
        self._spool.remove()


CONNECTIONS: dict[str, type[TaskConnection]] = {
    kind.launcher: kind for kind in (SrunConnection, QrshConnection, PbsdshConnection)
}


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
