"""The machine where pilots are submitted: their files and their jobs, by commands of its shell.

Lives here: `LoginMachine`: one connection, made anew when it breaks; submitting, looking, polling, removing.
Elsewhere:  what is in the files (`pilots.py`), the batch system's commands (`grid/batch/`), when (`tending.py`).
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from grid.batch import BatchSystem, JobSpec, JobStatus
from grid.errors import AllocationError, GridError
from grid.grids import pilots
from grid.grids.pilots import Pilot, Rank
from grid.hosts import Host
from grid.launch import Connection, connect

logger = logging.getLogger(__name__)


Kernels = Callable[[Sequence[str]], Sequence[tuple[str, bytes]]]
"""Addresses of the login machine -> command and input of the kernel of each node."""


class LoginMachine:
    """See the module. Log in by `enter` before anything else."""

    def __init__(self, host: Host, dialect: str | None) -> None:
        self.host, self._dialect = host, dialect
        self._connection: Connection | None = None
        self._system: BatchSystem | None = None

    def enter(self) -> None:
        """Log in, and find the batch system.

        Raises:
            HostError: There is no way to it. AllocationError: It has no batch system.
        """
        self._connection = connect(self.host)
        self._system = BatchSystem(self._connection, self._dialect)

    def enter_again(self) -> None:
        """The log-in may have ended: servers with direct connections go on meanwhile. Raises GridError."""
        if not self.connection.alive():
            connection = connect(self.host)
            self._system = BatchSystem(connection, self._dialect)
            self._connection = connection

    def leave(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()

    @property
    def is_entered(self) -> bool:
        """Whether we have been logged in."""
        return self._connection is not None

    @property
    def connection(self) -> Connection:
        """The way there."""
        assert self._connection is not None
        return self._connection

    @property
    def system(self) -> BatchSystem:
        """Its batch system."""
        assert self._system is not None
        return self._system

    def submit(self, token: str, spec: JobSpec, kernels: Kernels) -> Pilot:
        """Put a pilot's files there and submit its job.

        Args:
            spec: All but where it runs and what.
            kernels: Called once the files have a place.
        Raises:
            AllocationError: The files can't be written, or the batch system refuses the job; with its own words.
        """
        directory, *addresses = self.connection.run(pilots.prepare_script(token)).text.split() or [""]
        if not directory.startswith("/"):
            raise AllocationError(
                f"{self.host.label!r} can't make a directory in ~/.grid/pilots", hint="Is the home directory full?"
            )
        command = f"exec /bin/sh {shlex.quote(directory)}/nodes.sh"  # SIGTERM for the job's script is for this one
        invited = kernels(addresses)
        pilot = Pilot(token, directory, command, spec.walltime_s or 0.0, [Rank(n) for n in range(len(invited))])
        files = pilots.pilot_files(directory, invited, self.system.dialect)
        try:
            done = self.connection.run(pilots.unpack_script(directory), stdin=files, timeout=600)
            if done.returncode:
                raise AllocationError(
                    f"{self.host.label!r} can't write to {directory}: {done.stderr.decode(errors='replace').strip()}",
                    hint="Is the home directory full?",
                )
            pilot.job = self.system.submit(replace(spec, workdir=directory, command=command))
        except BaseException:
            self.connection.run(pilots.remove_script(directory))
            raise
        pilot.state = "queued"
        return pilot

    def look(self, found: Sequence[Pilot]) -> None:
        """Put what is new in their files into these pilots. Raises GridError."""
        pilots.take_news(found, self.connection.run(pilots.look_script(found)).stdout)

    def poll(self, jobs: Sequence[str]) -> Mapping[str, JobStatus]:
        """What the batch system says of these jobs. Raises GridError."""
        return self.system.status(list(jobs))

    def remove_files(self, token: str) -> None:
        """Remove the files of a pilot of which no more is known. Raises GridError."""
        self.connection.run(pilots.remove_token_script(token))

    def remove(self, pilot: Pilot) -> None:
        """Remove a pilot's files."""
        try:
            self.connection.run(pilots.remove_script(pilot.directory))
        except GridError as exc:
            logger.warning("%s is left on %s: %s", pilot.directory, self.host.label, exc)
