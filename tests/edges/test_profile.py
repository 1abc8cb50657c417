"""Running servers are profiled, from the script and from outside; what gives no profile is named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid import LocalGrid
from grid.errors import ServiceError, UnknownService
from grid.services.profile import Profile
from tests.lab.host import wait_until

pytestmark = pytest.mark.row("I06")


class Model:
    def work(self, begun: str, until: str) -> int:
        Path(begun).touch()
        rounds = 0
        while not os.path.exists(until):
            self.hot()
            rounds += 1
        return rounds

    def hot(self) -> int:
        return sum(n * n for n in range(20_000))

    def in_c(self, begun: str) -> None:
        Path(begun).touch()
        re.match("(a+)+$", "a" * 60 + "b")  # keeps the interpreter, for ever


@pytest.fixture
def works(tmp_path: Path) -> Iterator[tuple[LocalGrid, str, Any]]:
    """A grid of which one server works and one is idle."""
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Model(), wait="all")
        with g.acquire_service(sid) as proxy:
            result = proxy.work(str(tmp_path / "begun"), str(tmp_path / "until"))
            wait_until((tmp_path / "begun").exists, "it works")
            yield g, sid, result
            (tmp_path / "until").touch()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "grid", "profile", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_line_that_takes_the_time_is_found(works: tuple[LocalGrid, str, Any], tmp_path: Path) -> None:
    g, sid, result = works
    found = g.profile(sid, 0.5)
    busy = {one.server: one for one in found.servers}[result.server.name]
    (idle,) = [one for one in found.servers if one is not busy]
    assert busy.busy_s == pytest.approx(busy.seconds) and busy.seconds >= 0.5 and idle.busy_s == 0
    in_hot = sum(
        seconds
        for _, runs in busy.threads
        for stack, seconds in runs
        if any(busy.frames[at][0].endswith("hot") for at in busy.stacks[stack])
    )
    assert in_hot > 0.5 * busy.seconds and 0 <= found.slowed < 1
    done = command(sid, str(os.getpid()), "--seconds", "0.3", "-o", str(tmp_path / "p.html"))
    assert done.returncode == 0 and "2 of 2 servers" in done.stdout and "slowed by" in done.stdout, done
    assert "hot (test_profile.py:" in (tmp_path / "p.html").read_text()
    done = command(sid, str(os.getpid()), "--seconds", "0.2", "-o", str(tmp_path / "p.json"), "--json")
    assert {one["server"] for one in json.loads(done.stdout)["servers"]} == {busy.server, idle.server}
    assert json.loads((tmp_path / "p.json").read_text())["profiles"]


def test_what_gives_no_profile_is_named(works: tuple[LocalGrid, str, Any], tmp_path: Path) -> None:
    g, sid, result = works
    for words, said in (
        (("Nobody.7",), "Nobody.7"),
        ((sid, str(os.getpid()), "-o", str(tmp_path / "none" / "p.html")), "no directory"),
    ):
        failed = command(*(words if len(words) > 1 else (*words, str(os.getpid()))), "--seconds", "0.1")
        assert failed.returncode == 1 and said in failed.stderr and "Traceback" not in failed.stderr
    with pytest.raises(UnknownService):
        g.profile("Nobody.7", 0.1)
    for seconds in (0, -1, 1e9):
        with pytest.raises(ValueError, match="seconds must be"):
            g.profile(sid, seconds)
    pid = {one.server: one.pid for one in g.stacks(sid)}[result.server.name]
    assert pid is not None
    usual = _threads(pid)
    words = [sys.executable, "-m", "grid", "profile", sid, str(os.getpid()), "--seconds", "30"]
    with subprocess.Popen([*words, "-o", str(tmp_path / "p.html")], stderr=subprocess.PIPE, text=True) as waiting:
        wait_until(lambda: _threads(pid) > usual, "its sampler runs")
        other = next(one.pid for one in g.stacks(sid) if one.server not in ("agent", "client", result.server.name))
        assert other is not None
        for one in (pid, other):
            os.kill(one, signal.SIGKILL)
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 1 and said.count("its process ended during the profile") == 2
    assert not (tmp_path / "p.html").exists() and result.exception()


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.skipif(not os.environ.get("GRID_NIGHTLY"), reason="waits 5 s for a server in C code: in scripts/nightly")
def test_one_that_keeps_the_interpreter_is_told_and_none_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalGrid(1, output=None) as g:
        sid = g.publish(Model())
        proxy = g.acquire_service(sid)
        proxy.in_c(str(tmp_path / "begun"))
        wait_until((tmp_path / "begun").exists, "it is deep in C")
        with pytest.raises(
            ServiceError, match=r"no server gave a profile \(.*gave no profile within 5.*its state is R"
        ):
            g.profile(sid, 0.1)
        g._engine.losses.end_at_once(list(g.servers[sid]))


def test_a_profile_comes_back_from_json(works: tuple[LocalGrid, str, Any]) -> None:
    g, sid, _ = works
    told = g._engine.profiles._ask(sid, 0.1, 0.01)
    assert Profile.from_plain(json.loads(json.dumps(told))).servers
