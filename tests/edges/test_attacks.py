"""Attacks on a running grid, by who holds no key of it: strangers on the network, other users of its hosts.

Each was seen to succeed once. The rightful client goes on as if nobody were there.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from grid import Grid, Host, Limits, SSHGrid
from grid.testing.probe import Probe
from tests.edges.crowd import GREETING, HUGE, Crowd
from tests.lab import Lab, LabHost
from tests.lab.titles import is_kernel

pytestmark = pytest.mark.lab

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=2.0, stop_s=1.0, start_s=20.0)

EACH, FOR_S = map(int, os.environ.get("GRID_CROWD", "400:3").split(":"))
"""Strangers at each port, and for how long; `scripts/nightly` has 2,000 for 120 s."""
MEMORY_MB = 64

KNOCK = """
import json, socket, sys
for address, port in json.loads(sys.argv[1]):
    for _ in range(20):
        socket.create_connection((address, port), 5).close()
        with socket.create_connection((address, port), 5) as line:
            line.sendall(bytes(70))
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with Lab([LabHost("one"), LabHost("two")], users=("mara", "eve")) as lab:
        yield lab


@pytest.fixture(autouse=True)
def ssh_config(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


def ports_of(g: Grid) -> dict[str, list[tuple[str, int]]]:
    """Every TCP port of a grid by host: its agents', its servers', its lanes'."""
    found: dict[str, list[tuple[str, int]]] = {}
    for home in g._engine.fleet.homes:
        ends = [end for pair in home._tunnels.values() for end in pair]
        pairs = [re.fullmatch(r"tcp://(.*):(\d+)", end) for end in ends]
        here = [(pair[1], int(pair[2])) for pair in pairs if pair is not None]
        found[home.host.label] = [*here, (here[0][0], home.report["lane_port"])]
    return found


@pytest.mark.row("X01")
@pytest.mark.parametrize("transport", ["direct", "tunnel"])
def test_a_port_scan_ends_nobodys_grid(net: Lab, transport: str) -> None:
    hosts = [Host(name, transport=transport) for name in net.hosts]  # type: ignore[arg-type]
    with SSHGrid(hosts, limits=QUICK, output=None) as g:
        sid = g.publish(Probe(), wait="all", timeout=30)
        proxies = [g.acquire_service(sid) for _ in hosts]
        for name, ports in ports_of(g).items():
            assert len(ports) == 5  # inlet and outlet of agent and server, and the lane
            done = net.hosts[name].run(["python3", "-c", KNOCK, json.dumps(ports)], user="eve")
            assert done.returncode == 0, done.stderr
            if transport == "direct":
                scan(ports)
        calls = calls_for(4 * QUICK.orphan_s, lambda: [proxy.add() for proxy in proxies])
        assert [proxy.count for proxy in proxies] == [calls] * 2
        assert not g.failures


def scan(ports: list[tuple[str, int]]) -> None:
    for port in ports:
        for _ in range(20):
            socket.create_connection(port, 5).close()


def calls_for(seconds: float, call: Callable[[], list]) -> int:  # type: ignore[type-arg]
    """Call all that time and look at every outcome; how often."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        count += 1
        for result in call():
            assert result.get(10) == count
        time.sleep(0.01)
    return count


@pytest.mark.row("X01")
def test_a_client_deep_in_c_code_keeps_its_grid(net: Lab) -> None:
    with SSHGrid([Host("one", transport="direct")], limits=QUICK, output=None) as g:
        with g.acquire_service(g.publish(Probe())) as proxy:
            assert proxy.add().get(10) == 1
            hold_the_interpreter(2 * QUICK.orphan_s)
            assert proxy.add().get(10) == 2


def hold_the_interpreter(seconds: float) -> None:
    """Not one thread of this process runs Python meanwhile."""
    import ctypes

    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@pytest.mark.row("X02", "X03")
@pytest.mark.parametrize("transport", ["direct", "tunnel"])
def test_a_crowd_of_strangers_on_every_port_slows_nobody_and_costs_little(net: Lab, transport: str) -> None:
    hosts = [Host(name, transport=transport, init_cmd="ulimit -Sn 1024;") for name in net.hosts]  # type: ignore[arg-type]
    limits = Limits(stop_s=2.0, start_s=30.0)
    with ExitStack() as stack:
        # `other` has no strangers, and the same machine under the same load
        g, other = (stack.enter_context(SSHGrid(hosts, limits=limits, output=None)) for _ in range(2))
        proxies, witnesses = ([each.acquire_service(sid) for _ in hosts] for each, sid in published(g, other))
        calm = [slow_call(proxy.add, witness.add, 1.0) for proxy, witness in zip(proxies, witnesses, strict=True)]
        before = memory(net)
        for name, ports in ports_of(g).items():
            for port in ports:
                host = net.hosts[name] if transport == "tunnel" else None
                stack.enter_context(Crowd([port], EACH, (b"", b"", b"", b"\xff", GREETING), host=host))
        end, crowded, newcomers = time.monotonic() + FOR_S, [], []
        while time.monotonic() < end:
            for proxy, witness in zip(proxies, witnesses, strict=True):
                crowded.append(slow_call(proxy.add, witness.add, 1.0))
            newcomers.append(served(g))
        after = memory(net)
        report(f"{transport}: p99 calm {calm}, crowded {crowded}; newcomers {newcomers}; grown {grown(before, after)}")
        assert min(here / there for here, there in crowded) <= 3
        assert min(newcomers) < 1.0
        assert max(grown(before, after)) <= MEMORY_MB
        assert not g.failures


@pytest.mark.row("X03")
def test_strangers_who_announce_a_gigabyte_and_send_it_are_hung_up_on(net: Lab) -> None:
    with SSHGrid([Host("one", transport="direct")], limits=QUICK, output=None) as g:
        sid = g.publish(Probe(), wait="all", timeout=30)
        with g.acquire_service(sid) as proxy:
            assert proxy.add().get(10) == 1
            before = memory(net)
            ports = [port for port in ports_of(g)["one"] if port[1] != g._engine.fleet.homes[0].report["lane_port"]]
            with Crowd(ports, 10, (HUGE,), floods=True):
                most = [0]
                for _ in range(20):
                    proxy.echo(b"x").get(10)
                    most += grown(before, memory(net))
                    time.sleep(0.05)
            assert max(most) <= MEMORY_MB


def published(*grids: Grid) -> list[tuple[Grid, str]]:
    return [(g, g.publish(Probe(), wait="all", timeout=60)) for g in grids]


def slow_call(call: Callable[[], object], other: Callable[[], object], seconds: float) -> tuple[float, float]:
    """The times that 99 of 100 calls stay below, of both side by side, in ms; every call is answered."""
    took: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for each, times in zip((call, other), took, strict=True):
            began = time.perf_counter()
            each().get(30)  # type: ignore[attr-defined]
            times.append(time.perf_counter() - began)
        time.sleep(0.002)
    here, there = (round(sorted(times)[int(0.99 * len(times))] * 1000, 2) for times in took)
    return here, there


def served(g: Grid) -> float:
    """How long it takes from publishing anew to a large result over a new connection, in seconds."""
    began = time.perf_counter()
    sid = g.publish(Probe(), wait="all", timeout=60)
    with g.acquire_service(sid) as proxy:
        assert len(proxy.echo(bytes(2_000_000)).get(60)) == 2_000_000
    took = time.perf_counter() - began
    g.terminate(sid)
    return round(took, 2)


def memory(net: Lab) -> dict[int, int]:
    """MB of each of our processes on all hosts."""
    found = {}
    for host in net.hosts.values():
        for pid, command in host.processes():
            if is_kernel(command):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue  # it has just ended
                if resident := re.search(r"VmRSS:\s+(\d+)", status):  # one that ends has none
                    found[pid] = int(resident[1]) // 1024
    return found


def grown(before: dict[int, int], after: dict[int, int]) -> list[int]:
    return [after[pid] - before[pid] for pid in before if pid in after]


def report(line: str) -> None:
    """Figures for who ran the long version."""
    if "GRID_CROWD" in os.environ:
        print(line)
