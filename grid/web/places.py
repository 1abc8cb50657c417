"""The hosts and servers on which jobs run: which are busy, which are free.

Lives here: `hosts_of`.
Elsewhere:  engines (`jobs/engine.py`), what a grid says of itself (`grids/abstract.py`).
"""

from __future__ import annotations

from typing import Any

from grid.jobs.engine import Engine


def hosts_of(engine: Engine) -> dict[str, Any]:
    """`grid`, `busy`, `free`, `hosts`: each with `host`, `state`, `busy`, `free`, `servers` (name, does, state).

    Servers that run jobs and those that do units are two services on the same hosts; `busy` and `free` count both.
    """
    grid = getattr(engine, "grid", None)
    if grid is None:
        kind, homes, servers = type(engine).__name__, {"here": "up"}, list(_threads(engine))
    else:
        status = grid.status()
        kind = status["grid"]
        homes = dict.fromkeys(status["hosts"], "up") | dict.fromkeys(status["failures"], "failed")
        homes |= {home["host"]: home["state"] for home in status.get("homes", ())}
        does = {getattr(engine, "_workers", ""): "units", **dict.fromkeys(getattr(engine, "_runners", ()), "jobs")}
        servers = [
            (server["host"], {"name": server["name"], "does": does.get(service, "other"), "state": server["state"]})
            for service, found in status["services"].items()
            for server in found["servers"]
        ]
    hosts = []
    for label in dict.fromkeys([*homes, *(host for host, _ in servers)]):
        here = [server for host, server in servers if host == label]
        busy = sum(server["state"] == "acquired" for server in here)
        free = sum(server["state"] == "free" for server in here)
        state = homes.get(label, "up")
        hosts.append({"host": label, "state": state, "busy": busy, "free": free, "servers": here})
    return {
        "grid": kind,
        "busy": sum(host["busy"] for host in hosts),
        "free": sum(host["free"] for host in hosts),
        "hosts": hosts,
    }


def _threads(engine: Any) -> Any:
    for kind, does in (("runner", "jobs"), ("worker", "units")):
        number, pool = getattr(engine, "_n", {}).get(kind, 0), getattr(engine, "_free", {}).get(kind)
        free = pool.qsize() if pool is not None else 0
        for index in range(number):
            yield "here", {"name": f"{kind}/{index}", "does": does, "state": "free" if index < free else "acquired"}
