"""Test hosts on one Debian machine: each with its own network, name, processes, /tmp, home and a real OpenSSH sshd.

`Lab` is a set of them, `LabHost` says what one should be like, `MissingPart` says why this machine can't have it.
Needs root and the Debian packages that `scripts/test` installs; stands on nothing else.
"""

from tests.lab.ground import MissingPart, MissingPython, MissingUnpacked, missing_parts
from tests.lab.host import LabHost, RunningHost
from tests.lab.lab import Lab
from tests.lab.shells import LOGIN_SHELLS, shell_path

__all__ = [
    "LOGIN_SHELLS",
    "Lab",
    "LabHost",
    "MissingPart",
    "MissingPython",
    "MissingUnpacked",
    "RunningHost",
    "missing_parts",
    "shell_path",
]
