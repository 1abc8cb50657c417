"""A site adds a batch system that grid has never heard of, by a package of its own. Nothing of grid is touched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grid import AllocationError, BatchGrid, Grid, Limits
from grid.batch import DIALECTS, BatchSystem, JobSpec, JobState
from grid.batch_systems.known import launcher_names
from grid.hosts import Host
from grid.launch import connect
from grid.testing.batch import wait_for
from grid.testing.probe import Probe

# -- the site's package ------------------------------------------------------------------------------------------------

MODULE = '''
import re
from grid.batch_systems import Dialect, JobState, JobStatus, Launcher, Node

class Toy(Dialect):
    """Jobs are files; `toy` does everything."""

    name = "toy"
    title = "the toy system"
    mark = "#TOY"
    commands = ("toy",)
    signs = ("TOY_JOB",)
    job_variable = "TOY_JOB"
    job_id = re.compile(r"t\\d+\\Z")
    _id = re.compile(r"\\A(t\\d+)\\Z")

    def directives(self, spec):
        return [f"nodes {spec.nodes}", f"slots {spec.ppn}", f"output {spec.output or '/dev/null'}"]

    def submit_command(self, spec, path):
        return ["toy", "submit", path]

    def status_command(self, ids):
        return ["toy", "jobs"]

    def parse_status(self, text):
        states = {"R": JobState.RUNNING, "D": JobState.DONE}
        return [JobStatus(job, states[state], nodes="toy1") for job, state in re.findall(r"(t\\d+) (.)", text)]

    def cancel_command(self, job):
        return ["toy", "kill", job]

    def nodes(self, environ, read, hostname):
        return tuple(Node(name, int(environ["TOY_SLOTS"])) for name in environ["TOY_NODES"].split())

    @property
    def launchers(self):
        return (Launcher("toyrun", lambda node, environ: ["toyrun", node], carries_streams=True),)

    def pilot_lines(self, nodes):
        return 'rank=0; for n in $TOY_NODES; do start toyrun $n /bin/sh "$here/rank.sh" $rank; rank=$((rank+1)); done'
'''

COMMAND = """\
import os, re, signal, subprocess, sys
base = os.environ["TOY_BASE"]
what, *words = sys.argv[1:]
if what == "submit":
    text = open(words[0]).read()
    asked = dict(re.findall(r"^#TOY (\\w+) (\\S+)", text, re.M))
    number = len(os.listdir(base + "/jobs")) + 1
    with open("%s/script%d" % (base, number), "w") as file:
        file.write(text)
    env = {**os.environ, "TOY_JOB": "t%d" % number, "TOY_SLOTS": asked["slots"],
           "TOY_NODES": " ".join("toy%d" % (i + 1) for i in range(int(asked["nodes"])))}
    with open(asked["output"], "ab") as output:
        child = subprocess.Popen(["/bin/sh", "%s/script%d" % (base, number)], env=env, stdin=subprocess.DEVNULL,
                                 stdout=output, stderr=output, start_new_session=True)
    with open("%s/jobs/t%d" % (base, number), "w") as file:
        file.write(str(child.pid))
    print("t%d" % number)
elif what == "jobs":
    for job in os.listdir(base + "/jobs"):
        try:
            with open("/proc/%s/stat" % open(base + "/jobs/" + job).read()) as file:
                state = "D" if file.read().rpartition(") ")[2][0] == "Z" else "R"
        except OSError:
            state = "D"
        print(job, state)
else:
    try:
        os.killpg(int(open(base + "/jobs/" + words[0]).read()), signal.SIGTERM)
    except (OSError, ValueError) as exc:
        sys.exit("toy: %s" % exc)
"""

RUN = """\
import os, sys
if sys.argv[1] not in os.environ["TOY_NODES"].split():
    sys.exit("toyrun: no such node")
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    about = site / "toy_system-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "toy_system.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-system\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[grid.batch_systems]\ntoy = toy_system:Toy\nbroken = toy_system:NoSuchClass\n"
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("toy", COMMAND), ("toyrun", RUN)):
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    (tmp_path / "base" / "jobs").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TOY_BASE", str(tmp_path / "base"))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.syspath_prepend(str(site))
    yield tmp_path
    sys.modules.pop("toy_system", None)


# -- all that grid does with it ----------------------------------------------------------------------------------------


@pytest.mark.row("L01")
def test_its_jobs_are_submitted_asked_for_and_ended(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "toy" in DIALECTS and "torque" in DIALECTS and "broken" not in DIALECTS
    assert "toy_system:NoSuchClass" in caplog.text  # one that can't be loaded is told of, and harms no other
    with connect(Host("here", ssh="local")) as connection:
        system = BatchSystem(connection, "toy")
        job = system.submit(JobSpec(command="echo $A; exec sleep 100", output=f"{toy}/out", variables={"A": "x,y"}))
        wait_for(system, job, JobState.RUNNING)
        system.cancel(job)
        wait_for(system, job, JobState.DONE)
        assert (toy / "out").read_text() == "x,y\n"
        with pytest.raises(AllocationError, match="'12' is no id of a job of the toy system"):
            system.status(["12"])


@pytest.mark.row("L01")
def test_a_job_of_it_is_known_from_inside_and_its_nodes_are_reached_by_its_launcher(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TOY_JOB", "t7"), ("TOY_NODES", "far1 far2"), ("TOY_SLOTS", "2")):
        monkeypatch.setenv(name, value)
    assert "toyrun" in launcher_names()
    with Grid.from_allocation(wait="all") as g:
        assert [(host.name, host.n_cpu, host.ssh) for host in g.hosts] == [("far1", 2, "toyrun"), ("far2", 2, "toyrun")]
        sid = g.publish(Probe())
        assert g.size(sid) == 4
        assert len(set(g.gather(g.broadcast(sid, "where")))) == 4
        g.release_all()


@pytest.mark.row("L01")
def test_its_pilots_hold_nodes_and_leave_nothing(toy: Path) -> None:
    quick = Limits(heartbeat_s=0.5, lost_s=3.0, orphan_s=4.0, stop_s=2.0)
    with BatchGrid(nodes=2, ppn=2, dialect="toy", walltime=60, wait="all", poll_s=1.0, limits=quick) as g:
        sid = g.publish(Probe())
        assert g.size(sid) == 4
    assert not list((toy / "home" / ".grid" / "pilots").iterdir())
