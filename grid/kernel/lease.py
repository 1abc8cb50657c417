"""Leases: a written record, on each host, of which grid holds processes there, for whom, and until when.

One file for each agent in the user's runtime directory, renewed while the agent lives and gone when it ends. A file
that has outlived its agent, or its expiry, belongs to a crashed run: `grid clean` ends what is left of it.

Lives here: the record, writing, reading, telling whether its processes live.
Elsewhere:  renewing (`agent`), listing over hosts (`cli/`).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from grid.kernel import held
from grid.wire.places import private_dir, runtime_dir


def lease_dir() -> Path:
    """Where this host's leases of this user lie."""
    return private_dir(runtime_dir() / "leases")


def start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot (proc(5), field 22); None if there is none.

    A pid is used again; pid and start together are not.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            return None if fields[0] in (b"Z", b"X") else int(fields[19])  # a zombie is dead
    except (OSError, IndexError, ValueError):
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return 0  # no /proc here


def inherit(config: dict[str, Any]) -> list[str]:
    """The files of a client on this machine that its agent removes in its place: all of them once it is dead."""
    client = config["client"]
    return [] if start_ticks(client["pid"]) == client["started"] else list(client["leaves"])


class Lease:
    """The agent's own lease."""

    def __init__(self, grid_id: str, facts: dict[str, Any]) -> None:
        self.path = lease_dir() / f"{grid_id}-{os.uname().nodename}-{os.getpid()}.json"
        self._facts = {
            "grid": grid_id,
            "host": os.uname().nodename,
            "agent": os.getpid(),
            "agent_started": start_ticks(os.getpid()),
            "namespace": held.namespace(),
            "began": time.time(),
            **facts,
        }

    def name_zygote(self, pid: int) -> None:
        """The process that forks the servers, which outlives the agent for the moment that it takes to clear up."""
        self._facts["zygote"] = [pid, start_ticks(pid)]

    def renew(
        self,
        lasts_s: float,
        servers: dict[str, int],
        kept_until: float | None = None,
        slots: dict[str, str] | None = None,
    ) -> None:
        """Write it anew: good for `lasts_s` seconds.

        Args:
            servers: Name -> pid.
            kept_until: Until when it waits for its client.
            slots: Name -> cores, devices and memory that this server has for itself, in words.
        """
        processes = {name: [pid, start_ticks(pid)] for name, pid in servers.items()}
        record = {**self._facts, "renewed": time.time(), "expires": time.time() + lasts_s, "servers": processes}
        record["slots"] = slots or {}
        if kept_until is not None:
            record["kept_until"] = kept_until
        scratch = self.path.with_suffix(".new")
        scratch.write_text(json.dumps(record))
        os.replace(scratch, self.path)

    def end(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)


def read_leases() -> list[dict[str, Any]]:
    """All leases of this user on this host.

    Each with `path`, `expired`, and `alive`: pids of it that still run; and with `held`: whether its run's directory is
    locked (`held`), which says that it lives where its pids mean nothing here, in another pid namespace.
    """
    found = []
    here = held.namespace()
    for path in sorted(lease_dir().glob("*.json")):
        try:
            record = json.loads(path.read_text())
            if record["host"] != os.uname().nodename:
                continue  # a directory shared between hosts
            processes = [(record["agent"], record["agent_started"]), *map(tuple, record["servers"].values())]
            processes += [tuple(record["zygote"])] if "zygote" in record else []
            native = record.setdefault("namespace", here) == here
            live = [pid for pid, started in processes if started is not None and start_ticks(pid) == started]
            record["alive"], record["native"] = live if native else [], native
            record["held"] = held.is_held(Path(record["run"]))
            record["path"] = str(path)
            record["expired"] = record["expires"] < time.time()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # half written or not ours
        found.append(record)
    return found
