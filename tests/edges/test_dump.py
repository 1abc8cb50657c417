"""Where calls hang is found from outside, by `g.stacks()`, `grid dump` and messages of time limits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import Host, Limits, LocalGrid, SSHGrid
from grid.errors import UnknownService
from grid.services.proxy import Proxy
from tests.lab import Lab
from tests.lab.host import wait_until
from tests.models import Hangs

HERE = Path(__file__)


class Model:
    def in_c(self, begun: str) -> None:
        Path(begun).touch()
        re.match("(a+)+$", "a" * 60 + "b")  # never ends, and never lets go of the interpreter

    def in_a_lock(self, begun: str) -> None:
        lock = threading.Lock()
        lock.acquire()
        Path(begun).touch()
        lock.acquire()

    def pid(self) -> int:
        return os.getpid()


def begin(proxy: Proxy, method: str, tmp_path: Path) -> Any:
    """Have a call begin that never ends."""
    begun = tmp_path / f"{method}-{proxy._server.name.replace('/', '.')}"
    result = getattr(proxy, method)(str(begun))
    wait_until(begun.exists, f"{method} has begun")
    return result


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalGrid, str, Any]]:
    """A grid of which one server is deep in C code, one waits for a lock, and one is idle."""
    place = tmp_path_factory.mktemp("begun")
    with LocalGrid(3, output=None) as g:
        sid = g.publish(Model(), wait="all")
        proxies = [g.acquire_service(sid) for _ in range(2)]
        results = [begin(proxy, method, place) for proxy, method in zip(proxies, ("in_c", "in_a_lock"), strict=True)]
        yield g, sid, results
        g._engine.losses.end_at_once(list(g.servers[sid]))


@pytest.mark.row("I01")
def test_each_server_tells_its_line_and_the_script_its_own(stuck: tuple[LocalGrid, str, Any]) -> None:
    g, sid, _ = stuck
    by_doing = {stack.doing.split(" for ")[0]: stack for stack in g.stacks(sid) if "/" in stack.server}
    lines = HERE.read_text().splitlines()
    for method, source in (("in_c", "re.match("), ("in_a_lock", "lock.acquire()")):
        stack = by_doing[f"running {method!r}"]
        (frame,) = [frame for frame in stack.threads[0].users if frame.file == str(HERE)]
        assert frame.function == method and frame.source == lines[frame.line - 1].strip()
        assert frame.source.startswith(source) and not stack.why and (stack.seconds or 0) > 0
    assert by_doing["free"].at == "" and by_doing["free"].seconds is None
    *_, agent, client = g.stacks()
    assert agent.server == "agent" and agent.host == "localhost" and agent.at == "" and agent.threads
    assert client.server == "client" and client.pid == os.getpid()
    assert all(stack.server == "agent" or "/" in stack.server for stack in g.stacks(host="localhost"))


@pytest.mark.row("I01")
def test_what_is_not_there_is_named_with_what_is(stuck: tuple[LocalGrid, str, Any]) -> None:
    g, _, _ = stuck
    with pytest.raises(UnknownService):
        g.stacks("Nobody.7")
    with pytest.raises(ValueError, match=r"has no host 'elsewhere'\. It has: localhost"):
        g.stacks(host="elsewhere")


@pytest.mark.row("I03")
def test_the_message_of_a_time_limit_names_the_line(stuck: tuple[LocalGrid, str, Any]) -> None:
    _, _, (in_c, in_a_lock) = stuck
    with pytest.raises(TimeoutError, match=r"re/__init__.py:\d+ in match|/re.py:\d+ in match"):
        in_c.get(timeout=1)
    with pytest.raises(TimeoutError, match=rf"{re.escape(str(HERE))}:\d+ in in_a_lock"):
        in_a_lock.exception(timeout=1)


def grid_dump(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grid", "dump", str(os.getpid()), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.row("I01")
def test_the_command_shows_those_that_have_a_call(stuck: tuple[LocalGrid, str, Any]) -> None:
    _, sid, _ = stuck
    done = grid_dump()
    assert done.returncode == 0 and "in in_c" in done.stdout and "in in_a_lock" in done.stdout
    assert "free" not in done.stdout and "--all shows" in done.stderr
    assert "client (process" in done.stdout and "grid_dump" in done.stdout, "the script waits for the command"
    slowest = json.loads(grid_dump("--slowest", "1", "--json").stdout)
    assert len(slowest) == 1 and "in_c" in slowest[0]["doing"]
    one = grid_dump("--service", f"{sid}/0", "--all").stdout
    assert one.startswith(f"{sid}/0 on localhost") and "_become_server" in one and f"{sid}/1" not in one
    for words, said in ((("--host", "far"), "no host 'far'"), (("--service", "far"), "no service or server 'far'")):
        failed = grid_dump(*words)
        assert failed.returncode == 1 and said in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.row("I01", "I02")
@pytest.mark.lab
def test_over_ssh_stopped_servers_and_cut_hosts_are_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(lab.ssh_config))
    with SSHGrid(
        [Host("s1", n_cpu=2), Host("s2", n_cpu=1)], output=None, limits=Limits(heartbeat_s=0.5, lost_s=2.0)
    ) as g:
        sid = g.publish(Hangs(), wait="all")
        proxies = [g.acquire_service(sid) for _ in range(3)]
        pids = {proxy._server.name: int(proxy.pid().get(20)) for proxy in proxies}
        first = next(proxy for proxy in proxies if proxy._server.host.label == "s1")
        first.sleep(600)
        here = {stack.server: stack for stack in g.stacks(sid)}
        assert {here[name].pid for name in pids} == set(pids.values())
        wait_until(lambda: "in sleep" in str(g.stacks(sid)[0]) + str(g.stacks(sid)[1]), "the call has begun")
        other = next(name for name in pids if name != first._server.name and here[name].host == "s1")
        lab.hosts["s1"].run(["kill", "-STOP", str(pids[other])])
        wait_until(lambda: "stopped" in str({one.server: one for one in g.stacks(sid)}[other]), "its stop is told")
        lab.hosts["s1"].run(["kill", "-CONT", str(pids[other])])
        lab.hosts["s2"].cut()
        try:
            wait_until(lambda: g._engine.fleet.homes[1].outage() is not None, "the outage", limit_s=60)
            cut = [stack for stack in g.stacks() if stack.host == "s2"]
            assert len(cut) == 2 and all("has not answered for" in stack.why for stack in cut)
        finally:
            lab.hosts["s2"].mend()
        g._engine.losses.end_at_once(list(g.servers[sid]))
