"""Finds things that hide this installation from scripts: another project named grid, a file or folder of that name.

The distribution is `sshgrid`; the module is `grid`, as is that of a project on PyPI. Whichever was installed last wins,
and a `grid.py` beside a script wins over both.

Lives here: looking, at the client.
Elsewhere:  the steps of a host (`doctor`), how an editable install is found beside its clone (`setup.cfg`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from grid.care.doctor import Step

DISTRIBUTION = "sshgrid"
_ASK = "import grid; print(getattr(grid, '__file__', None) or ''); from grid import LocalGrid"
_LIMIT_S = 20.0


def look_here() -> Step | None:
    """A failed step if a script in the working directory would not get this grid; None if all is well."""
    return _another_project() or _hidden()


def _another_project() -> Step | None:
    """A distribution named `grid` in this environment: its files and ours are in one folder."""
    try:
        other = metadata.distribution("grid")
    except metadata.PackageNotFoundError:
        return None
    python = sys.executable or "python3"
    about = str(other.metadata["Summary"] or "")
    if about.startswith("Run your Python objects on hosts"):
        what = f"this project is installed under its former name, too: grid {other.version}"
    else:
        what = f"another project is in this environment: grid {other.version} ({about})"
    return Step(
        "install",
        False,
        f"{what}. Both bring the module grid, and the one that was installed last wins",
        f"{python} -m pip uninstall grid; then install {DISTRIBUTION} again, as you did",
    )


def _hidden() -> Step | None:
    """Ask a Python that starts in the working directory, as a script there would."""
    ours = Path(__file__).parents[1] / "__init__.py"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # no Python to ask: then no script of this environment runs either
    where = (done.stdout.splitlines() or [""])[0]
    if where and os.path.realpath(where) == os.path.realpath(ours):
        return None
    folder = Path.cwd() / "grid"
    hiding = where or (f"the folder {folder}" if folder.is_dir() else "")
    if not hiding:
        return None  # it fails in another way, which says itself why
    return Step(
        "install",
        False,
        f"a script in {Path.cwd()} imports {hiding} and not this grid ({ours.parent})",
        "Rename that file or folder, or run scripts from another directory"
        if where
        else f"Install again from the clone, which no folder hides: {sys.executable} -m pip install -e CLONE",
    )
