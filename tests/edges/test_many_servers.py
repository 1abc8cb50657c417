"""Hundreds of servers on a host: they come up as they are ready, and what does not fit is named."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from grid import GridError, LocalGrid
from grid.testing.probe import Probe


@pytest.mark.row("M09")
def test_512_servers_start_on_this_machine_and_all_answer() -> None:
    with LocalGrid(512, output=None) as g:
        sid = g.publish(Probe())
        assert len(g.servers[sid]) == 512 and g.failures == {}
        assert g.gather(g.broadcast(sid, "add"), 60) == [1] * 512
        g.release_all()


def limited(soft: int, hard: int, count: int) -> tuple[int, str]:
    """How many of `count` servers serve where so many descriptors are allowed, and what is said."""
    script = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
        from grid import LocalGrid
        from grid.testing.probe import Probe
        with LocalGrid({count}, output=None) as g:
            sid = g.publish(Probe())
            print(len(g.gather(g.broadcast(sid, "add"), 60)), len(g.servers[sid]))
            g.release_all()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answered, up = map(int, done.stdout.split())
    assert answered == up
    return up, done.stderr


@pytest.mark.row("M10")
def test_a_soft_limit_on_descriptors_is_raised_to_the_hard_one() -> None:
    assert limited(160, 4096, 60) == (60, "")


@pytest.mark.row("M10")
def test_servers_without_descriptors_are_named_and_the_rest_serves() -> None:
    up, said = limited(160, 160, 60)
    assert 5 < up < 60
    assert "Traceback" not in said and "ulimit -n is 160" in said
    assert f"the grid goes on with {up} of 60 servers" in said
    assert len(said.splitlines()) <= 3, said  # a line for each cause, not for each server


LOADER = """
import os
real, forks = os.fork, 0

def fork():
    global forks
    forks += 1
    if forks in (4, 6):  # the first one makes the zygote
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return real()

os.fork = fork
from grid.kernel import agent
agent.main(config, report)
"""


@pytest.mark.row("M10")
def test_servers_for_which_there_are_no_processes_are_named_and_the_rest_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "loader.py").write_text(LOADER)
    with LocalGrid(6, output=None) as g:
        g.set_loader(tmp_path, "loader.py")
        sid = g.publish(Probe())
        assert len(g.servers[sid]) == 4
        assert "2 servers did not start, with one cause" in caplog.text and "ulimit -u" in caplog.text
        assert g.gather(g.broadcast(sid, "add"), 60) == [1] * 4
        g.release_all()


@pytest.mark.row("M09", "G58")
def test_servers_that_wait_for_their_start_are_forgotten_when_their_service_ends() -> None:
    with LocalGrid(150, output=None, wait="first") as g:
        g.publish([])
        ended = threading.Event()

        def publish() -> None:
            try:
                g.publish(Probe(), wait="all")
            except GridError:
                ended.set()

        waiting = threading.Thread(target=publish)
        waiting.start()
        while not any(sid.startswith("Probe") for sid in g.servers):
            pass
        g.terminate(next(sid for sid in g.servers if sid.startswith("Probe")))
        waiting.join(60)
        assert ended.is_set()
        home = g._engine.fleet.homes[0]
        names = {server["name"] for server in home.ask("status")["servers"]}
        while any(name.startswith("Probe") for name in names):  # those that were up end now
            names = {server["name"] for server in home.ask("status")["servers"]}
        sid = g.publish(Probe())
        with g.acquire_service(sid, timeout=60) as probe:
            assert probe.add().get(60) == 1
