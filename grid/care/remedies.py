"""What to do about modules that a host lacks: a command that works as it stands.

Lives here: the sentence. Elsewhere: what is done then (`environment.py`).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from grid.hosts import Host


def remedy(host: Host, report: Mapping[str, Any], modules: Sequence[str]) -> str:
    """How a host comes to have `modules`.

    Args:
        report: What its kernel said of its interpreter: `executable`, and `pip`: whether that has pip.
    """
    names = packages_of(modules)
    executable = report["executable"]
    if "/.grid/env/" in executable and not re.search(r"/\.grid/env/py3\d+/", executable):
        return f"Add {' and '.join(names)} to the environment that is named for it (environment:)"
    by_pip = f"`{executable} -m pip install {' '.join(names)}` there" if report.get("pip") else ""
    if host.ssh == "local":
        return f"Run {by_pip}" if by_pip else f"Install them for {executable}"
    setup = f"`grid hosts setup {host.label} {' '.join(f'--with {name}' for name in names)}`"
    if host.python != "python":
        return f"Run {by_pip}" if by_pip else f"Install them for {executable}, or leave python: out and run {setup}"
    if host.ssh not in ("paramiko", "openssh"):  # a node of a job: it has what its login machine has
        return f"Run {by_pip}" if by_pip else f"Run {setup.replace(host.label, 'LOGIN')} for the login machine"
    ours = f"{os.sep}.grid{os.sep}env{os.sep}" in executable
    return f"Run {setup}" + (f", or {by_pip}" if by_pip and not ours else "")


def packages_of(modules: Sequence[str]) -> list[str]:
    """The packages that bring these modules, as far as this machine knows: `sklearn` is of `scikit-learn`."""
    known = importlib.metadata.packages_distributions()
    return list(dict.fromkeys(known.get(name.split(".")[0], [name])[0] for name in modules))
