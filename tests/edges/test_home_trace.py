"""Timelines of real runs, by each way to ask for one; `grid top` in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from grid import LocalGrid, SSHGrid
from tests.models import Coin

ROOT = Path(__file__).parents[2]


class Model:
    def energy(self, x: float) -> float:
        return x * x

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def fail(self) -> None:
        raise ValueError("no")

    def die(self) -> None:
        os._exit(3)


def square(x: int) -> int:
    return x * x


def slices(path: Path) -> list[dict[str, Any]]:
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]


@pytest.mark.row("D03", "G44")
def test_a_run_is_written_call_by_call(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with LocalGrid(2, output=None, trace=path) as g:
        sid = g.publish(Model())
        with g.acquire_service(sid) as proxy:
            results = [proxy.energy(float(n)) for n in range(100)]
            proxy.sleep(0.05).get()
            proxy.fail().exception()
            assert [result.get() for result in results][:3] == [0.0, 1.0, 4.0]
            name = proxy._server.name
        assert len(g.map(sid, "energy", range(50)).get()) == 50
        with g.pool() as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16] and pool.apply(square, (3,)) == 9
        with g.acquire_service(sid) as proxy:
            proxy.die().exception()
            dead = proxy._server.name
        assert g.trace is not None
        ElementTree.parse(g.trace.write(tmp_path / "run.svg"))
        assert "energy" in g.trace.write(tmp_path / "run.html").read_text()
        with pytest.raises(ValueError, match="ends in none"):
            g.trace.write(tmp_path / "run.png")
    events = json.loads(path.read_text())["traceEvents"]
    threads = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    assert {re.sub(r"/\d+", "", server) for server in threads} == {sid, next(s for s in threads if "Runner" in s)[:-2]}
    calls = [event for event in events if event["ph"] == "X"]
    here = [event for event in calls if event["tid"] == threads[name]]
    assert sum(event["name"] == "energy" for event in here) == 100
    (slept,) = [event for event in calls if event["name"] == "sleep"]
    assert slept["dur"] >= 50_000
    outcomes = {event["name"]: event["args"]["outcome"] for event in calls}
    assert (outcomes["fail"], outcomes["die"], outcomes["sleep"]) == ("error", "lost", "ok")
    packs = [re.fullmatch(r"(\w+) x (\d+)", event["name"]) for event in calls]
    assert sum(int(pack[2]) for pack in packs if pack and pack[1] == "energy") == 50
    assert sum(int(pack[2]) for pack in packs if pack and pack[1] == "square") == 5
    assert "square" in [event["name"] for event in calls]
    (lost,) = [event for event in events if event["ph"] == "i"]
    assert lost["tid"] == threads[dead] and "exit status 3" in lost["args"]["why"]
    for tid in threads.values():  # one call at a time
        mine = sorted((event["ts"], event["ts"] + event["dur"]) for event in calls if event["tid"] == tid)
        assert all(end <= begin + 0.21 for (_, end), (begin, _) in pairwise(mine))


@pytest.mark.row("D03")
def test_without_a_trace_servers_have_none(tmp_path: Path) -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Model())
        assert g.trace is None and g.servers[sid][0].hooks == ()
    with pytest.raises(ValueError, match="ends in none"):
        LocalGrid(1, trace=tmp_path / "x.png")


@pytest.mark.row("D03", "D07")
def test_over_ssh_a_host_is_a_process_of_the_trace(lab: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    with SSHGrid(["s1", "s2"], output=None, trace=tmp_path / "t.json") as g:
        sid = g.publish(Coin(), wait="all")
        g.gather(g.broadcast(sid, "set_temperature", 2.0))
        g.release_all()
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert {event["args"]["name"] for event in events if event["name"] == "process_name"} == {"s1", "s2"}
    assert {event["pid"] for event in events if event["ph"] == "X"} == {1, 2}


SCRIPT = """
import sys
from grid import Grid
class Model:
    def energy(self, x): return x * x
if __name__ == "__main__":
    with Grid.auto(output=None) as g:
        sid = g.publish(Model())
        print(sum(g.map(sid, "energy", range(10))), flush=True)
        if len(sys.argv) > 1:
            proxy = g.acquire_service(sid)
            sys.stdin.readline()
"""


@pytest.mark.row("D03", "D04")
def test_a_script_is_traced_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(SCRIPT)

    def grid(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "grid", "run", "--local", "1", *words, "fit.py"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)

    assert grid("--trace", "fit.json").stdout == "285\n"
    assert sum(int(event["name"].split()[-1]) for event in slices(tmp_path / "fit.json")) == 10
    refused = grid("--trace", "fit.png")
    assert refused.returncode == 2 and "--trace" in refused.stderr and ".html" in refused.stderr


@pytest.mark.row("D04", "R01")
def test_top_shows_a_running_grid_until_it_ends(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRID_LOCAL": "2", "TERM": "xterm"}
    environment.update(COLUMNS="120", LINES="40")
    script = subprocess.Popen(
        [sys.executable, "fit.py", "wait"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert script.stdin is not None and script.stdout is not None
    ours, theirs = pty.openpty()
    try:
        assert script.stdout.readline() == "285\n"
        command = [sys.executable, "-m", "grid", "top", "--interval", "0.1"]
        top = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=tmp_path)
        seen = read_until(ours, "acquired, no call under way")
        assert "Model.0" in seen and "fit.py-" in seen and "1 of 1 hosts up" in seen
        top.send_signal(signal.SIGINT)
        read_until(ours, "interrupted")
        assert top.wait(30) == 130
        top = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=tmp_path)
        read_until(ours, "Model.0/0")
        script.stdin.close()
        read_until(ours, "no grid runs any more")
        assert top.wait(30) == 0
    finally:
        script.stdin.close()
        script.wait(30)
        script.stdout.close()
        os.close(ours)
        os.close(theirs)
    piped = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    assert piped.returncode == 2 and "grid status --watch" in piped.stderr


def read_until(terminal: int, words: str) -> str:
    seen, deadline = "", time.monotonic() + 30
    while words not in seen:
        assert time.monotonic() < deadline, seen[-2000:]
        if select.select([terminal], [], [], 0.5)[0]:
            seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(terminal, 65536).decode(errors="replace"))
    return seen
