"""Login shells that tests want: a list of names, not of what this machine happens to have.

A list made from what is there is a check that can't fail: 63 cases vanished once, because no shell was installed.
"""

from __future__ import annotations

import shutil

from tests.lab.ground import MissingPart

LOGIN_SHELLS = ("csh", "tcsh", "fish", "zsh", "ksh")
"""Those that treat a command line in ways of their own; `scripts/test` installs them."""


def shell_path(name: str) -> str:
    """Where a shell is. Raises MissingPart: skipped at a desk, a failure where CI=true."""
    path = shutil.which(name)
    if path is None:
        raise MissingPart(f"Debian package {name} is not installed")
    return path
