"""Grids within batch jobs whose launchers are stand-ins: TORQUE's pbsdsh, SGE's qrsh. With a real one: `cluster/`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grid import AllocationError, ConnectError, Grid, Host
from grid.launch import connect
from grid.launch.connection import Connection
from grid.testing import connections
from grid.testing.launchers import fake_job
from grid.testing.probe import Probe

NODES = ["far1", "far1", "far2"]
NEEDING_FORWARDS = ("forward", "goes_through")
CARRIED = [check for check in connections.CHECKS if not any(word in check.__name__ for word in NEEDING_FORWARDS)]
NO_INPUT_LATER = {
    "lines_arrive_as_they_are_written",
    "run_does_not_wait_for_daemons",
    "stderr_is_collected_and_never_blocks",
    "writing_to_who_does_not_read_has_a_limit",
    "stdin_is_a_lifeline",
}
ALL = [check for check in CARRIED if check.__name__ not in NO_INPUT_LATER]
STREAMING = [check for check in CARRIED if check.__name__ in NO_INPUT_LATER]


@pytest.fixture(params=["pbs", "sge"])
def job(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRID_SPOOL", str(tmp_path / "spool"))
    with fake_job(request.param, tmp_path / "job", NODES):
        yield request.param
    spool = tmp_path / "spool"
    assert not spool.exists() or not list(spool.iterdir())


def way(job: str) -> Host:
    return Host("far1", ssh="pbsdsh" if job == "pbs" else "qrsh", python=sys.executable)


@pytest.mark.row("B06", "B07", "B15")
@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_a_launcher_is_a_way_in_like_any_other(check: Callable[[Connection], None], job: str) -> None:
    with connect(way(job)) as connection:
        check(connection)


@pytest.mark.row("B06", "B15")
@pytest.mark.parametrize("job", ["sge"], indirect=True)
@pytest.mark.parametrize("check", STREAMING, ids=lambda check: check.__name__)
def test_qrsh_carries_input_while_the_command_runs(check: Callable[[Connection], None], job: str) -> None:
    with connect(way(job)) as connection:
        check(connection)


@pytest.mark.row("B02", "B03", "B04", "B05", "B07", "B15")
def test_a_grid_on_the_nodes_of_a_job(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_TEST_WORD", "from the script")
    with Grid.from_allocation(wait="all") as g:
        assert [(host.name, host.n_cpu, host.ssh) for host in g.hosts][1:] == [
            ("far2", 1, "pbsdsh" if job == "pbs" else "qrsh")
        ]
        sid = g.publish(Probe())
        assert g.size(sid) == 3
        assert g.gather(g.broadcast(sid, "environment", "GRID_TEST_WORD")) == ["from the script"] * 3
        assert len(set(g.gather(g.broadcast(sid, "where")))) == 3
        g.release_all()


@pytest.mark.row("B02", "G68")
def test_servers_here_join_after_encrypted_links_were_made(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own node's servers use plain UNIX sockets: settings of the links to others must not stick to theirs."""
    monkeypatch.setattr("socket.gethostname", lambda: "far1")
    with Grid.from_allocation(wait="all") as g:
        assert [host.ssh for host in g.hosts] == ["local", "pbsdsh" if job == "pbs" else "qrsh"]
        for _ in range(2):
            sid = g.publish(Probe())
            assert g.size(sid) == 3, g.failures


@pytest.mark.row("B03")
def test_auto_takes_the_job_unless_hosts_are_named(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [host.name for host in Grid.auto().hosts] == ["far1", "far2"]
    monkeypatch.setenv("GRID_HOSTS", "other")
    assert [host.name for host in Grid.auto().hosts] == ["other"]


@pytest.mark.row("B06")
def test_a_launcher_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConnectError, match="command pbsdsh is not"):
        connect(Host("n", ssh="pbsdsh"))
    for name in ("PBS_JOBID", "PBS_NODEFILE", "SLURM_JOB_ID", "PE_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AllocationError, match="in no batch job"):
        Grid.from_allocation()


@pytest.mark.row("B02")
def test_a_node_that_never_starts_its_kernel_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRID_SPOOL", str(tmp_path / "spool"))
    with fake_job("pbs", tmp_path / "job", ["far1", "far2"]):
        with Grid.from_allocation() as g:
            os.environ["PBS_NODEFILE"] = str(tmp_path / "job" / "fewer")
            (tmp_path / "job" / "fewer").write_text("far1\n")  # pbsdsh does not know far2 any more
            sid = g.publish(Probe(), wait="all", missing="ok")
            assert g.size(sid) == 1
            assert "the kernel did not start" in str(g.failures["far2"])
