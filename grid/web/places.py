"""The hosts and servers on which jobs run: which are busy, which are free.

Lives here: `hosts_of`.
Elsewhere:  engines (`jobs/manager/engine.py`), what a grid says of itself (`grids/abstract.py`).
"""

from __future__ import annotations

from typing import Any

from grid.jobs.manager.engine import Engine


def hosts_of(engine: Engine) -> dict[str, Any]:
    """`grid`, `busy`, `free`, `running`, `places` (jobs at work, and how many may be), and `hosts`: each with `host`,
    `state`, `busy`, `free`, `servers` (name, does, state).

    Servers that run jobs and those that do units are two services on the same hosts. `busy` and `free` count those that
    do units, as `grid serve` does; a server that runs a job mostly waits for them. `servers` lists both.
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
        units = [server["state"] for server in here if server["does"] == "units"]
        busy, free = units.count("acquired"), units.count("free")
        state = homes.get(label, "up")
        hosts.append({"host": label, "state": state, "busy": busy, "free": free, "servers": here})
    places = [server["state"] for _, server in servers if server["does"] == "jobs"]
    return {
        "grid": kind,
        "busy": sum(host["busy"] for host in hosts),
        "free": sum(host["free"] for host in hosts),
        "running": sum(does == "acquired" for does in places),
        "places": len(places),
        "hosts": hosts,
    }


def _threads(engine: Any) -> Any:
    for kind, does in (("runner", "jobs"), ("worker", "units")):
        number, pool = getattr(engine, "_n", {}).get(kind, 0), getattr(engine, "_free", {}).get(kind)
        free = pool.qsize() if pool is not None else 0
        for index in range(number):
            yield "here", {"name": f"{kind}/{index}", "does": does, "state": "free" if index < free else "acquired"}
