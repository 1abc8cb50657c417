"""What all batch systems share: scripts, answers to submissions, and several parts of a job as one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch_systems.dialect import Answer, Dialect, Seen, worst
from grid.batch_systems.job import JobSpec, JobState, JobStatus, Outcome
from grid.batch_systems.nodes import Node
from grid.errors import AllocationError, SubmitError

pytestmark = pytest.mark.row("L01", "B09")


class Toy(Dialect):
    name = "toy"
    commands = ("tsub", "tstat")
    signs = ("TOY_JOB",)
    job_variable = "TOY_JOB"

    def directives(self, spec: JobSpec) -> list[str]:
        return [f"-N {spec.name}"]

    def submit_command(self, spec: JobSpec, path: str) -> list[str]:
        return ["tsub", path]

    def status_command(self, ids: Sequence[str]) -> list[str]:
        return ["tstat", *ids]

    def parse_status(self, text: str) -> list[JobStatus]:
        return [JobStatus(word, JobState.RUNNING) for word in text.split()]

    def nodes(self, environ: object, read: object, hostname: str) -> tuple[Node, ...]:
        return (Node("n1.cluster", 2),)


TOY = Toy()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00\r")))
def test_a_value_reaches_the_command_whatever_stands_in_it(value: str) -> None:
    spec = JobSpec(command='printf %s "$V"', variables={"V": value}, workdir="/", lines=("#PBS -q x",))
    script = TOY.script(spec)
    assert script.startswith("#!/bin/sh\n#PBS -N grid\n#PBS -q x\n\ncd / || exit 1\n")
    if len(value) % 7 == 0:  # a shell for each would take long
        assert subprocess.run(["sh"], input=script.encode(), stdout=subprocess.PIPE).stdout.decode() == value


@pytest.mark.parametrize(
    ("status", "out", "err", "found"),
    [
        (0, "12.vm\n", "", "12.vm"),
        (0, "welcome\n\n12[].vm\n", "a warning", "12[].vm"),
        (0, "12\n", "", "12"),
        (1, "12.vm\n", "", None),
        (0, "", "", None),
        (0, "12.vm; rm\n", "", None),
    ],
)
def test_the_id_is_the_last_line_of_a_good_answer(status: int, out: str, err: str, found: str | None) -> None:
    if found is not None:
        assert TOY.parse_submit(status, out, err) == found
        return
    with pytest.raises(SubmitError) as caught:
        TOY.parse_submit(status, out, err)
    assert out.strip() in str(caught.value) and caught.value.connection is False and caught.value.status == status


def test_a_server_that_was_not_reached_is_told_apart() -> None:
    with pytest.raises(SubmitError) as caught:
        TOY.parse_submit(111, "", "qsub: cannot connect to server vm (errno=111)")
    assert caught.value.connection is True and "Nothing was submitted" in str(caught.value)
    assert TOY.is_forbidden("qdel: Unauthorized Request 12.vm") and not TOY.is_forbidden("Unknown Job Id")


@pytest.mark.parametrize(
    ("text", "is_id"),
    [("12", True), ("12.vm", True), ("35[].vm", True), ("35[1].vm", True), ("batch", False), ("@vm", False),
     ("12 13", False), ("", False), ("1" * 19, False), ("12\n", False)],
)  # fmt: skip
def test_words_that_can_be_jobs(text: str, is_id: bool) -> None:
    assert TOY.is_job_id(text) is is_id


def test_one_question_and_a_failed_answer_is_an_error_with_its_words() -> None:
    assert TOY.question(["1", "2"], []) == ["tstat", "1", "2"]
    good = Answer(("tstat",), 0, "1 2", "")
    assert TOY.question(["1"], [good]) is None and [row.id for row in TOY.read([good])] == ["1", "2"]
    with pytest.raises(AllocationError, match=r"exit status 3.: no server"):
        TOY.read([good, Answer(("tstat",), 3, "", "no server")])


@pytest.mark.parametrize(
    ("job", "base"), [("12.vm", "12"), ("12", "12"), ("35[1].vm", "35[]"), ("35[].vm", "35[]"), ("35[12]", "35[]")]
)
def test_rows_of_one_job(job: str, base: str) -> None:
    assert TOY.base_of(job) == base


def test_where_it_is_and_whose_environment() -> None:
    assert TOY.is_here(Seen(frozenset({"tsub", "tstat", "x"}))) and not TOY.is_here(Seen(frozenset({"tsub"})))
    assert TOY.speaks({"TOY_JOB": "5"}) and not TOY.speaks({"TOY_JOB": ""})
    assert TOY.job({"TOY_JOB": "5"}) == "5" and TOY.job({}) == "unknown"
    assert TOY.here({}, TOY.nodes({}, None, ""), "n1") == "n1.cluster" and TOY.here({}, [Node("n2", 1)], "n1") is None


states = st.sampled_from(JobState)


@given(st.lists(st.builds(JobStatus, st.just("1"), states, outcome=st.none() | st.sampled_from(Outcome),
                          exit_status=st.none() | st.integers(-20, 300), left_s=st.none() | st.floats(0, 1e6)),
                min_size=1))  # fmt: skip
def test_several_parts_as_one(parts: list[JobStatus]) -> None:
    one = worst(parts, "job")
    found = {part.state for part in parts}
    order = ["RUNNING", "EXITING", "QUEUED", "HELD", "DONE", "UNKNOWN"]
    assert one.state == JobState[next(name for name in order if JobState[name] in found)] and one.id == "job"
    if one.state is not JobState.DONE:
        assert one.outcome is None and one.exit_status is None  # it has not ended as long as one part has not
    else:
        outcomes = [part.outcome for part in parts if part.outcome]
        assert one.outcome == (max(outcomes, key=list(Outcome).index) if outcomes else None)
        codes = [part.exit_status for part in parts if part.exit_status is not None]
        assert not any(codes) or one.exit_status
    times = [part.left_s for part in parts if part.left_s is not None]
    assert one.left_s == (min(times) if times else None)
