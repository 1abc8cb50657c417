"""What the environment tells of a batch job: nodes, slots, launcher, and clear words where it makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import AllocationError
from grid.grids.allocation import allocation_hosts, job_environment
from grid.launch.allocation import (
    Node,
    expand_counts,
    expand_nodelist,
    find_allocation,
    parse_nodefile,
    parse_pe_hostfile,
)

TORQUE = {"PBS_JOBID": "12.vm", "PBS_NODEFILE": "/aux/12.vm", "PBS_NODENUM": "0", "PBS_ENVIRONMENT": "PBS_BATCH"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_NTASKS": "6", "SLURM_TASKS_PER_NODE": "2(x3)"}
SGE = {"JOB_ID": "3", "PE_HOSTFILE": "/spool/pe_hostfile"}


def find(environ: dict[str, str], text: str = "n1\nn1\nn2\n", **kw):  # type: ignore[no-untyped-def]
    return find_allocation(environ, which=lambda name: f"/bin/{name}", read=lambda path: text, hostname="n1.c", **kw)


@pytest.mark.row("B04")
def test_a_node_file_counts_slots_and_keeps_the_order() -> None:
    assert parse_nodefile("b\nb\na\n\n b \na\n") == (Node("b", 3), Node("a", 2))
    with pytest.raises(AllocationError, match="PBS_NODEFILE names no node"):
        parse_nodefile("\n")
    with pytest.raises(AllocationError, match="names a node 'a b'"):
        parse_nodefile("a b\n")


@pytest.mark.row("B04")
@given(st.lists(st.sampled_from(["n1", "n2", "node-3.cluster"]), min_size=1))
def test_no_slot_of_a_node_file_is_lost(names: list[str]) -> None:
    nodes = parse_nodefile("\n".join(names))
    assert {node.name: node.slots for node in nodes} == {name: names.count(name) for name in names}
    assert [node.name for node in nodes] == list(dict.fromkeys(names))


@pytest.mark.row("B05")
def test_a_pe_hostfile_repeats_hosts_by_their_slots() -> None:
    # two lines as gridengine 8.1.9 wrote them, and one host in two queues
    text = "sgen1 1 batch@sgen1 UNDEFINED\n\nsgen2 2 batch@sgen2 <NULL> extra\nsgen1 3 fast@sgen1 UNDEFINED\n"
    assert parse_pe_hostfile(text) == (Node("sgen1", 4), Node("sgen2", 2))
    with pytest.raises(AllocationError, match="line 2 of PE_HOSTFILE"):
        parse_pe_hostfile("a 1\nb\n")


@pytest.mark.row("B03")
@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-3,07],login", ["n1", "n2", "n3", "n07", "login"]),
        ("r[1-2]n[08-10]", ["r1n08", "r1n09", "r1n10", "r2n08", "r2n09", "r2n10"]),
        ("a-b[1]x", ["a-b1x"]),
    ],
)
def test_names_of_nodes_as_slurm_shortens_them(short: str, names: list[str]) -> None:
    assert expand_nodelist(short) == names


@pytest.mark.row("B03")
@pytest.mark.parametrize("text", ["n[1-", "n[a]", "n[3-1]", "n]", "n[1-99999999]"])
def test_what_is_no_list_of_nodes_is_said_to_be_none(text: str) -> None:
    with pytest.raises(AllocationError, match="no list of nodes"):
        expand_nodelist(text)


@pytest.mark.row("B03")
def test_counts_as_slurm_shortens_them() -> None:
    assert expand_counts("4(x2),1") == [4, 4, 1]
    with pytest.raises(AllocationError):
        expand_counts("4(x")


@pytest.mark.row("B03", "B07")
def test_torque() -> None:
    found = find(TORQUE)
    assert (found.system, found.job, found.launcher, found.here, found.slots) == ("pbs", "12.vm", "pbsdsh", "n1", 3)
    # a machine that calls itself something else than its batch system does
    assert find_allocation(TORQUE, read=lambda _: "x1\nx2\n", hostname="login9").here == "x1"


@pytest.mark.row("B03")
def test_slurm_by_its_own_variables_and_by_those_of_its_qsub() -> None:
    found = find(SLURM)
    assert found.nodes == (Node("n1", 2), Node("n2", 2), Node("n3", 2))
    assert (found.system, found.launcher, found.here) == ("slurm", "srun", "n1")
    both = find({**SLURM, "PBS_JOBID": "7", "PBS_NODEFILE": "/aux/7"})
    assert (both.system, both.nodes) == ("slurm", (Node("n1", 2), Node("n2", 1)))
    outside = find_allocation(SLURM, hostname="login")  # a shell of salloc
    assert outside is not None and outside.here is None
    whole = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}
    assert find(whole).slots == 8
    with pytest.raises(AllocationError, match="names 3 nodes, and slots are given for 1"):
        find({**SLURM, "SLURM_TASKS_PER_NODE": "1"})


@pytest.mark.row("B03", "B05")
def test_sge() -> None:
    found = find(SGE, "n1 2 q\nn2 1 q\n")
    assert (found.system, found.job, found.launcher, found.slots) == ("sge", "3", "qrsh", 3)


@pytest.mark.row("B03")
def test_no_job_two_jobs_and_the_word_that_settles_it() -> None:
    assert find({}) is None
    two = {**TORQUE, **SLURM}
    with pytest.raises(AllocationError, match=r"slurm and pbs at once .*PBS_JOBID=12\.vm.*GRID_ALLOCATION"):
        find(two)
    assert find({**two, "GRID_ALLOCATION": "pbs"}).system == "pbs"
    assert find({**two, "GRID_ALLOCATION": "none"}) is None
    with pytest.raises(AllocationError, match="GRID_ALLOCATION is 'lsf'"):
        find({"GRID_ALLOCATION": "lsf"})


@pytest.mark.row("B03", "B04")
def test_missing_variables_and_files_are_named() -> None:
    with pytest.raises(AllocationError, match=r"PBS_NODEFILE is not set in job 12\.vm.*first node"):
        find({"PBS_JOBID": "12.vm"})
    with pytest.raises(AllocationError, match="PBS_NODEFILE names /nowhere, which can't be read"):
        find_allocation({"PBS_NODEFILE": "/nowhere"})
    with pytest.raises(AllocationError, match=r"in no batch job .*PBS_NODEFILE.*PE_HOSTFILE.*grid qsub"):
        allocation_hosts(environ={})


@pytest.mark.row("B06")
def test_launchers() -> None:
    assert find_allocation(SLURM, which=lambda name: None).launcher == "ssh"
    assert find(SLURM, launcher="ssh").launcher == "ssh"
    with pytest.raises(AllocationError, match=r"'pbsdsh' does not start programs in a job of slurm.*srun or ssh"):
        find(SLURM, launcher="pbsdsh")
    with pytest.raises(AllocationError, match="command srun is not on the PATH"):
        find_allocation(SLURM, launcher="srun", which=lambda name: None)


@pytest.mark.row("B07")
def test_servers_on_other_nodes_get_the_jobs_environment_but_nothing_of_one_task() -> None:
    of_the_job = {"PATH": "/opt/bin", "LD_LIBRARY_PATH": "/l"}
    environ = {**of_the_job, "PBS_TASKNUM": "1", "SSH_CLIENT": "x", "BASH_FUNC_m%%": "()"}
    assert job_environment(environ) == of_the_job
