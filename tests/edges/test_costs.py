"""What calls cost is known to the caller, and as sums to `grid status`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from grid import LocalGrid

pytestmark = pytest.mark.row("I04")


class Model:
    def burn(self, seconds: float) -> int:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
        return os.getpid()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def grow(self, size: int) -> int:
        return len(bytearray(b"x") * size)

    def same(self, value: Any) -> Any:
        return value

    def fail(self) -> None:
        time.sleep(0.01)
        raise ValueError("no")


def grid(*words: str) -> str:
    """The output of a command."""
    return subprocess.run(
        [sys.executable, "-m", "grid", *words], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_a_call_tells_what_it_took_and_how_long_it_waited() -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Model())
        with g.acquire_service(sid) as proxy:
            slept, burnt = proxy.sleep(0.3), proxy.burn(0.2)
            grown, failed = proxy.grow(150_000_000), proxy.fail()
            assert failed.exception() and proxy.same(1).get() == 1
            short = proxy.same(1)
            assert short.get() == 1
            first, second, third = slept.cost, burnt.cost, grown.cost
            assert first and second and third and failed.cost and short.cost
            assert first.cpu_s is not None and first.cpu_s < 0.2 <= (second.cpu_s or 0.0)
            assert first.running_s >= 0.3 and first.method == "sleep" and first.host == "localhost"
            assert second.waiting_s >= 0.2  # behind the first
            assert second.total_s == pytest.approx(second.waiting_s + second.on_the_way_s + second.running_s)
            assert (third.peak_memory or 0) >= 150_000_000 > (second.peak_memory or 0)
            assert failed.cost.cpu_s is not None and failed.cost.running_s >= 0.01
            assert first.energy_j is not None or first.energy_why
            large = proxy.same(np.ones(1_000_000))
            assert len(large.get()) == 1_000_000 and large.cost is not None
            assert 8_000_000 < large.cost.bytes_out < 8_001_000 and 8_000_000 < large.cost.bytes_in < 8_001_000
            assert json.loads(json.dumps(large.cost.as_dict()))["server"] == large.server.name
            hangs = proxy.sleep(0.2)
            assert hangs.cost is None  # not yet
            hangs.get()


def test_sums_of_a_service_outlive_its_servers() -> None:
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Model(), wait="all")
        for _ in range(2):
            with g.acquire_service(sid) as proxy:
                proxy.burn(0.1).get()
        with g.acquire_service(sid) as proxy:
            proxy._server.terminate()
        costs = g.status()["services"][sid]["costs"]
        assert costs["calls"] == 2 and costs["cpu_s"] >= 0.2 and costs["peak_memory"] > 1e6
        assert costs["bytes_out"] > 100 and costs["bytes_in"] > 100
        name = g.status()["name"]
        (told,) = json.loads(grid("status", name, "--json"))
        assert told["status"]["services"][sid]["costs"]["cpu_s"] == pytest.approx(costs["cpu_s"])
        *_, head, row = grid("status", name, "--costs").splitlines()
        assert head.split()[:3] == ["grid", "service", "calls"] and row.split()[1:3] == [sid, "2"]
