"""Ranks on hosts: straight from one to another, or through the client where a wall is between."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import Limits, SSHGrid
from grid.errors import RankFailed, RankLost
from tests.edges.test_home_ranks import POOL
from tests.lab import Lab, LabHost
from tests.plain_ranks import pythons
from tests.ranked import across, waits

QUICK = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=4.0, stop_s=1.0, start_s=20.0, control_s=8.0)
PACKAGES = ("pyzmq", "dill", "numpy", "emcee", "schwimmbad", "multiprocess")


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    hosts = [LabHost(name, packages=PACKAGES) for name in ("one", "two")]
    older = LabHost("older", pythons=("3.10",), packages=("pyzmq", "dill"))
    with Lab([*hosts, LabHost("walled", open_ports=(22,), packages=PACKAGES), older]) as lab:
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
    done = on_hosts(net, tmp_path, "one,walled", 2)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("[4, 9]") == 2


def on_hosts(net: Lab, place: Path, hosts: str, ranks: int, *words: str) -> subprocess.CompletedProcess[str]:
    """`grid run --ranks` of the script there."""
    return subprocess.run(
        [*(sys.executable, "-m", "grid", "run", "--hosts", hosts, "--ranks", str(ranks)), "script.py", *words],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "GRID_SSH_CONFIG": str(net.ssh_config)},
    )


@pytest.mark.lab
@pytest.mark.row("Q06")
def test_emcee_with_schwimmbads_pool_samples_on_two_hosts_that_have_no_mpi(net: Lab, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WIDTH = 2.0\n")
    (tmp_path / "script.py").write_text(POOL)
    (tmp_path / "hosts.yaml").write_text("hosts: [one, {name: walled, n_cpu: 2}]\n")
    done = on_hosts(net, tmp_path, "hosts.yaml", 3, "word")
    assert done.returncode == 0, done.stderr
    assert "the serial chain 2 word" in done.stdout + done.stderr


@pytest.mark.lab
@pytest.mark.row("Q03", "Q04")
def test_ranks_of_different_pythons_send_each_other_values_and_no_code(net: Lab) -> None:
    with SSHGrid(["one", "older"], limits=QUICK, output=None, wait="all") as g:
        ours = sys.version_info[:2]
        assert sorted(map(tuple, g.ranks(pythons, 2, args=(False,)).get(60)[0])) == sorted([(3, 10), ours])
        with pytest.raises(RankFailed, match=r"can't go to another rank: ranks run different Pythons \(.*3.10"):
            g.ranks(pythons, 2, args=(True,)).get(60)
