"""What grids have to tell as metrics: from the plain values of `status()` to families of OpenMetrics (pure).

Lives here: `of_grids`. Elsewhere: the text (`openmetrics.py`), who asks (`cli/running.py`, `web/metrics.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from grid.openmetrics import Family

_STATES = ("free", "acquired", "starting")


def of_grids(found: Sequence[Mapping[str, Any]]) -> list[Family]:
    """The families of these grids.

    Args:
        found: Of each its `id` and `name`, perhaps `began` (since 1970), and what its `status()` says as `status`; None
            there is for a grid that does not answer.
    """
    up = Family("grid_up", "gauge", "Whether the grid answers.")
    began = Family("grid_start_timestamp_seconds", "gauge", "When the grid was made, since 1970.")
    hosts = Family("grid_hosts", "gauge", "Hosts of the grid by state.")
    failures = Family("grid_failures", "gauge", "Hosts and servers that failed or were lost.")
    servers = Family("grid_servers", "gauge", "Servers of a service by state.")
    waiting = Family("grid_waiting_callers", "gauge", "Callers that wait for a server of the service.")
    calls = Family("grid_calls", "counter", "Calls that were answered.")
    running = Family("grid_call_running_seconds", "counter", "Run time of calls on their servers.")
    cpu = Family("grid_call_cpu_seconds", "counter", "CPU time of calls; short ones count with their run time.")
    sent = Family("grid_sent_bytes", "counter", "Bytes sent to servers.")
    received = Family("grid_received_bytes", "counter", "Bytes received from servers.")
    peak = Family("grid_server_peak_memory_bytes", "gauge", "The most memory that a server of the service has had.")
    energy = Family("grid_call_energy_joules", "counter", "What the processors took during calls, where that is known.")
    for one in found:
        about = {"grid": one["name"], "id": one["id"]}
        status = one["status"]
        up.add(status is not None, **about)
        began.add(one.get("began"), **about)
        if status is None:
            continue
        for state, count in sorted(Counter(home["state"] for home in status.get("homes", ())).items()):
            hosts.add(count, **about, state=state)
        failures.add(len(status["failures"]), **about)
        for service_id, service in status["services"].items():
            which = {**about, "service": service_id}
            for state in _STATES:
                servers.add(service[state], **which, state=state)
            waiting.add(service["waiting"], **which)
            costs = service.get("costs")
            if costs is not None:  # else it is of an older version
                calls.add(costs["calls"], **which)
                running.add(costs["running_s"], **which)
                cpu.add(costs["cpu_s"], **which)
                sent.add(costs["bytes_out"], **which)
                received.add(costs["bytes_in"], **which)
                peak.add(costs["peak_memory"], **which)
                energy.add(costs["energy_j"], **which)
    return [up, began, hosts, failures, servers, waiting, calls, running, cpu, sent, received, peak, energy]
