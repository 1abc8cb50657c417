"""Leases and what crashed runs left, on this machine and on hosts: looking, choosing, clearing.

Lives here: the choice, as a function from looks to what may go; asking machines for looks.
Elsewhere:  what happens on the machine (`kernel/remains.py`), how it gets there (`errand.py`), tables (`cli/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grid.care.errand import run_there
from grid.hosts import Host
from grid.kernel import remains
from grid.launch import connect
from grid.launch.limits import DEFAULT_LIMITS, ConnectLimits

UNCLAIMED_S = 600.0
"""What no lease lists may be of a run that is just starting: so long it is left alone."""

_YOUNG = {"packages": 30 * 86400.0}
"""The same for other kinds of things. A kernel that runs in an environment touches it each hour."""

CLEAR_S = 300.0


@dataclass
class Choice:
    """Things to remove on one machine. `reasons` gives the reason for each path or lease."""

    leases: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing is to be removed."""
        return not self.leases and not self.paths


def look(host: Host | None, temp_paths: Sequence[str] = (), limits: ConnectLimits = DEFAULT_LIMITS) -> dict[str, Any]:
    """What grids hold on a host (None: this machine); see `kernel.remains.look`.

    Raises:
        HostError: It can't be reached, or has no Python.
    """
    if host is None or host.ssh == "local":
        return remains.look(temp_paths)
    with connect(host, limits) as connection:
        facts: dict[str, Any] = run_there(connection, remains.look, [list(temp_paths)])
        return facts


def clear(host: Host | None, choice: Choice, limits: ConnectLimits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Remove what was chosen there; see `kernel.remains.clear`.

    Raises:
        HostError: It can't be reached any more.
    """
    wish = {"leases": choice.leases, "paths": choice.paths, "spare": choice.spare}
    if host is None or host.ssh == "local":
        return remains.clear(wish)
    with connect(host, limits) as connection:
        done: dict[str, Any] = run_there(connection, remains.clear, [wish], CLEAR_S)
        return done


def choose(looks: Mapping[str, Mapping[str, Any]], *, complete: bool) -> dict[str, Choice]:
    """What may go, machine by machine; the same looks give the same choice.

    Args:
        looks: A name for each machine -> its look.
        complete: Whether every machine that could hold a part of the same grids was looked at. If not, directories
            that several hosts share stay.
    """
    clients = {grid for facts in looks.values() for grid in facts["clients"]}
    living = clients | {
        lease["grid"] for facts in looks.values() for lease in facts["leases"] if lease["state"] == "alive"
    }
    return {name: _choose_one(facts, clients, living, complete) for name, facts in looks.items()}


def _choose_one(facts: Mapping[str, Any], clients: set[str], living: set[str], complete: bool) -> Choice:
    choice = Choice()
    for lease in facts["leases"]:
        if lease["state"] == "alive" or (lease["state"] == "expired" and lease["grid"] in clients):
            continue  # an agent that can't write its lease (a full disk) still has its client
        overdue = facts["now"] - lease["expires"]
        why = "its agent has ended" if lease["state"] == "dead" else f"it expired {overdue:.0f} s ago"
        choice.leases.append(lease["path"])
        choice.reasons[lease["path"]] = why
        for directory in lease.get("directories", ()):
            if directory.endswith("-shared") and (lease["grid"] in living or not complete):
                choice.spare.append(directory)
    for one in facts["loose"]:
        if one["elsewhere"] or one["grid"] in living or (one["in_use"] and one["kind"] != "ssh"):
            continue
        if one["path"].endswith("-shared") and not complete:
            continue
        if one["age_s"] is not None and one["age_s"] < _YOUNG.get(one["kind"], UNCLAIMED_S):
            continue
        choice.paths.append(one["path"])
        choice.reasons[one["path"]] = _WHY[one["kind"]]
    return choice


_WHY = {
    "grid": "registration of a grid whose process has ended",
    "ssh": "of an ssh connection whose process has ended",
    "run": "directory of a run that no lease lists",
    "code": "code of a run that no lease lists",
    "sockets": "sockets of a run that no lease lists",
    "spool": "input and output of kernels in a batch job whose client has ended",
    "pilot": "files of a batch job of ours that has ended",
    "packages": "environment of packages that no kernel used for 30 days",
    "memory": "shared memory of a run that no lease lists",
}
