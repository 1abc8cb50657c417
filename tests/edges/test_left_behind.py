"""What servers started and left: it ends with its server, or with the grid, also in a session of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from grid import LocalGrid
from tests.models import Starter

WAYS = ("in_own_session", "by_double_fork", "forked_alone")


def gone(pid: int, limit_s: float = 30.0) -> bool:
    """Whether a process ends in time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], limit_s)[0])
    finally:
        os.close(fd)


@pytest.mark.row("M11")
@pytest.mark.parametrize("end", ["terminate", "kill", "kill the agent", "kill the zygote"])
def test_children_with_sessions_of_their_own_end_with_the_grid(end: str, tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        from grid import LocalGrid
        from tests.models import Starter
        g = LocalGrid(1, output=None)
        with g.acquire_service(g.publish(Starter())) as starter:
            print(*[getattr(starter, way)().get(30) for way in {WAYS!r}], flush=True)
        status = g._engine.fleet.homes[0].ask("status")
        victim = {{"kill": os.getpid(), "kill the agent": status["pid"], "kill the zygote": status["zygote"]}}
        if {end!r} in victim:
            os.kill(victim[{end!r}], signal.SIGKILL)
        g.terminate()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == len(WAYS)
    for way, pid in zip(WAYS, pids, strict=True):
        assert gone(pid), f"{way} is still there after: {end}"


@pytest.mark.row("M11")
def test_only_what_a_dead_server_left_ends_with_it() -> None:
    with LocalGrid(2, output=None) as g:
        sid = g.publish(Starter())
        with g.acquire_service(sid) as one, g.acquire_service(sid) as other:
            mine = [one.in_own_session().get(30), one.by_double_fork().get(30)]
            theirs = [other.in_own_session().get(30), other.by_double_fork().get(30)]
            with pytest.raises(Exception, match="SIGKILL"):
                one.end().get(30)
            assert all(gone(pid) for pid in mine)
            assert other.alive(theirs).get(30)
    assert all(gone(pid) for pid in theirs)


@pytest.mark.row("M11")
def test_a_grid_within_a_server_clears_up_before_it_is_ended() -> None:
    with LocalGrid(1, output=None) as g, g.acquire_service(g.publish(Starter())) as starter:
        pid = starter.inner_grid().get(60)
        with pytest.raises(Exception, match="SIGKILL"):
            starter.end().get(30)
        assert gone(pid)
    # and the fixture `tidy` finds no directory of it


@pytest.mark.row("M11")
def test_without_subreapers_groups_are_ended_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grid.kernel.orphans.PR_SET_CHILD_SUBREAPER", 9999)  # the kernel knows no such request
    from grid.kernel import orphans

    orphans.adopt()
    child = subprocess.Popen(["sleep", "60"])
    found = orphans._children()
    assert child.pid in found and child.pid in list(orphans._by_parent())
    ends: list[Callable[[], object]] = [lambda: child.send_signal(signal.SIGKILL), child.wait]
    for end in ends:
        end()
