"""Attacks on a running grid, by who holds no key of it: strangers on the network, other users of its hosts.

Each was seen to succeed once. The rightful client goes on as if nobody were there.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from grid import Grid, Host, Limits, SSHGrid
from grid.testing.probe import Probe
from tests.lab import Lab, LabHost

pytestmark = pytest.mark.lab

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=2.0, stop_s=1.0, start_s=20.0)

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
    for home in g._homes:
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
