"""One batch system on one machine: what is tried again, what is asked, and that no word is taken for a queue."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grid.batch import system as module
from grid.batch.system import BatchSystem
from grid.batch_systems import JobSpec, JobState, Outcome
from grid.errors import AllocationError, SubmitError

pytestmark = pytest.mark.row("B09", "B11", "L05")


class Machine:
    """Answers commands in turn: (status, stdout, stderr)."""

    def __init__(self, *answers: tuple[int, str, str], ssh: str = "local") -> None:
        self.answers, self.commands = list(answers), []  # type: ignore[var-annotated]
        self.host = SimpleNamespace(ssh=ssh, label="h")

    def run(self, command: str, *_: Any, **more: Any) -> Any:
        self.commands.append((command, more))
        status, out, err = self.answers.pop(0)
        text = out
        return SimpleNamespace(returncode=status, stdout=out.encode(), stderr=err.encode(), text=text)


def system(*answers: tuple[int, str, str], **more: Any) -> tuple[BatchSystem, Machine]:
    machine = Machine(*answers)
    return BatchSystem(machine, "torque", pause_s=0.0, **more), machine  # type: ignore[arg-type]


DOWN = (111, "", "qsub: cannot connect to server vm (errno=111)")


def test_a_submission_that_did_not_reach_the_server_is_repeated() -> None:
    batch, machine = system(DOWN, DOWN, (0, "12.vm\n", ""))
    assert batch.submit(JobSpec(command="x")) == "12.vm" and len(machine.commands) == 3


def test_it_is_given_up_with_the_systems_words() -> None:
    batch, machine = system(*[DOWN] * 3, retries=2)
    with pytest.raises(SubmitError, match="cannot connect"):
        batch.submit(JobSpec(command="x"))
    assert len(machine.commands) == 3


def test_a_refusal_is_not_repeated() -> None:
    batch, machine = system((170, "", "qsub: Unknown queue"))
    with pytest.raises(SubmitError, match="Unknown queue"):
        batch.submit(JobSpec(command="x", queue="none"))
    assert len(machine.commands) == 1


def block(job: str, state: str, more: str = "") -> str:
    return f"Job Id: {job}\n    job_state = {state}\n{more}"


def test_one_question_tells_of_all_jobs() -> None:
    text = block("12.vm", "R") + block("13.vm", "C", "    exit_status = 0\n")
    batch, machine = system((153, text, "qstat: Unknown Job Id 14.vm"))
    found = batch.status(["12.vm", "13", "14.vm"])
    assert [found[job].state for job in ("12.vm", "13", "14.vm")] == [
        JobState.RUNNING, JobState.DONE, JobState.UNKNOWN,
    ]  # fmt: skip
    assert found["13"].outcome is Outcome.DONE and len(machine.commands) == 1


def test_parts_of_an_array_are_one() -> None:
    batch, _ = system((0, block("35[1].vm", "C", "    exit_status = 0\n") + block("35[2].vm", "R"), ""))
    assert batch.status(["35[].vm"])["35[].vm"].state is JobState.RUNNING


@pytest.mark.parametrize("word", ["batch", "@vm", "", "12; rm", "-a"])
def test_a_word_that_is_no_job_is_not_asked_for(word: str) -> None:
    batch, machine = system()
    with pytest.raises(AllocationError):
        batch.status([word])
    assert batch.status([]) == {} and machine.commands == []


def test_a_system_that_does_not_tell_is_an_error() -> None:
    batch, _ = system((1, "", "qstat: cannot connect to server"))
    with pytest.raises(AllocationError, match="cannot connect"):
        batch.status(["12"])


def test_the_variable_names_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.VARIABLE, "sge")
    machine = Machine()
    assert BatchSystem(machine).dialect.name == "sge" and machine.commands == []  # type: ignore[arg-type]
    monkeypatch.delenv(module.VARIABLE)
    machine = Machine((0, "has qsub /x\nhas qstat /x\nhas qdel /x\n", ""), ssh="paramiko")
    assert BatchSystem(machine).dialect.name == "torque"  # type: ignore[arg-type]
    assert "/etc/profile" in machine.commands[0][0]
