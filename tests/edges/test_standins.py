"""What a batch system must do, on a stand-in for each that there is a record of. On the real Slurm: `cluster/`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grid import AllocationError, BatchGrid, Limits, LocalGrid, ServerLost, SubmitError
from grid.batch import BatchSystem, JobSpec, JobState
from grid.cli.main import main
from grid.hosts import Host
from grid.launch import connect
from grid.testing.batch import CHECKS, quiet, wait_for
from grid.testing.probe import Probe
from grid.testing.standins import DIALECT, KINDS, StandIn, stand_in
from grid.testing.standins.engine import Base
from grid.testing.standins.slurm_commands import PREEMPTED

NIGHTLY = bool(os.environ.get("GRID_NIGHTLY"))
WITH_GRIDS = list(KINDS) if NIGHTLY else ["torque", "openpbs-off"]
"""Kinds on which grids are started: all by `scripts/nightly`. More of it in `cluster/`, on real systems as well."""
grids = pytest.mark.parametrize("shared", WITH_GRIDS, indirect=True)


@pytest.fixture(scope="module", params=list(KINDS))
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """One of each kind for all tests of this file."""
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(directory / "home"))
        patch.delenv("GRID_DIALECT", raising=False)
        # in a patch of its own: undone after the stand-in's end, it would set for others what that had set
        with stand_in(request.param, directory / "system") as found, pytest.MonkeyPatch.context() as within:
            within.delenv("GRID_DIALECT")
            yield found
    assert "GRID_DIALECT" not in os.environ


@pytest.mark.row("B01", "B09", "B11", "B12", "L10")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_stand_in_does_what_a_batch_system_does(
    check: Callable[[BatchSystem, str], None], shared: StandIn, tmp_path: Path
) -> None:
    with connect(Host("here", ssh="local")) as connection:
        check(BatchSystem(connection, DIALECT[shared.kind]), str(tmp_path))


@pytest.mark.row("B12")
def test_a_stand_in_leaves_the_jobs_of_another_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    spec = JobSpec(command="exec sleep 60", **quiet_spec(tmp_path))
    with stand_in("slurm", tmp_path / "one"), connect(Host("here", ssh="local")) as connection:
        system = BatchSystem(connection, "slurm")
        job = system.submit(spec)
        wait_for(system, job, JobState.RUNNING)
        with stand_in("slurm", tmp_path / "two"), connect(Host("here", ssh="local")) as another:
            there = BatchSystem(another, "slurm")
            assert there.submit(spec) == job, "their numbers and nodes are the same"
            wait_for(there, job, JobState.RUNNING)
            there.cancel(job)
            wait_for(there, job, JobState.DONE)
        assert system.status([job])[job].state is JobState.RUNNING
        system.cancel(job)
        wait_for(system, job, JobState.DONE)


# -- grids on it -------------------------------------------------------------------------------------------------------

QUICK = Limits(heartbeat_s=0.5, lost_s=3.0, orphan_s=4.0, stop_s=2.0)
IN_A_JOB = """\
import sys, time
sys.path.insert(0, sys.argv[1])
began = time.time()
from grid import Grid, Limits
from grid.testing.probe import Probe
with Grid.from_allocation(wait="all", limits=Limits(heartbeat_s=0.5, lost_s=3.0, orphan_s=4.0, stop_s=2.0)) as g:
    sid = g.publish(Probe())
    proxy = g.acquire_service(sid)
    proxy.add().get()
    print("first", time.time() - began, flush=True)
    g.release_service(proxy)
    print("size", g.size(sid), [(host.name, host.ssh) for host in g.hosts], flush=True)
    if sys.argv[2] == "busy":
        proxies = g.broadcast(sid, "wait_for", "/nowhere/never", 300)
        open("up", "w").close()
        g.gather(proxies)
    if sys.argv[2] == "idle":
        open("up", "w").close()
        time.sleep(300)
