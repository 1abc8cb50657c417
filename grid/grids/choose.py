"""Which grid a place offers: the same script runs on a laptop, in a batch job and on hosts, unchanged.

Lives here: reading the variables and files that decide; this machine as a host.
Elsewhere:  making the grid (`Grid.auto`), hosts files (`hosts/`), the job that we are in (`launch/allocation.py`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grid.arguments import check, check_number
from grid.hosts import Host, choose_hosts, find_hosts_file
from grid.launch.allocation import find_allocation
from grid.launch.command import this_python
from grid.slots.cores import usable_cores


@dataclass(frozen=True, kw_only=True)
class Place:
    """What was found. One of `login`, `in_job` and `hosts` says which grid it is."""

    login: str | None = None
    """Where pilots are submitted; a dot means this machine."""
    resources: str = ""
    """What each pilot asks for."""
    in_job: bool = False
    """We are in a batch job."""
    hosts: list[Host] | None = None
    alone: bool = False
    """They are this machine, because nothing else is named."""
    file: str | None = None
    """The hosts file that they are from."""


def find_place(n: int | None, environ: Mapping[str, str]) -> Place:
    """See `Grid.auto`.

    Raises:
        ValueError, SpecError: A variable or a hosts file makes no sense.
    """
    local, named = environ.get("GRID_LOCAL"), environ.get("GRID_HOSTS")
    if environ.get("GRID_LOGIN"):
        return Place(login=environ["GRID_LOGIN"], resources=environ.get("GRID_RESOURCES", ""))
    if local:
        if not local.isdecimal() or int(local) < 1:
            raise ValueError(f"the variable GRID_LOCAL must be a number of servers, not {local!r}")
        return Place(hosts=[local_host(int(local))], alone=True)
    if not named and find_allocation(environ) is not None:
        return Place(in_job=True)
    is_file = not named or os.path.isfile(os.path.expanduser(named))
    hosts = choose_hosts(named, (environ.get("GRID_GROUP") or None) if is_file else None)
    if hosts is not None:
        return Place(hosts=hosts, file=str(named or find_hosts_file()) if is_file else None)
    return Place(hosts=[local_host(n)], alone=True)


def all_that_fit(kw: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a grid on one machine: without `wait` it waits for all servers, and goes on with what fits."""
    return kw if "wait" in kw else {"missing": "ok", **kw, "wait": "all"}


def local_host(n: int | None = None, python: str | None = None) -> Host:
    """This machine as a host with `n` servers for each service (default: as many as it has cores for us).

    Args:
        python: Another interpreter than ours.
    Raises:
        PythonError: Ours is none: this is a frozen application, and `python` is not given.
    """
    check_number("n", n, 1, int | None)
    check("python", python, str | None)
    if n is None:
        n = usable_cores()
    return Host("localhost", n_cpu=n, python=python or this_python(), ssh="local")
