"""Grid Engine: slots through a parallel environment, directives found anywhere, its table of jobs, its host file."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch_systems.dialect import Seen
from grid.batch_systems.job import JobSpec, JobState
from grid.batch_systems.nodes import MOST, Node
from grid.batch_systems.sge import Sge, parse_pe_hostfile
from grid.errors import AllocationError, SubmitError

pytestmark = pytest.mark.row("L08", "B05")
SGE = Sge()


def test_script_lines() -> None:
    spec = JobSpec(
        command="x", nodes=2, ppn=2, walltime_s=60, parallel_environment="mpi", resources=("m=1",), queue="q",
        account="p", output="o", join=True, depend="afterany:3:4", export_all=True,
    )  # fmt: skip
    assert SGE.directives(spec) == [
        "-N grid", "-S /bin/sh", "-notify", "-pe mpi 4", "-l h_rt=00:01:00", "-l m=1", "-q q", "-P p", "-o o",
        "-hold_jid 3,4", "-j y", "-r n", "-V",
    ]  # fmt: skip
    assert not [line for line in SGE.directives(JobSpec(command="x")) if "-pe" in line]  # one slot needs none
    assert not [line for line in SGE.directives(JobSpec(command="x", nodes=4, lines=("#$ -pe a 4",))) if "-pe" in line]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nodes": "n1:ppn=2"}, "no list of nodes"),
        ({"nodes": 3}, "through a parallel environment only"),
        ({"depend": "afterok:3"}, "knows no afterok: .*afterany:3"),
        ({"depend": "before:3:4"}, "knows no before"),
        ({"variables": {"A": "x\n#$ -q all"}}, "would take for a directive"),
        ({"workdir": "/a\n#$ -q all"}, "would take for a directive"),
    ],
)
def test_what_it_can_not_do_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(AllocationError, match=said):
        SGE.script(JobSpec(command="x", **wrong))


@pytest.mark.parametrize(
    ("out", "job"),
    [
        ("12\n", "12"),
        ("12.1-3:1\n", "12"),
        ('Your job 12 ("fit") has been submitted\n', "12"),
        ('Your job-array 12.1-3:1 ("fit") has been submitted\n', "12"),
    ],
)
def test_the_id_of_a_job(out: str, job: str) -> None:
    assert SGE.parse_submit(0, out, "") == job


def test_refusals() -> None:
    with pytest.raises(SubmitError) as caught:
        SGE.parse_submit(1, "", "error: unable to contact qmaster using port 6444")
    assert caught.value.connection
    with pytest.raises(SubmitError, match="qconf -spl"):
        SGE.parse_submit(1, "", 'job rejected: the requested parallel environment "x" does not exist')


@pytest.mark.parametrize(
    ("mark", "state"),
    [("qw", "QUEUED"), ("hqw", "HELD"), ("r", "RUNNING"), ("t", "RUNNING"), ("Rr", "RUNNING"), ("s", "RUNNING"),
     ("dr", "EXITING"), ("Eqw", "HELD"), ("z", "UNKNOWN")],
)  # fmt: skip
def test_letters_of_states(mark: str, state: str) -> None:
    line = f"  12 0.55500 fit mara {mark} 11/26/2026 12:00:00 all.q@n1 2\n"
    table = "job-ID prior name user state submit/start at queue slots\n-----\n" + line
    (found,) = SGE.parse_status(table)
    assert (found.id, found.state, found.nodes, found.name) == ("12", JobState[state], "n1", "fit")


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.integers(1, 5)), min_size=1))
def test_the_host_file_adds_up(lines: list[tuple[str, int]]) -> None:
    text = "\n".join(f"{name} {slots} all.q@{name} UNDEFINED\n" for name, slots in lines)
    found = {node.name: node.slots for node in parse_pe_hostfile(text)}
    assert found == {name: sum(s for n, s in lines if n == name) for name, _ in lines}
    assert list(found) == list(dict.fromkeys(name for name, _ in lines))


@pytest.mark.parametrize("text", ["n1", "n1 x q", f"n1 {MOST + 1} q", "n1 -1 q", "", "n1 0 q"])
def test_a_host_file_that_makes_no_sense(text: str) -> None:
    with pytest.raises(AllocationError, match="PE_HOSTFILE"):
        parse_pe_hostfile(text)


def test_inside_of_a_job() -> None:
    assert SGE.nodes({"JOB_ID": "1"}, lambda _: "", "here") == (Node("here", 1),)
    assert SGE.nodes({"PE_HOSTFILE": "/f"}, lambda _: "n1 2 q x", "here") == (Node("n1", 2),)
    assert SGE.speaks({"PE_HOSTFILE": "/f"}) and SGE.speaks({"JOB_ID": "1", "SGE_TASK_ID": "undefined"})
    assert not SGE.speaks({"JOB_ID": "1"}) and not SGE.speaks({"SGE_TASK_ID": "1"})
    assert SGE.is_here(Seen(frozenset({"qsub", "qconf"}))) and not SGE.is_here(Seen(frozenset({"qsub"})))
    (launcher,) = SGE.launchers
    assert launcher.words("n1", {}) == ["qrsh", "-inherit", "-V", "n1"] and launcher.splits_words
