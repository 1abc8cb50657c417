"""What PBS Pro and OpenPBS do otherwise than TORQUE: chunks, history, launchers, threads."""

from __future__ import annotations

from typing import Any

import pytest

from grid.batch_systems.dialect import Answer, Seen
from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome
from grid.batch_systems.nodes import Node
from grid.batch_systems.openpbs import OpenPbs, index_of
from grid.errors import AllocationError

pytestmark = pytest.mark.row("L02", "L03")
PBS = OpenPbs()


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        ({"nodes": 2, "ppn": 3, "walltime_s": 5}, ["nodes=2:ppn=3", "walltime=00:00:05"]),
        ({"resources": ("select=2:ncpus=4",)}, ["select=2:ncpus=4"]),
        ({"resources": ("place=scatter",), "nodes": 2, "ppn": 3}, ["select=2:ncpus=3:mpiprocs=3", "place=scatter"]),
        ({"lines": ("#PBS -l select=1:ncpus=2",)}, []),
        ({"lines": ("#PBS -l walltime=5,place=free",), "nodes": "n1"}, ["nodes=n1"]),
        ({"resources": ("nodes=4",)}, ["nodes=4"]),
    ],
)
def test_chunks_are_ours_unless_the_user_says_them(spec: dict[str, Any], lines: list[str]) -> None:
    assert PBS.resources(JobSpec(command="x", **spec)) == lines


def answer(*jobs: str, status: int = 0, stderr: str = "") -> Answer:
    return Answer(("qstat",), status, "".join(f"Job Id: {job}\n    job_state = R\n" for job in jobs), stderr)


@pytest.mark.parametrize(
    ("answers", "command"),
    [
        ([], ["qstat", "-f", "1.vm", "2.vm"]),
        ([answer("1.vm", "2.vm")], None),
        ([answer("1.vm", status=153)], ["qstat", "-x", "-f", "2.vm"]),
        ([answer(status=1, stderr="cannot connect")], None),
        ([answer("1.vm"), answer()], None),
    ],
)
def test_history_is_asked_once_and_for_those_that_are_unknown(answers: list[Answer], command: list[str] | None) -> None:
    assert PBS.question(["1.vm", "2.vm"], answers) == command


@pytest.mark.parametrize(
    ("status", "substate", "outcome"),
    [(0, "91", Outcome.CANCELLED), (None, "91", Outcome.CANCELLED), (None, "92", Outcome.FAILED), (None, "93", None),
     (0, "92", Outcome.DONE), (-29, "93", Outcome.KILLED), (1, "93", Outcome.FAILED)],
)  # fmt: skip
def test_outcomes_by_substate(status: int | None, substate: str, outcome: Outcome | None) -> None:
    assert PBS.outcome(status, {"substate": substate}) is outcome
    assert PBS.meaning_of(-29) == "its walltime was up" and PBS.meaning_of(-11) == ""


def test_a_job_that_can_never_run() -> None:
    assert PBS.never_runs(JobStatus("1", JobState.QUEUED, "Can Never Run: no such node"))
    assert not PBS.never_runs(JobStatus("1", JobState.QUEUED, "Not Running: no room"))
    assert not PBS.never_runs(JobStatus("1", JobState.RUNNING, "Can Never Run"))


@pytest.mark.parametrize(
    ("environ", "slots", "threads"),
    [
        ({}, 4, "1"),
        ({"OMP_NUM_THREADS": "8", "NCPUS": "8"}, 4, "2"),
        ({"OMP_NUM_THREADS": "3", "NCPUS": "3"}, 4, "1"),
        ({"OMP_NUM_THREADS": "8", "NCPUS": "8"}, 1, None),
        ({"OMP_NUM_THREADS": "2", "NCPUS": "8"}, 4, None),  # somebody's own
        ({"NCPUS": "8"}, 4, None),
    ],
)
def test_threads_of_each_server(environ: dict[str, str], slots: int, threads: str | None) -> None:
    assert PBS.variables_of_servers(environ, slots).get("OMP_NUM_THREADS") == threads


def test_the_node_file_lies_where_pbs_keeps_it() -> None:
    def read(path: str) -> str:
        if path != "/var/spool/pbs/aux/5.vm":
            raise FileNotFoundError(path)
        return "n1\n"

    assert PBS.nodes({"PBS_JOBID": "5.vm"}, read, "x") == (Node("n1", 1),)
    with pytest.raises(AllocationError, match="PBS_NODEFILE"):
        PBS.nodes({"PBS_JOBID": "6.vm"}, read, "x")


def test_a_node_is_named_by_its_first_line_in_the_file() -> None:
    environ = {"PBS_NODEFILE": "/f"}
    lines = "n1\nn1\nn2.cluster\n"
    assert [index_of(node, environ, lambda _: lines) for node in ("n1", "n2")] == [0, 2]
    with pytest.raises(AllocationError, match="'n3' is not in PBS_NODEFILE"):
        index_of("n3", environ, lambda _: lines)
    with pytest.raises(AllocationError, match="can't be read"):
        index_of("n1", {"PBS_NODEFILE": "/no/such/file"})


def test_which_machine_and_whose_job() -> None:
    assert PBS.is_here(Seen(frozenset({"qsub"}), "pbs_version = 23")) and not PBS.is_here(Seen(frozenset({"qsub"})))
    assert not PBS.is_here(Seen(frozenset({"qsub"}), "pbs_version = 23", qsub_is_slurm=True))
    assert PBS.speaks({"PBS_JOBID": "1", "PBS_JOBDIR": "/x"}) and not PBS.speaks({"PBS_JOBID": "1", "PBS_NP": "2"})
    assert PBS.submit_command(JobSpec(command="x"), "/s") == ["qsub", "-f", "/s"]
    assert "Put it into the chunk" in PBS.hint('qsub: "-lmem" cannot be used with "select"')
