"""Environments of packages on hosts, from outside of any grid: which there are, which go, having one made in advance.

Lives here: asking each machine.
Elsewhere:  what happens there (`kernel/environments.py`), bringing one (`environments/travel.py`), tables
            (`cli/env.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from grid.care.errand import run_there
from grid.errors import PackagesError
from grid.extras import need
from grid.hosts import Host
from grid.kernel import environments
from grid.launch import connect
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits

PRUNE_S = 300.0


def look(host: Host | None, limits: ConnectLimits = DEFAULT_LIMITS) -> dict[str, Any]:
    """What is on a machine (None: this one): `place`, which machines may share, and `environments`.

    Raises:
        HostError: It can't be reached, or has no Python.
    """
    if host is None or host.ssh == "local":
        return environments.look_around()
    with connect(host, limits) as connection:
        found: dict[str, Any] = run_there(connection, environments.look_around)
        return found


def prune(
    host: Host | None, names: Sequence[str] | None, unused_s: float, limits: ConnectLimits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """Remove environments there; see `kernel.environments.prune`.

    Raises:
        HostError: It can't be reached, or has no Python.
    """
    wish = None if names is None else list(names)
    if host is None or host.ssh == "local":
        return environments.prune(wish, unused_s)
    with connect(host, limits) as connection:
        done: dict[str, Any] = run_there(connection, environments.prune, [wish, unused_s], PRUNE_S)
        return done


def word_of(host: Host, word: str | None) -> str | None:
    """What names the environment of a host: what was said now, else its entry; None if neither does."""
    word = word if host.environment is None or word is not None else host.environment
    return "" if word in (None, "none") and host.python_archive is not None else None if word == "none" else word


def bring(host: Host, word: str) -> Any:
    """Have an environment on a host; see `Environments.bring`.

    Raises:
        HostError: It can't be had there.
        MissingExtra: A library for that is missing here.
    """
    with connect(host) as connection:
        return _environments().bring(connection, word, host)


def examine(connection: Any, word: str) -> tuple[bool, str]:
    """Whether a host can have an environment, and how far it is; nothing is changed there. Raises HostError."""
    try:
        known, wheels = _environments().examine(connection, word)
    except PackagesError as exc:
        return False, str(exc)
    total = sum(wheel.size for wheel in wheels) / 1e6
    return True, "is there" if known else f"not there yet: {len(wheels)} packages, {total:.0f} MB"


def _environments() -> Any:
    need("environment:", "env", "packaging", *([] if sys.version_info >= (3, 11) else ["tomli"]))
    from grid.environments.travel import Environments  # its libraries are there

    return Environments()
