"""Hosts and servers as the page and /hosts tell of them, out of what a grid says."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest

from grid.web.places import hosts_of

pytestmark = pytest.mark.row("J17")


def server(name: str, host: str, state: str) -> dict[str, str]:
    return {"name": name, "host": host, "state": state}


class GridEngine:
    """An engine over a grid of two hosts, one of which did not start."""

    _workers = "w"
    _runners = ("r",)

    class grid:
        @staticmethod
        def status() -> dict[str, Any]:
            return {
                "grid": "SSHGrid",
                "hosts": ["n1", "n2"],
                "failures": {"n3": "no way"},
                "homes": [{"host": "n2", "state": "unreachable"}],
                "services": {
                    "w": {"servers": [server("w/0", "n1", "acquired"), server("w/1", "n1", "free")]},
                    "r": {"servers": [server("r/0", "n1", "acquired"), server("r/1", "n2", "free")]},
                    "mine": {"servers": [server("m/0", "n2", "acquired")]},
                },
            }


def test_busy_and_free_are_servers_of_units_and_places_are_of_jobs() -> None:
    found = hosts_of(GridEngine())  # type: ignore[arg-type]
    assert (found["grid"], found["busy"], found["free"], found["running"], found["places"]) == ("SSHGrid", 1, 1, 1, 2)
    assert [(host["host"], host["state"], host["busy"], host["free"]) for host in found["hosts"]] == [
        ("n1", "up", 1, 1),
        ("n2", "unreachable", 0, 0),
        ("n3", "failed", 0, 0),
    ]
    does = {each["name"]: each["does"] for host in found["hosts"] for each in host["servers"]}
    assert does == {"w/0": "units", "w/1": "units", "r/0": "jobs", "r/1": "jobs", "m/0": "other"}


def test_threads_of_this_process_are_one_host() -> None:
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    free.put(1)
    engine = SimpleNamespace(_n={"runner": 2, "worker": 3}, _free={"runner": queue.SimpleQueue(), "worker": free})
    found = hosts_of(engine)  # type: ignore[arg-type]
    (host,) = found["hosts"]
    assert (host["host"], host["busy"], host["free"], found["running"], found["places"]) == ("here", 2, 1, 2, 2)
