"""What the environment tells of a batch job: nodes, slots, launcher, and clear words where it makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch_systems import DIALECTS, Node
from grid.batch_systems.pbs import parse_nodefile
from grid.batch_systems.sge import parse_pe_hostfile
from grid.batch_systems.slurm import expand_counts, expand_nodelist
from grid.errors import AllocationError
from grid.grids.allocation import allocation_hosts, job_environment
from grid.launch.allocation import find_allocation

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
    assert (found.system, found.job, found.launcher, found.here, found.slots) == ("torque", "12.vm", "pbsdsh", "n1", 3)
    # a machine that calls itself something else than its batch system does
    assert find_allocation(TORQUE, read=lambda _: "x1\nx2\n", hostname="login9").here == "x1"


@pytest.mark.row("B03")
def test_slurm_by_its_own_variables_and_by_those_of_its_qsub() -> None:
    found = find(SLURM)
    assert found.nodes == (Node("n1", 2), Node("n2", 2), Node("n3", 2))
    assert (found.system, found.launcher, found.here) == ("slurm", "srun", "n1")
    both = find({**SLURM, "PBS_JOBID": "7", "PBS_NODEFILE": "/aux/7"}, "n1\nn1\nn2\nn2\nn3\nn3\n")
    assert (both.system, both.nodes) == ("slurm", found.nodes)
    outside = find_allocation(SLURM, hostname="login")  # a shell of salloc
    assert outside is not None and outside.here is None
    whole = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}
    assert find(whole).slots == 8
    with pytest.raises(AllocationError, match="names 3 nodes, and slots are given for 1"):
        find({**SLURM, "SLURM_TASKS_PER_NODE": "1"})


@pytest.mark.row("B03", "L11")
@pytest.mark.parametrize("outer_nodes", ["n1\nn2\nn3\n", "n1\nn1\nn1\nn1\nn2\nn2\n", "a\nb\n", None])
@pytest.mark.parametrize("outer_id", ["5", None, "7"])
def test_a_job_that_was_submitted_from_inside_another_reads_its_own_allocation(
    outer_nodes: str | None, outer_id: str | None
) -> None:
    """What its own system does not set is inherited: the node file of Slurm's qsub, numbers of tasks, options."""
    mine = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "2(x3)"}
    mine |= {"SLURM_JOB_CPUS_PER_NODE": "2(x3)", "PBS_NODEFILE": "/aux/5", "SLURM_HET_SIZE": "2"}
    mine |= {"SLURM_JOB_ID_HET_GROUP_0": "5", "SLURM_JOB_NODELIST_HET_GROUP_0": "x1", "SLURM_NPROCS": "9"}
    if outer_id:
        mine["PBS_JOBID"] = outer_id

    def read(path: str) -> str:
        if outer_nodes is None:
            raise FileNotFoundError(path)
        return outer_nodes

    for tasks in ("6", "9", None):
        environ = {**mine, **({"SLURM_NTASKS": tasks} if tasks else {})}
        found = find_allocation(environ, which=lambda name: f"/bin/{name}", read=read, hostname="n2")
        assert found is not None
        assert (found.system, found.job, found.here) == ("slurm", "7", "n2")
        assert found.nodes == (Node("n1", 2), Node("n2", 2), Node("n3", 2))


@pytest.mark.row("B03", "L11")
def test_a_heterogeneous_job_has_the_nodes_of_all_its_components() -> None:
    environ = {
        "SLURM_JOB_ID": "12",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_HET_SIZE": "2",
        "SLURM_NTASKS": "2",
        "SLURM_TASKS_PER_NODE": "2",
        "SLURM_JOB_ID_HET_GROUP_0": "12",
        "SLURM_JOB_NODELIST_HET_GROUP_0": "n1",
        "SLURM_NTASKS_HET_GROUP_0": "2",
        "SLURM_TASKS_PER_NODE_HET_GROUP_0": "2",
        "SLURM_JOB_ID_HET_GROUP_1": "13",
        "SLURM_JOB_NODELIST_HET_GROUP_1": "n[2-3]",
        "SLURM_NTASKS_HET_GROUP_1": "2",
        "SLURM_TASKS_PER_NODE_HET_GROUP_1": "1(x2)",
    }
    assert find(environ).nodes == (Node("n1", 2), Node("n2", 1), Node("n3", 1))
    (srun,) = DIALECTS["slurm"].launchers
    for node, group in (("n1", 0), ("n3", 1)):  # asked for with the second component's own id srun refuses
        assert {"--jobid=12", f"--het-group={group}"} <= set(srun.words(node, environ))
    assert {name for name in environ if srun.without(name)} >= {"SLURM_NTASKS", "SLURM_TASKS_PER_NODE_HET_GROUP_1"}
    assert not any(srun.without(name) for name in ("SLURM_JOB_ID", "SLURM_CONF", "PATH", "PBS_JOBID"))


@pytest.mark.row("B03", "L03")
def test_pbs_and_torque_are_told_apart_by_their_variables() -> None:
    recorded = {"PBS_JOBID": "61.head", "PBS_NODEFILE": "/var/spool/pbs/aux/61.head", "PBS_NODENUM": "0"}
    recorded |= {"PBS_JOBDIR": "/home/mara", "PBS_O_SYSTEM": "Linux", "PBS_JOBCOOKIE": "0", "PBS_MOMPORT": "15003"}
    pbs = find(recorded)
    assert (pbs.system, pbs.launcher, pbs.here) == ("pbspro", "pbs_tmrsh", "n1")
    only_pbsdsh = find_allocation(
        recorded, which=lambda name: name if name == "pbsdsh" else None, read=lambda path: "n1\nn1\nn2\n", hostname="n1"
    )
    assert only_pbsdsh is not None and only_pbsdsh.launcher == "pbsdsh"
    torque = find({**TORQUE, "PBS_VNODENUM": "0", "PBS_NP": "3", "PBS_VERSION": "TORQUE-6.1.3.h5"})
    assert (torque.system, torque.launcher) == ("torque", "pbsdsh")
    # a task on a job's first node has no PBS_NODEFILE, but there is one
    task = {name: value for name, value in recorded.items() if name != "PBS_NODEFILE"}
    seen = []
    find_allocation(task, which=lambda name: None, read=lambda path: seen.append(path) or "n1\n", hostname="n1")  # type: ignore[func-returns-value]
    assert seen == ["/var/spool/pbs/aux/61.head"]


@pytest.mark.row("B03", "B05")
def test_sge() -> None:
    found = find(SGE, "n1 2 q\nn2 1 q\n")
    assert (found.system, found.job, found.launcher, found.slots) == ("sge", "3", "qrsh", 3)
    alone = find({"JOB_ID": "4", "SGE_TASK_ID": "undefined"})  # a job of one slot has no PE_HOSTFILE
    assert (alone.system, alone.nodes, alone.here) == ("sge", (Node("n1.c", 1),), "n1.c")
    assert find({"JOB_ID": "4"}) is None  # a word that others use as well


@pytest.mark.row("B03")
def test_no_job_two_jobs_and_the_word_that_settles_it() -> None:
    assert find({}) is None
    two = {**TORQUE, **SLURM}
    with pytest.raises(AllocationError, match=r"slurm and pbs at once .*PBS_JOBID=12\.vm.*GRID_ALLOCATION"):
        find(two)
    assert find({**two, "GRID_ALLOCATION": "pbs"}).system == "torque"
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
