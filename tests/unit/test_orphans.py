"""What a server left is found and ended, also where the system's list of children leaves it out at first."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from grid.kernel.orphans import Orphans


@pytest.mark.row("M11")
def test_one_that_the_list_left_out_at_first_is_found_when_it_is_looked_for_again() -> None:
    env = {**os.environ, "GRID_SERVER": "Model.0/1"}
    with subprocess.Popen(["sleep", "60"], env=env) as mine, subprocess.Popen(["sleep", "60"]) as other:
        lists = iter([[other.pid]])
        orphans = Orphans(lambda: next(lists, [mine.pid, other.pid]))
        orphans.end_of(["Model.0/1"], ())
        assert mine.poll() is None
        while (wait := orphans.tend()) is not None and mine.poll() is None:
            time.sleep(wait)
        assert mine.wait(60) == -signal.SIGTERM and other.poll() is None
        other.kill()


@pytest.mark.row("M11")
def test_servers_that_live_and_processes_of_others_are_left_alone() -> None:
    env = {**os.environ, "GRID_SERVER": "Model.0/1"}
    with subprocess.Popen(["sleep", "60"], env=env) as server, subprocess.Popen(["sleep", "60"], env=env) as left:
        orphans = Orphans(lambda: [server.pid, left.pid])
        orphans.end_of(["Model.0/1"], {server.pid: "Model.0/1"})
        while (wait := orphans.tend()) is not None and left.poll() is None:
            time.sleep(wait)
        assert left.wait(60) == -signal.SIGTERM and server.poll() is None
        server.kill()
