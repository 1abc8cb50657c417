"""What TORQUE and PBS share: script lines, `qstat -f`, exit statuses, node files."""

from __future__ import annotations

import pytest

from grid.batch_systems.dialect import Answer
from grid.batch_systems.job import JobSpec, JobState, Outcome
from grid.batch_systems.nodes import Node
from grid.batch_systems.pbs import STATES, blocks, is_openpbs, is_torque, parse_nodefile
from grid.batch_systems.torque import Torque
from grid.errors import AllocationError

pytestmark = pytest.mark.row("L02", "L03")
PBS = Torque()  # the plainest of them


def test_script_lines() -> None:
    spec = JobSpec(
        command="x", nodes=2, ppn=3, walltime_s=90, resources=("mem=2gb",), queue="q", account="a", output="o",
        error="e", join=True, depend="afterok:12", export_all=True,
    )  # fmt: skip
    assert PBS.directives(spec) == [
        "-N grid", "-l nodes=2:ppn=3,walltime=00:01:30,mem=2gb", "-q q", "-A a", "-o o", "-e e", "-j oe",
        "-W depend=afterok:12", "-r n", "-V",
    ]  # fmt: skip
    assert PBS.directives(JobSpec(command="x", ppn=None))[1] == "-l nodes=1"


@pytest.mark.parametrize(
    ("lines", "may", "restarts", "said"),
    [
        ((), False, False, ["-r n"]),
        ((), True, True, ["-r y"]),
        (("#PBS -r y",), False, True, []),
        (("#PBS -q a -r n",), True, False, []),
        (("#PBS -r n", "#PBS -r y"), False, True, []),  # the last one counts
        (("#PBS -N tar-r y",), False, True, []),
    ],
)
def test_whether_it_starts_again(lines: tuple[str, ...], may: bool, restarts: bool, said: list[str]) -> None:
    spec = JobSpec(command="x", lines=lines, may_restart=may)
    assert PBS.restarts(spec) is restarts
    assert [line for line in PBS.directives(spec) if line.startswith("-r")] == said


TEXT = """\
Job Id: 12.vm
    Job_Name = fit
    job_state = R
    exec_host = n1/0+n1/1+
\tn2/0
    Resource_List.walltime = 01:00:00
    resources_used.walltime = 00:10:00

Job Id: 13.vm
    job_state = C
    exit_status = 271
    comment = ended
Job Id: 14.vm
    job_state = Z
"""


def test_the_text_of_qstat() -> None:
    assert dict(blocks(TEXT))["12.vm"]["exec_host"] == "n1/0+n1/1+n2/0"
    first, second, third = PBS.parse_status(TEXT)
    assert (first.state, first.name, first.nodes, first.left_s) == (JobState.RUNNING, "fit", "n1/0+n1/1+n2/0", 3000.0)
    assert (second.state, second.outcome, second.exit_status) == (JobState.DONE, Outcome.KILLED, 271)
    assert second.reason == "it was ended by signal 15" and second.left_s is None
    assert third.state is JobState.UNKNOWN and third.outcome is None
    assert PBS.parse_status("") == [] == PBS.parse_status("qstat: no such thing")


@pytest.mark.parametrize(
    ("status", "outcome", "meaning"),
    [
        (0, Outcome.DONE, ""),
        (3, Outcome.FAILED, ""),
        (128, Outcome.FAILED, ""),
        (143, Outcome.KILLED, "it was ended by signal 15"),
        (265, Outcome.KILLED, "it was ended by signal 9"),
        (-1, Outcome.KILLED, ""),
        (-11, Outcome.KILLED, "its walltime was up"),
        (None, None, None),
    ],
)
def test_what_an_exit_status_means(status: int | None, outcome: Outcome | None, meaning: str | None) -> None:
    assert PBS.outcome(status, {}) is outcome
    if status is not None:
        assert PBS.meaning_of(status) == meaning


@pytest.mark.parametrize(
    ("status", "stderr", "failed"),
    [
        (0, "", False),
        (153, "qstat: Unknown Job Id 12.vm", False),
        (35, "anything", False),
        (1, "qstat: Unknown Job Id 12.vm\nqstat: 13.vm Job has finished", False),
        (1, "qstat: cannot connect", True),
        (1, "qstat: Unknown Job Id 12.vm\nqstat: cannot connect", True),
        (1, "", True),
    ],
)
def test_when_the_question_itself_failed(status: int, stderr: str, failed: bool) -> None:
    assert PBS.status_failed(status, stderr) is failed


def test_a_job_that_is_hidden_is_known_and_not_shown() -> None:
    answer = Answer(("qstat",), 1, "", "qstat: Unauthorized Request  9.vm\nqstat: Unauthorized Request MSG=no 10.vm\n")
    found = PBS.read([answer])
    assert [(row.id, row.state) for row in found] == [("9.vm", JobState.UNKNOWN), ("10.vm", JobState.UNKNOWN)]
    assert all("another user" in (row.reason or "") for row in found)


def test_arrays_are_asked_for_with_their_tasks() -> None:
    assert PBS.status_command(["1", "2[]"]) == ["qstat", "-f", "-t", "1", "2[]"]
    assert PBS.status_command(["1"]) == ["qstat", "-f", "1"]
    assert set(STATES.values()) == set(JobState)


def test_the_node_file() -> None:
    assert parse_nodefile("n2\nn1\n\nn2\n") == (Node("n2", 2), Node("n1", 1))
    with pytest.raises(AllocationError):
        parse_nodefile("\n")
    environ = {"PBS_NODEFILE": "/f", "PBS_JOBID": "1"}
    assert PBS.nodes(environ, lambda path: "n1\n", "x") == (Node("n1", 1),)
    with pytest.raises(AllocationError, match="PBS_NODEFILE is not set in job 1"):
        PBS.nodes({"PBS_JOBID": "1"}, lambda path: "n1\n", "x")
    assert PBS.here({"PBS_NODENUM": "0"}, [Node("n1", 1)], "other") == "n1"
    assert PBS.here({"PBS_NODENUM": "1"}, [Node("n1", 1)], "other") is None


@pytest.mark.parametrize(
    ("environ", "torque", "openpbs"),
    [
        ({"PBS_VERSION": "TORQUE-6.1.3", "PBS_JOBDIR": "/x"}, True, False),
        ({"PBS_NP": "2"}, True, False),
        ({"PBS_JOBDIR": "/x"}, False, True),
        ({"PBS_JOBID": "1"}, False, False),
        ({}, False, False),
    ],
)
def test_whose_variables_they_are(environ: dict[str, str], torque: bool, openpbs: bool) -> None:
    assert (is_torque(environ), is_openpbs(environ)) == (torque, openpbs)
