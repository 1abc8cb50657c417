"""Ranks on hosts: straight from one to another, or through the client where a wall is between."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import Limits, SSHGrid
from grid.errors import RankLost
from tests.lab import Lab, LabHost
from tests.ranked import across, waits

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=4.0, stop_s=1.0, start_s=20.0, control_s=8.0)
PACKAGES = ("pyzmq", "dill", "numpy")


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [LabHost(name, packages=PACKAGES) for name in ("one", "two")]
    with Lab([*hosts, LabHost("walled", open_ports=(22,), packages=PACKAGES)]) as lab:
        yield lab


@pytest.fixture(autouse=True)
def over_ssh(net: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_SSH_CONFIG", str(net.ssh_config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.mark.lab
@pytest.mark.row("Q05")
def test_messages_go_straight_or_through_the_client_with_the_same_values(net: Lab) -> None:
    for second, relayed in (("two", []), ("walled", [("one", "walled")])):
        with SSHGrid(["one", second], limits=QUICK, output=None, wait="all") as g:
            ranks = g.ranks(across, 2)
            values = ranks.get(60)
            assert ranks.relayed == relayed
            assert not ranks.unreceived
        for rank, (got, large, summed, hosts) in enumerate(values):
            assert (got, large) == (("small", 1 - rank), 300_000 * (1 - rank + 0.5))
            assert summed == [0.0, 3.0, 6.0] and len(hosts) == 2


@pytest.mark.lab
@pytest.mark.row("Q05", "Q04")
def test_a_rank_on_a_host_that_is_switched_off_is_named(net: Lab) -> None:
    with SSHGrid(["one", "two"], limits=QUICK, output=None, wait="all") as g:
        ranks = g.ranks(waits, 2)
        lost = ranks.hosts.index("two")
        net.hosts["two"].kill()
        with pytest.raises(RankLost) as caught:
            ranks.get(60)
        assert (caught.value.rank, caught.value.host) == (lost, "two")


@pytest.mark.lab
@pytest.mark.row("Q06")
def test_a_script_for_mpi4py_runs_on_hosts_without_mpi(net: Lab, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def square(x):\n    return x * x\n")
    (tmp_path / "script.py").write_text(
        "from mpi4py import MPI\nfrom mine import square\ncomm = MPI.COMM_WORLD\n"
        "print(comm.allgather(square(comm.rank + 2)), MPI.Get_processor_name())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "grid", "run", "--hosts", "one,walled", "--ranks", "2", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "GRID_SSH_CONFIG": str(net.ssh_config)},
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("[4, 9]") == 2