sys.exit(int(sys.argv[3]))
"""
ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def place(shared: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that all nodes see, with the script of a job."""
    (tmp_path / "run.py").write_text(IN_A_JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRID_DIALECT", DIALECT[shared.kind])
    return tmp_path


def qsub(kind: str, *words: str, nodes: str = "nodes=3:ppn=2") -> Result:
    options = ["--pe", "mpi"] if kind == "sge" else []
    return CliRunner().invoke(main, ["qsub", *options, "-l", f"{nodes},walltime=0:05:00", *words])


def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def text_of(path: Path, word: str) -> str:
    """What a job printed, once that word is there: a job's output may come late."""
    until(lambda: path.exists() and word in path.read_text())
    return path.read_text()


def left_of_jobs() -> list[str]:
    """Files of ours in the home directory but for the records of jobs."""
    base = Path.home() / ".grid"
    kept = base / "batch"
    try:
        return _left_below(base, kept)
    except FileNotFoundError as gone:  # just now
        return [str(gone.filename)]


def _left_below(base: Path, kept: Path) -> list[str]:
    return [str(path) for path in base.rglob("*") if path.is_file() and kept not in path.parents] + [
        str(path) for name in ("spool", "pilots") if (base / name).exists() for path in (base / name).iterdir()
    ]


def left_within(limit_s: float) -> None:
    """Nothing of jobs is left after so long at most."""
    deadline = time.monotonic() + limit_s
    while left := left_of_jobs():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@grids
@pytest.mark.row("L10", "L12", "B08")
def test_a_script_in_a_job_has_the_nodes_of_the_job(shared: StandIn, place: Path) -> None:
    done = qsub(shared.kind, "-o", "out", "-j", "oe", "--wait", "--", "python", "run.py", ROOT, "end", "3")
    assert done.exit_code == 3, (done.output, (place / "out").read_text() if (place / "out").exists() else "")
    said = text_of(place / "out", "size")
    assert "size 6" in said, said
    if NIGHTLY:  # on a machine that does nothing else
        assert float(said.split()[1]) < 3.0, said
    assert left_of_jobs() == []


@grids
@pytest.mark.row("L06", "L07", "L10")
@pytest.mark.parametrize("doing", ["idle", "busy"] if NIGHTLY else ["busy"])
def test_a_job_that_is_cancelled_leaves_nothing(shared: StandIn, place: Path, doing: str) -> None:
    job = qsub(shared.kind, "-o", "out", "-j", "oe", "--", "python", "run.py", ROOT, doing, "0").stdout.strip()
    until((place / "up").exists)
    assert CliRunner().invoke(main, ["batch", "cancel", job]).exit_code == 0
    until(lambda: not [task for task in shared.path.glob("tasks/*/*.json") if not task.with_suffix(".exit").exists()])
    left_within(15)


def pilots(kind: str, **kw: object) -> BatchGrid:
    given: dict[str, object] = {"walltime": 120, "poll_s": 1.0, "limits": QUICK, "wait": "all", "output": None, **kw}
    given |= {"parallel_environment": "mpi"} if kind == "sge" else {}
    return BatchGrid(**given)  # type: ignore[arg-type]


@grids
@pytest.mark.row("L03", "L08", "L10", "B02")
def test_pilots_hold_nodes_and_leave_nothing(shared: StandIn, place: Path) -> None:
    with pilots(shared.kind, nodes=3, ppn=2) as g:
        sid = g.publish(Probe())
        assert g.size(sid) == 6
        assert [node["state"] for node in g.status()["pilots"][0]["nodes"]] == ["connected"] * 3
        assert set(g.gather(g.broadcast(sid, "environment", "OMP_NUM_THREADS"))) <= {"1", None}
        g.release_all()
        g.grow()
        g.shrink(1)
        until(lambda: len(g.status()["pilots"]) == 1)  # what was given back is not told of
        assert left_of_jobs() and not [path for path in left_of_jobs() if path.endswith("/stdin")]  # it held keys
    assert left_of_jobs() == []


@grids
@pytest.mark.row("L04", "L06", "L10", "B02")
def test_a_pilot_that_is_cancelled_loses_its_servers_and_leaves_nothing(shared: StandIn, place: Path) -> None:
    with pilots(shared.kind, nodes=2, ppn=2) as g:
        sid = g.publish(Probe())
        proxy = g.acquire_service(sid)
        running = proxy.wait_for(str(place / "never"))
        with connect(Host("here", ssh="local")) as connection:
            BatchSystem(connection).cancel(g.status()["pilots"][0]["job"])
        with pytest.raises(ServerLost):
            running.get(60)
    left_within(15)


@grids
@pytest.mark.row("L06", "L10", "G63")
def test_a_client_that_is_killed_leaves_neither_jobs_nor_files(shared: StandIn, place: Path) -> None:
    script = place / "client.py"
    script.write_text(
        f"import os, signal, sys\nsys.path.insert(0, {ROOT!r})\nfrom grid import BatchGrid, Limits\n"
        "from grid.testing.probe import Probe\n"
        "limits = Limits(heartbeat_s=0.5, lost_s=2.0, orphan_s=3.0)\n"
        f"pe = 'mpi' if {shared.kind!r} == 'sge' else None\n"
        "g = BatchGrid(nodes=2, ppn=2, walltime=120, limits=limits, wait='all', parallel_environment=pe)\n"
        "g.publish(Probe())\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=90)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(lambda: not unfinished(shared))
    left_within(15)
    with LocalGrid(1):
        pass  # the next grid removes what the killed one left on this machine


def unfinished(shared: StandIn) -> list[str]:
    return [str(task) for task in shared.path.glob("tasks/*/*.json") if not task.with_suffix(".exit").exists()]


SCRIPT = """\
import os, signal, sys, time
if sys.argv[1] == "told":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getppid(), signal.SIGTERM)  # as a batch system does that ends a job
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.row("L02", "L07", "L10")
def test_how_a_job_ended_is_told_apart(shared: StandIn, place: Path) -> None:
    (place / "end.py").write_text(SCRIPT)
    quiet = ("-o", "/dev/null", "-e", "/dev/null")
    for word, code, state in (("0", 0, "done"), ("3", 3, "failed"), ("told", 143, "killed")):
        done = qsub(shared.kind, *quiet, "--wait", "--", "python", "end.py", word, nodes="nodes=1")
        assert done.exit_code == code, done.output
        assert code != 143 or "killed (" in done.output, done.output
        job = done.stdout.split()[0]
        until(lambda job=job: status_of(job)["state"] != "exiting")  # its script has ended; its system says so later
        row = status_of(job)
        assert (row["state"], row["exit_status"]) == (state, code), row
    (place / "end.py").write_text("import time; open('up', 'w').close(); time.sleep(300)")
    job = qsub(shared.kind, *quiet, "--", "python", "end.py", nodes="nodes=1").stdout.strip()
    until((place / "up").exists)
    assert status_of(job)["state"] == "running"
    cancelled = CliRunner().invoke(main, ["batch", "cancel", job])
    assert cancelled.exit_code == 0, cancelled.output
    until(lambda: status_of(job)["state"] == "cancelled")
    assert any(row["job"] == job for row in json.loads(CliRunner().invoke(main, ["batch", "status", "--json"]).stdout))


def status_of(job: str) -> dict[str, object]:
    said = CliRunner().invoke(main, ["batch", "status", job, "--json"])
    (row,) = json.loads(said.stdout)
    found: dict[str, object] = row
    return found


@pytest.mark.row("L05", "L10", "B09", "B11")
def test_a_server_that_is_down_or_hangs(shared: StandIn, place: Path) -> None:
    spec = JobSpec(command=":", **quiet_spec(place))
    with connect(Host("here", ssh="local")) as connection:
        system = BatchSystem(connection, retries=1, pause_s=0.01, command_s=3.0)
        job = system.submit(JobSpec(command="exec sleep 60", **quiet_spec(place)))
        try:
            wait_for(system, job, JobState.RUNNING)
            before = shared.next_number()
            shared.mode("down")
            with pytest.raises(SubmitError, match="Its server does not answer") as caught:
                system.submit(spec)
            assert caught.value.connection and "Ask for less" not in str(caught.value)
            for ask in (lambda: system.status([job]), lambda: system.cancel(job)):
                with pytest.raises(AllocationError, match="does not tell of its jobs"):
                    ask()
            shared.mode("hung")
            with pytest.raises(AllocationError, match="did not answer within 3 s"):
                system.submit(spec)
            shared.mode("up")
            assert system.status([job])[job].state is JobState.RUNNING  # it ran on
            time.sleep(0.3)  # nothing can be waited for: what was given up is not to come
            assert shared.next_number() == before
        finally:
            shared.mode("up")
            system.cancel(job)
        wait_for(system, job, JobState.DONE)


def quiet_spec(place: Path) -> dict[str, object]:
    return quiet(str(place))


@pytest.mark.row("L10", "B11")
def test_words_that_are_no_ids_and_jobs_that_nobody_knows(shared: StandIn, place: Path) -> None:
    for word in ("nonsense", "abc.xyz", "@head", ""):
        said = CliRunner().invoke(main, ["batch", "status", word])
        assert said.exit_code == 1 and "is no id of a job" in said.output, said.output
        assert CliRunner().invoke(main, ["batch", "cancel", word]).exit_code == 1
    assert status_of("987654")["state"] == "unknown"
    missing = qsub(shared.kind, "-o", "nosuch/out", "--", "python", "run.py", nodes="nodes=1")
    assert missing.exit_code == 2 and "there is no directory" in missing.output


WAITS = """\
import os, sys, time
open("up", "w").close()
while not os.path.exists("go"):
    time.sleep(0.02)
sys.exit(3)
"""


@pytest.mark.row("L15", "B08", "L10")
def test_a_server_that_goes_down_and_comes_back_while_a_job_is_waited_for(shared: StandIn, place: Path) -> None:
    (place / "run.py").write_text(WAITS)
    (place / "file").write_text("")
    words = ["qsub", *(["--pe", "mpi1"] if shared.kind == "sge" else []), "-l", "nodes=1,walltime=0:05:00", "--wait"]
    # it may start again: so its end is the server's to tell, and not its script's
    own = {"sge": "#$ -r y", "slurm": "#SBATCH --requeue"}.get(shared.kind, "#PBS -r y")
    words += ["--line", own]
    command = [sys.executable, "-m", "grid", *words, "-o", "/dev/null", "-j", "oe", "--", "python", "run.py"]
    with open("said", "w") as err, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err) as waiting:
        try:
            until((place / "up").exists)
            shared.mode("down")
            until(lambda: "does not tell of its jobs" in (place / "said").read_text())
            (place / "go").touch()
            until(lambda: (place / "said").read_text().count("is asked again") == 1)
        finally:
            shared.mode("up")
        assert waiting.wait(60) == 3, (place / "said").read_text()
    said = (place / "said").read_text()
    assert said.count("does not tell of its jobs") == 1 and "without a word" not in said, said


OF_ARRAYS = {"sge": "#$ -t 1-3", **dict.fromkeys(("openpbs", "openpbs-off", "openpbs-git"), "#PBS -J 1-3")}
OF_ARRAYS["torque"] = "#PBS -t 1-3"
TASK = """\
import os, sys, time
variables = ("PBS_ARRAY_INDEX", "PBS_ARRAYID", "SGE_TASK_ID")
(index,) = (os.environ[name] for name in variables if name in os.environ)
open("up" + index, "w").close()
while not os.path.exists("go" + index):
    time.sleep(0.02)
sys.exit(4 if index == "3" else 0)
"""
arrays = pytest.mark.parametrize(
    "shared", list(OF_ARRAYS) if NIGHTLY else ["torque", "openpbs-off", "sge"], indirect=True
)


def task_id(job: str, index: int, kind: str) -> str:
    return f"{job}.{index}" if kind == "sge" else job.replace("[]", f"[{index}]")


@arrays
@pytest.mark.row("L16", "B11", "L07", "L10")
def test_tasks_of_an_array_are_told_of_alone_and_one_is_cancelled_alone(shared: StandIn, place: Path) -> None:
    (place / "run.py").write_text(TASK)
    words = ["-o", "/dev/null", "-e", "/dev/null", "--line", OF_ARRAYS[shared.kind]]
    asked = qsub(shared.kind, *words, "--", "python", "run.py", nodes="nodes=1")
    assert asked.exit_code == 0, asked.output
    job = asked.stdout.strip()
    assert shared.kind == "sge" or re.fullmatch(r"\d+\[\]\.head", job), job
    one, two, three = (task_id(job, index, shared.kind) for index in (1, 2, 3))
    until(lambda: all((place / f"up{index}").exists() for index in (1, 2, 3)))
    assert [status_of(each)["state"] for each in (job, one, two, three)] == ["running"] * 4
    assert CliRunner().invoke(main, ["batch", "cancel", two]).exit_code == 0
    until(lambda: status_of(two)["state"] == "cancelled")
    short = task_id(job.partition(".")[0], 1, shared.kind) if shared.kind != "sge" else one
    assert [status_of(each)["state"] for each in (job, short, three)] == ["running"] * 3
    (place / "go1").touch()
    until(lambda: status_of(one)["state"] == "done")
    assert (status_of(job)["state"], status_of(three)["state"]) == ("running", "running")
    (place / "go3").touch()
    until(lambda: status_of(three)["state"] == "failed")
    until(lambda: status_of(job)["state"] not in ("running", "exiting"))
    assert status_of(three)["exit_status"] == 4
    assert CliRunner().invoke(main, ["batch", "cancel", two, job]).exit_code == 0, "those that have ended"


@arrays
@pytest.mark.row("L16", "B08", "L10")
def test_an_array_is_waited_for_to_its_last_task_or_cancelled_as_a_whole(shared: StandIn, place: Path) -> None:
    (place / "run.py").write_text(TASK)
    for index in (1, 2, 3):
        (place / f"go{index}").touch()
    words = ["-o", "/dev/null", "-e", "/dev/null", "--line", OF_ARRAYS[shared.kind]]
    done = qsub(shared.kind, *words, "--wait", "--", "python", "run.py", nodes="nodes=1")
    assert done.exit_code == 4, done.output
    job = done.stdout.split()[0]
    assert (status_of(job)["state"], status_of(job)["exit_status"]) == ("failed", 4)
    (place / "go2").unlink()
    asked = qsub(shared.kind, *words, "--", "python", "run.py", nodes="nodes=1")
    job = asked.stdout.strip()
    until(lambda: status_of(task_id(job, 3, shared.kind))["state"] == "failed")
    assert status_of(job)["state"] == "running"
    assert CliRunner().invoke(main, ["batch", "cancel", job]).exit_code == 0
    until(lambda: status_of(task_id(job, 2, shared.kind))["state"] == "cancelled")
    until(lambda: status_of(job)["state"] == "cancelled")


@pytest.mark.row("L09", "B08", "L10")
@pytest.mark.parametrize("kind", ["torque", "openpbs", "openpbs-off"])
def test_output_that_can_not_be_delivered_is_told_of(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grid.cli.batch._COPY_S", 0.5)
    (tmp_path / "run.py").write_text("import os; os.rmdir('results'); print('lost')")
    with stand_in(kind, tmp_path / "system", copy_retry_s=0.2):
        refused = qsub(kind, "-o", "nowhere/out", "--", "python", "run.py", nodes="nodes=1")
        assert refused.exit_code == 2 and "there is no directory" in refused.output, refused.output
        done = qsub(kind, "-o", "results/out", "-j", "oe", "--wait", "--", "python", "run.py", nodes="nodes=1")
        assert done.exit_code == 0, done.output
        lost = f"{tmp_path}/results/out"
        assert f"the output {lost} is missing: its directory is not there" in done.output, done.output
        assert "undelivered" in done.output
        job = done.stdout.split()[0]
        until(lambda: status_of(job)["state"] == "done")
        assert f"its output {lost} is not there (yet)" in str(status_of(job)["reason"])


GRACE = """\
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    open("up", "w").close()
    time.sleep(300)
finally:
    open("cleaned up", "w").close()
"""


@pytest.mark.row("L11", "L07", "B08")
@pytest.mark.parametrize("shared", ["slurm"], indirect=True)
def test_a_job_that_is_preempted_has_its_grace_and_says_so(shared: StandIn, place: Path) -> None:
    (place / "run.py").write_text(GRACE)
    asked = [sys.executable, "-m", "grid", "sbatch", "-n", "1", "-o", "/dev/null", "--wait", "--", "python", "run.py"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        job = waiting.stdout.readline().strip()
        until((place / "up").exists)
        Base(str(shared.path)).cancel(shared.job(job), by=PREEMPTED)
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 143 and f"job {job}: killed (another job took its place)" in said, said
    assert (place / "cleaned up").exists()
    row = status_of(job)
    assert (row["state"], row["reason"], row["exit_status"]) == ("killed", "another job took its place", 143), row


ONE_FAILS = """\
import sys
sys.path.insert(0, sys.argv[1])
from grid import Grid, Limits, PublishError
from grid.testing.probe import Probe
init = '[ "$PBS_NODENUM" = 0 ] || { echo no modules here >&2; exit 7; };'
with Grid.from_allocation(init_cmd=init, limits=Limits(start_s=30.0, stop_s=2.0)) as g:
    try:
        g.publish(Probe(), wait="all")
    except PublishError as exc:
        print("refused:", exc)
    print("size", g.size(g.publish(Probe())), flush=True)
"""


@pytest.mark.parametrize("shared", ["torque", "openpbs-off"], indirect=True)
@pytest.mark.row("L03", "L10", "G48")
def test_a_node_of_the_job_that_does_not_come_up_is_said_aloud(shared: StandIn, place: Path) -> None:
    (place / "one.py").write_text(ONE_FAILS)
    words = ["-o", "out", "-j", "oe", "--wait", "--", "python", "one.py", ROOT]
    done = qsub(shared.kind, *words, nodes="nodes=2:ppn=1")
    text = text_of(place / "out", "size")
    assert done.exit_code == 0 and "size 1" in text, (done.output, text)
    assert re.search(r"refused: .*1 of 2 servers came up(.|\n)*no modules here", text), text
