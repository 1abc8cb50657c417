"""Which packages servers have on each host: those of an environment that travels, or what is installed there.

Lives here: `Packages` of one grid: whose word counts for a host, and the interpreter that comes of it.
Elsewhere:  the environment itself (`environments/`), what a message needs there (`needs.py`).
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from grid.extras import need
from grid.hosts import Host
from grid.launch import Connection
from grid.launch.command import python_of

if TYPE_CHECKING:
    from grid.environments.travel import Environments

VARIABLE = "GRID_ENVIRONMENT"
"""What a grid takes that names no environment itself: `grid run --environment` sets it."""
NONE = "none"
"""On this host no environment, whatever the grid says."""


class Packages:
    """See the module. Any thread.

    Args:
        word: As of `Grid(environment=)`.
    Raises:
        PackagesError: It names no file here.
    """

    def __init__(self, word: str | os.PathLike[str] | None) -> None:
        said = os.environ.get(VARIABLE) if word is None else os.fspath(word)
        self._word = said or NONE
        if self._word != NONE:
            self._word = checked(self._word)
        self._lock = threading.Lock()
        self._environments: Environments | None = None

    def word_for(self, host: Host) -> str:
        """What names its environment; `NONE` if it has none."""
        word = self._word if host.environment is None else host.environment
        near = host.ssh not in ("paramiko", "openssh")  # this machine, or a node of our job, which sees what we see
        if word == "here" and near and python_of(host) == sys.executable:
            return NONE
        return "" if word == NONE and host.python_archive is not None else word

    def bring(self, connection: Connection, host: Host) -> str | None:
        """Have its environment on a host; the interpreter there, or None where it has none of its own.

        Args:
            connection: That leads to the host, or to a machine with the same home directory.
        Raises:
            HostError: It can't be had there.
            MissingExtra: A library for that is missing here.
        """
        word = self.word_for(host)
        if word == NONE:
            return None
        need("environment:", "env", "packaging", *([] if sys.version_info >= (3, 11) else ["tomli"]))
        with self._lock:
            if self._environments is None:
                from grid.environments.travel import Environments  # its libraries are there

                self._environments = Environments()
        return self._environments.bring(connection, word, host).python


def checked(word: str) -> str:
    """The word with an absolute path, so that the script may change its directory. Raises PackagesError."""
    from grid.environments.wanted import wanted

    return wanted(word).path or word
