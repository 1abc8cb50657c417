"""Kept grids over ssh: real sshd, direct and tunnelled; a host that can't be reached when another client comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grid import Grid, Host, SSHGrid
from grid.errors import ConnectError
from grid.keeping.places import names
from tests.edges.session_client import LIMITS, Counter
from tests.lab import Lab
from tests.lab.host import RunningHost
from tests.readme import SAYS, closing_the_laptop

pytestmark = pytest.mark.lab
NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))

CLIENT = """
import json, sys
from grid import Host, SSHGrid
from tests.edges.session_client import LIMITS, Counter
g = SSHGrid([Host("s1", transport=sys.argv[1]), Host("s2", transport=sys.argv[1])], name="lab", keep="10m",
            limits=LIMITS, output=None, wait="all")
sid = g.publish(Counter(""))
a, b = g.acquire_service(sid), g.acquire_service(sid)
b.add(1, 0.0).get()
slow, quick = a.add(3, 1.5).named("slow"), [proxy.add(number) for proxy in (a, b) for number in range(10)]
large = b.large(3_000_000).named("large")
print(json.dumps(sid), flush=True)
sys.stdin.read()
"""


def until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def ours(host: RunningHost) -> list[str]:
    return [command for _, command in host.processes() if "grid" in command or "i=getattr" in command]


@pytest.fixture(autouse=True)
def place(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("GRID_SESSIONS", str(tmp_path / "sessions"))


@pytest.mark.row("Z02", "Z03")
@pytest.mark.parametrize("transport", ["direct", "tunnel"] if NIGHTLY else ["tunnel"])
def test_over_ssh_a_killed_client_is_followed_by_another(lab: Lab, transport: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, transport],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None and process.stdout is not None
    sid = json.loads(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with Grid.attach("lab") as g:
        assert g.named("slow").get(30) == (3, 9)
        assert len(g.named("large").get(30)) == 3_000_000
        values = Tally(result.get(30) for result in g.results())
        values[1, 1] = min(values[1, 1], 2)  # the first call was fetched, and dropped just before the client was killed
        assert values == Tally(2 * [(number, number * number) for number in range(10)])
        with g.acquire_service(sid, timeout=20) as one, g.acquire_service(sid, timeout=20) as other:
            assert sorted([one.value().get(10), other.value().get(10)]) == [46, 48]
    assert names() == []
    until(lambda: ours(lab.hosts["s1"]) == ours(lab.hosts["s2"]) == [])  # their starters end a moment later


@pytest.mark.row("Z03", "Z06")
def test_a_host_that_is_cut_off_joins_when_it_comes(lab: Lab) -> None:
    hosts = [Host("s1", transport="direct"), Host("s2", transport="direct")]
    g = SSHGrid(hosts, name="lab", keep="10m", limits=LIMITS, output=None, wait="all")
    sid = g.publish(Counter(""))
    first, second = g.acquire_service(sid), g.acquire_service(sid)
    here, there = (first, second) if first._server.host.name == "s1" else (second, first)
    waits, comes = here.add(1).named("here"), there.add(2).named("there")
    assert waits.get(10) == (1, 1)
    del waits, comes, first, second, here, there
    g.detach()
    lab.hosts["s2"].cut()
    try:
        again = Grid.attach("lab")
        assert isinstance(again.failures["s2"], ConnectError) and len(again.servers[sid]) == 1
        with again.acquire_service(sid, timeout=20) as proxy:
            assert proxy.value().get(10) == 1
        waiting = again.named("there")
    finally:
        lab.hosts["s2"].mend()
    with again:
        assert waiting.get(40) == (2, 4)
        until(lambda: len(again.servers[sid]) == 2)
        assert "s2" not in again.failures
    assert names() == []
    until(lambda: ours(lab.hosts["s1"]) == ours(lab.hosts["s2"]) == [])  # their starters end a moment later


@pytest.mark.row("Z02", "Z03", "D04")
def test_the_laptop_is_closed_as_the_readme_says(lab: Lab, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    first, second = closing_the_laptop("SSHGrid", {"node1": "s1", "node2": "s2"})
    (tmp_path / "first.py").write_text(first)
    (tmp_path / "second.py").write_text(second)
    words: dict[str, Any] = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    killed = subprocess.run([sys.executable, "first.py"], **words)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run([sys.executable, "second.py"], **words)
    assert done.stdout == SAYS, done.stderr
    assert names() == []
    until(lambda: ours(lab.hosts["s1"]) == ours(lab.hosts["s2"]) == [])
