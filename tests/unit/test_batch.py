"""Words of batch systems: scripts that are written, answers that are read; recorded ones where there is a record."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.batch import DIALECTS, BatchSystem, JobSpec, JobState, JobStatus, format_walltime, parse_walltime
from grid.batch.inside import grids_in_jobs, write_down
from grid.batch.records import Record, marker, of_task
from grid.batch.wrapper import check_command, job_body, parse_depend, parse_resources, parse_variables
from grid.batch_systems.known import choose_dialect
from grid.errors import AllocationError, ConnectError, SubmitError
from grid.hosts import Host
from grid.launch import Completed

DATA = Path(__file__).parents[1] / "data" / "batch"
FULL = JobSpec(
    command="echo done",
    name="fit",
    nodes=2,
    ppn=4,
    walltime_s=3601,
    resources=("mem=2gb",),
    queue="long",
    account="phys",
    output="/home/mara/fit.out",
    error="/home/mara/fit.err",
    variables={"A": 'it\'s "x,y"\n$HOME'},
    export_all=True,
    depend="afterany:12",
    lines=("#PBS -m abe",),
    workdir="/tmp/a b",
    parallel_environment="mpi",
)


@pytest.mark.row("B01", "B08", "B12")
@pytest.mark.parametrize("name", DIALECTS)
def test_scripts_are_as_written_down(name: str) -> None:
    golden = DATA / f"script-{name}.sh"
    command = shlex.join(DIALECTS[name].submit_command(FULL, "SCRIPT"))
    text = f"{DIALECTS[name].script(FULL)}# submitted by: {command}\n"
    if os.environ.get("GRID_WRITE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()
    if name == "slurm-torque":  # its qsub goes through a shell without quoting, and knows no -o in the script
        assert "-o /home/mara/fit.out" in command


@pytest.mark.row("B01", "B11")
def test_torque_as_recorded() -> None:
    torque = DIALECTS["torque"]
    found = {each.id: each for each in torque.parse_status((DATA / "torque-qstat-f.txt").read_text())}
    assert {job: each.state.value for job, each in found.items()} == {
        "12.vm": "running",
        "110.vm": "queued",
        "14.vm": "held",
        "15.vm": "queued",
        "4.vm": "done",
    }
    assert (found["12.vm"].nodes, found["12.vm"].left_s) == ("tqnode2/0+tqnode1/1", 598)
    assert found["110.vm"].reason == "Not Running: Not enough of the right type of nodes are available"
    assert found["4.vm"].exit_status == 271
    assert torque.parse_status("") == []
    assert not torque.status_failed(153, "qstat: Unknown Job Id Error 999999.vm")
    assert torque.status_failed(111, "qstat: cannot connect to server vm (errno=111) Connection refused")


@pytest.mark.row("L03")
@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ({"nodes": 2, "ppn": 2}, ["nodes=2:ppn=2"]),
        ({"nodes": 2, "ppn": 2, "resources": ("mem=1gb",)}, ["nodes=2:ppn=2", "mem=1gb"]),
        ({"nodes": "n1:ppn=2+n2:ppn=1", "ppn": None}, ["nodes=n1:ppn=2+n2:ppn=1"]),
        ({"resources": ("select=2:ncpus=2", "place=scatter")}, ["select=2:ncpus=2", "place=scatter"]),
        ({"nodes": 2, "ppn": 2, "lines": ("#PBS -l place=scatter",)}, ["select=2:ncpus=2:mpiprocs=2"]),
        ({"nodes": 2, "ppn": 2, "lines": ("#PBS -l select=1:ncpus=4",)}, []),
    ],
)
def test_what_pbs_is_asked_for(asked: dict[str, Any], written: list[str]) -> None:
    """`nodes` beside `select` or `place` is refused by a real one, a bare `select` may be packed onto one node."""
    script = DIALECTS["pbspro"].script(JobSpec(command=":", **asked)).splitlines()
    ours = [line.removeprefix("#PBS -l ") for line in script if line.startswith("#PBS -l ")]
    assert [each for each in ours if f"#PBS -l {each}" not in asked.get("lines", ())] == written


@pytest.mark.row("L02")
def test_pbs_is_asked_with_history_only_for_what_it_leaves_out() -> None:
    running = b"Job Id: 75.head\n    job_state = R\n"
    finished = b"Job Id: 81.head\n    job_state = F\n    Exit_status = 3\n"
    machine = Machine(Completed(0, running, b""))
    assert system(machine, "pbspro").status(["75.head"])["75.head"].state is JobState.RUNNING
    assert machine.asked == ["qstat -f 75.head"]
    says = b"qstat: 81.head Job has finished, use -x or -H to obtain historical job information\n"
    machine = Machine(Completed(35, running, says), Completed(0, finished, b""))
    found = system(machine, "pbspro").status(["75.head", "81.head"])
    assert (found["75.head"].state, found["81.head"].exit_status) == (JobState.RUNNING, 3)
    assert machine.asked[1:] == ["qstat -x -f 81.head"]
    off = b"qstat: PBS is not configured to maintain job history 81.head\n"
    machine = Machine(Completed(153, running, b"qstat: Unknown Job Id 81.head\n"), Completed(0, b"", off))
    found = system(machine, "pbspro").status(["75.head", "81.head"])
    assert [found[job].state for job in ("75.head", "81.head")] == [JobState.RUNNING, JobState.UNKNOWN]
    machine = Machine(Completed(255, b"", b"Connection refused\nqstat: cannot connect to server head (errno=15010)\n"))
    with pytest.raises(AllocationError, match="does not tell of its jobs"):
        system(machine, "pbspro").status(["75.head"])


@pytest.mark.row("B09")
def test_what_qsub_answers() -> None:
    torque, slurm, sge = DIALECTS["torque"], DIALECTS["slurm"], DIALECTS["sge"]
    assert torque.parse_submit(0, "12.vm\n", "") == "12.vm"
    assert torque.parse_submit(0, "a message of the day\n35[].vm\n", "") == "35[].vm"
    assert DIALECTS["slurm-torque"].parse_submit(0, "42\n", "") == "42"
    assert slurm.parse_submit(0, "Submitted batch job 3\n", "") == "3"
    assert slurm.parse_submit(0, "3;cluster\n", "") == "3"
    assert sge.parse_submit(0, 'Your job 1 ("gj") has been submitted\n', "") == "1"
    assert sge.parse_submit(0, "7\n", "") == "7"
    refusals = [
        (torque, 172, "", "qsub: submit error (Unknown queue MSG=requested queue not found)", False),
        (torque, 111, "", "qsub: cannot connect to server vm (errno=111) Connection refused", True),
        (DIALECTS["slurm-torque"], 1, "There was an error running the Slurm sbatch command.\n", "", False),
        (slurm, 1, "", "sbatch: error: Unable to contact slurm controller (connect failure)", True),
        (sge, 1, "", 'Unable to run job: unknown resource "nodes".', False),
        (torque, 0, "", "", False),  # nothing at all is no id
    ]
    for dialect, status, out, err, connection in refusals:
        with pytest.raises(SubmitError) as caught:
            dialect.parse_submit(status, out, err)
        assert (caught.value.status, caught.value.connection) == (status, connection)
        assert (err or out).strip() in str(caught.value)


@pytest.mark.row("B11")
def test_slurm_sge_and_pbs_pro_tell_of_jobs() -> None:
    slurm = {each.id: each for each in DIALECTS["slurm"].parse_status((DATA / "slurm-squeue.txt").read_text())}
    states = "".join(slurm[str(job)].state.value[0] for job in range(1, 10))
    assert states == "ddrqqeddr"
    assert (slurm["4"].reason, slurm["3"].left_s, slurm["9"].left_s) == ("Resources", 7081, 176400)
    assert slurm["9"].name == "long|er"
    sge = {each.id: each.state for each in DIALECTS["sge"].parse_status((DATA / "sge-qstat.txt").read_text())}
    assert [sge[str(job)].value for job in range(1, 6)] == ["running", "queued", "held", "exiting", "held"]


@pytest.mark.row("B11", "L01")
def test_pbs_as_recorded() -> None:
    """Answers of OpenPBS, git of April 2026; those of 23.06.06 have the same form."""
    found = {each.id: each for each in DIALECTS["pbspro"].parse_status((DATA / "pbspro-qstat.txt").read_text())}
    told = {
        job: (each.state.value, each.exit_status, each.outcome and each.outcome.value) for job, each in found.items()
    }
    assert told == {
        "75.head": ("running", None, None),
        "81.head": ("done", 3, "failed"),
        "80[].head": ("running", None, None),
        "79.head": ("queued", None, None),
        "76.head": ("done", 143, "cancelled"),
        "84.head": ("done", -29, "killed"),
        "112.head": ("done", None, "failed"),
    }
    assert (found["75.head"].left_s, found["75.head"].nodes) == (300, "n1/0")
    assert found["79.head"].reason == "Can Never Run: Insufficient amount of resource: ncpus (R: 50 A: 12 T: 12)"
    assert found["84.head"].reason == "its walltime was up"


@pytest.mark.row("B01")
def test_which_batch_system_a_machine_has() -> None:
    slurm = "has sbatch /usr/bin/sbatch\nhas squeue /usr/bin/squeue\nhas scancel /usr/bin/scancel\n"
    qsub = "has qsub /opt/bin/qsub\nhas qstat /opt/bin/qstat\n"
    assert choose_dialect(slurm).name == "slurm"
    assert choose_dialect(slurm + qsub + "qsub is slurm\n").name == "slurm"
    assert choose_dialect(slurm + qsub + "qsub is slurm\n", prefer="slurm-torque").name == "slurm-torque"
    assert choose_dialect(qsub + "version Version: 6.1.3\n").name == "torque"
    assert choose_dialect(qsub + "version pbs_version = 20.0.1\n").name == "pbspro"
    assert choose_dialect(qsub + "has qconf /opt/bin/qconf\n").name == "sge"
    with pytest.raises(AllocationError, match="both slurm and torque are here"):
        choose_dialect(slurm + qsub)
    with pytest.raises(AllocationError, match=r"no batch system was found \(looked for qconf, qdel, qstat"):
        choose_dialect("")


@pytest.mark.row("B13")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("10:00", 600), ("1:00:00", 3600), ("2-01:00:00", 176400), (3600, 3600), (0.5, 0.5)],
)
def test_walltimes(text: str | float, seconds: float) -> None:
    assert parse_walltime(text) == seconds


@pytest.mark.row("B08")
@pytest.mark.parametrize("text", ["", "1h", "-5", "1:2:3:4", 0, "0:00", float("inf"), True])
def test_what_is_no_walltime(text: str | float) -> None:
    with pytest.raises(AllocationError, match="walltime"):
        parse_walltime(text)


@pytest.mark.row("B08")
@given(st.integers(1, 10**7))
def test_walltimes_survive_their_text(seconds: int) -> None:
    assert parse_walltime(format_walltime(seconds)) == seconds


@pytest.mark.row("B08")
def test_all_options_of_l_count_and_make_sense_or_are_shown() -> None:
    assert parse_resources(["nodes=2:ppn=4,mem=2gb", "walltime=1:00:00"]) == {
        "nodes": 2,
        "ppn": 4,
        "walltime_s": 3600.0,
        "resources": ("mem=2gb",),
    }
    assert parse_resources(["nodes=n1:ppn=2+n2:ppn=1"])["nodes"] == "n1:ppn=2+n2:ppn=1"
    assert parse_resources(["nodes=2:gpu"]) == {"nodes": "2:gpu", "ppn": None, "resources": ()}
    with pytest.raises(AllocationError, match="ppn must be a number"):
        parse_resources(["nodes=2:ppn=x"])
    with pytest.raises(AllocationError, match="-l 'mem=a b'"):
        JobSpec(command=":", **parse_resources(["mem=a b"]))


@pytest.mark.row("B08", "B12")
def test_variables_and_dependencies() -> None:
    assert parse_variables(["A=1,B", r"C=x\,y", "D="], {"B": "b b"}) == {"A": "1", "B": "b b", "C": "x,y", "D": ""}
    with pytest.raises(AllocationError, match="-v NOSUCH: this variable is not set"):
        parse_variables(["NOSUCH"], {})
    assert parse_depend(["depend=afterok:12.vm"]) == "afterok:12.vm"
    with pytest.raises(AllocationError, match="--line '#PBS -W x=y'"):
        parse_depend(["x=y"])


@pytest.mark.row("B08")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "1st"),
        ("name", "a b"),
        ("queue", "x;rm"),
        ("output", "a b"),
        ("nodes", 0),
        ("nodes", "n1 n2"),
        ("ppn", 0),
        ("variables", {"A B": "1"}),
        ("lines", ("#PBS -m\nrm",)),
        ("depend", "afterok:$(id)"),
    ],
)
def test_what_batch_systems_would_break_is_refused_here(field: str, value: object) -> None:
    with pytest.raises(AllocationError):
        JobSpec(command=":", **{field: value})  # type: ignore[arg-type]


@pytest.mark.row("B08")
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), min_size=1, max_size=4))
def test_arguments_of_any_kind_arrive_whole(words: list[str]) -> None:
    show = [sys.executable, "-c", "import sys; sys.stdout.write(ascii(sys.argv[1:]))", *words]
    body = job_body(["env", *show], executable="/usr/bin/python3")
    done = subprocess.run(["sh", "-c", body], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, ascii(words)), done.stderr


@pytest.mark.row("B08")
def test_the_marker_says_how_the_script_ended(tmp_path: Path) -> None:
    marker = tmp_path / "end of it"
    for status in (0, 3):
        done = subprocess.run(["sh", "-c", job_body(["sh", "-c", f"exit {status}"], marker=str(marker))], timeout=30)
        said, began, ended = marker.read_text().split()
        assert (done.returncode, said) == (status, str(status)) and int(began) <= int(ended)
    assert [path.name for path in tmp_path.iterdir()] == ["end of it"]


@pytest.mark.row("B08", "B13")
def test_a_script_that_is_told_to_end_may_end_well(tmp_path: Path) -> None:
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(5))\nprint('up', flush=True)\ntime.sleep(9)"
    body = job_body([sys.executable, "-c", code], marker=str(tmp_path / "end"))
    shell = subprocess.Popen(["sh", "-c", body], stdout=subprocess.PIPE, text=True)
    assert shell.stdout is not None and shell.stdout.readline() == "up\n"
    shell.send_signal(signal.SIGTERM)
    assert shell.wait(30) == 5
    assert (tmp_path / "end").read_text().split()[0] == "5"
    shell.stdout.close()


@pytest.mark.row("B08")
def test_a_script_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.py").touch()
    check_command(["python", "run.py", "x"], str(tmp_path))
    check_command(["python", "-m", "module"], str(tmp_path))
    check_command(["run.py"], str(tmp_path))
    for command in (["python", "nosuch.py"], ["nosuch.py"], ["./nosuch"], ["no-such-command-anywhere"], ["python3"]):
        with pytest.raises(AllocationError, match=r"there is no|not on the PATH"):
            check_command(command, str(tmp_path))


class Machine:
    """A connection on which commands are answered by a function, and counted."""

    def __init__(self, *answers: Completed | ConnectError) -> None:
        self.host, self.asked = Host("login", ssh="local"), []
        self._answers = list(answers)

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None) -> Completed:
        self.asked.append(command)
        answer = self._answers.pop(0)
        if isinstance(answer, ConnectError):
            raise answer
        return answer


def system(machine: Machine, dialect: str = "torque", **kw: float) -> BatchSystem:
    return BatchSystem(machine, dialect, pause_s=0.001, **kw)  # type: ignore[arg-type]


@pytest.mark.row("B11")
def test_a_thousand_jobs_are_asked_for_by_one_command() -> None:
    jobs = [f"{number}.vm" for number in range(1000)]
    answer = "".join(f"Job Id: {job}\n    job_state = {'R' if job < '5' else 'C'}\n\n" for job in jobs[:-1])
    machine = Machine(Completed(153, answer.encode(), b"qstat: Unknown Job Id Error 999.vm\n"))
    found = system(machine).status(jobs)
    assert len(machine.asked) == 1 and len(found) == 1000
    assert found["999.vm"].state is JobState.UNKNOWN  # gone, which does not mean that it went well
    assert {found[job].state for job in jobs[:-1]} == {JobState.RUNNING, JobState.DONE}


@pytest.mark.row("B09")
def test_only_a_submission_that_did_not_arrive_is_repeated() -> None:
    down = Completed(111, b"", b"qsub: cannot connect to server vm (errno=111) Connection refused")
    machine = Machine(down, down, Completed(0, b"12.vm\n", b""))
    assert system(machine).submit(FULL) == "12.vm"
    assert len(machine.asked) == 3
    machine = Machine(*[down] * 4)
    with pytest.raises(SubmitError, match="cannot connect to server vm"):
        system(machine).submit(FULL)
    refused = Machine(Completed(190, b"", b"qsub: submit error (Job exceeds queue resource limits)"))
    with pytest.raises(SubmitError, match="exceeds queue resource limits"):
        system(refused).submit(FULL)
    assert len(refused.asked) == 1


@pytest.mark.row("B11")
def test_a_server_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grid.launch import connect

    for name in ("qsub", "qstat", "qdel"):
        (tmp_path / name).write_text("#!/bin/sh\nexec sleep 1000\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with connect(Host("here", ssh="local")) as connection:
        hanging = BatchSystem(connection, "torque", command_s=0.5)
        began = time.monotonic()
        plain = JobSpec(command=":")
        for ask in (lambda: hanging.submit(plain), lambda: hanging.status(["1.vm"]), lambda: hanging.cancel("1.vm")):
            with pytest.raises(AllocationError, match=r"did not answer within 0\.5 s.*hangs"):
                ask()
        assert time.monotonic() - began < 60


@pytest.mark.row("B08")
def test_scripts_and_command_lines_show_no_secret() -> None:
    secret = JobSpec(command=":", variables={"TOKEN": "s3cr3t"})
    for dialect in DIALECTS.values():
        command: Sequence[str] = dialect.submit_command(secret, "SCRIPT")
        assert "s3cr3t" not in " ".join(command)  # `qstat -f` shows these to everybody, the script only to its owner
        assert not any("s3cr3t" in line for line in dialect.script(secret).splitlines() if line.startswith("#"))


# -- grids in jobs -----------------------------------------------------------------------------------------------------


@pytest.mark.row("L14")
def test_a_grid_in_a_job_is_told_of_while_its_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked: list[list[str]] = []
    states = dict.fromkeys("1234", JobState.RUNNING)

    def ask(ids: Sequence[str]) -> dict[str, JobStatus]:
        asked.append(list(ids))
        return {job: JobStatus(job, states[job]) for job in ids}

    assert write_down("a", "fit.py-1", {}) is None and grids_in_jobs(ask) == [] and not asked
    for job in "1234":
        slurm = {"SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "n1", "SLURM_TASKS_PER_NODE": "1", "SLURM_NODELIST": "n1"}
        path = write_down(f"g{job}", "fit.py-1", slurm)
        assert path is not None and path.stat().st_mode & 0o777 == 0o600
    assert [one["job"] for one in grids_in_jobs(ask)] == ["1", "2", "3", "4"] and asked == [["1", "2", "3", "4"]]
    states |= {"2": JobState.DONE, "3": JobState.UNKNOWN, "4": JobState.EXITING}
    assert [one["id"] for one in grids_in_jobs(ask)] == ["g1", "g4"]
    left = sorted(path.name for path in (tmp_path / ".grid/batch").glob("grid-*"))
    assert left == ["grid-g1.json", "grid-g3.json", "grid-g4.json"], "one answer without a job is no proof of its end"


SGE_ARRAY = """\
job-ID  prior   name       user         state submit/start at     queue                          slots ja-task-ID
-----------------------------------------------------------------------------------------------------------------
      1 0.55500 s.sh       mara         r     11/26/2026 18:49:58 batch@n2                           1 3
      2 0.55500 s2.sh      mara         r     11/26/2026 18:50:06 batch@n3                           1 1
      2 0.55500 s2.sh      mara         dr    11/26/2026 18:50:06 batch@n3                           1 5
      2 0.55500 s2.sh      mara         qw    11/26/2026 18:50:06                                    1 25-29:2
     12 0.55500 one        mara         r     11/26/2026 18:50:06 batch@n1                           2
"""


@pytest.mark.row("L16", "B11")
def test_tasks_of_an_array_are_told_apart() -> None:
    """As a real gridengine 8.1.9, a real OpenPBS and a real Slurm have told of arrays."""
    pbs = "".join(f"Job Id: 80[{task}].head\n    job_state = {at}\n" for task, at in (("", "B"), (1, "R"), (2, "X")))
    squeue = "12_1|R|None|n1|9:00|a\n12_[3-7,9%2]|PD|Resources||9:00|a\n13+0|R|None|n1|9:00|b\n13+1|PD|None||9:00|b\n"
    told = {
        "sge": (SGE_ARRAY, {"1": "running", "1.3": "running", "1.2": "unknown", "2": "running", "2.5": "exiting"}),
        "pbspro": (pbs, {"80[].head": "running", "80[1].head": "running", "80[2]": "done", "80[3]": "unknown"}),
        "slurm": (squeue, {"12": "running", "12_1": "running", "12_4": "queued", "12_8": "unknown", "12_9": "queued"}),
    }
    more = {"sge": {"2.27": "queued", "2.26": "unknown", "12": "running"}, "slurm": {"13": "running", "13+1": "queued"}}
    for dialect, (text, expected) in told.items():
        wanted = {**expected, **more.get(dialect, {})}
        answers = [Completed(0, text.encode(), b"")] * 2  # PBS is asked for its history, too
        found = system(Machine(*answers), dialect).status(list(wanted))
        assert {job: each.state.value for job, each in found.items()} == wanted


@pytest.mark.row("L16", "L05")
def test_an_array_may_start_again_where_pbs_takes_no_other() -> None:
    spec = JobSpec(command="true", lines=("#PBS -J 1-3",))
    assert "#PBS -r y" in DIALECTS["pbspro"].script(spec) and DIALECTS["pbspro"].restarts(spec)
    assert "#PBS -r n" in DIALECTS["pbspro"].script(JobSpec(command="true"))
    own = JobSpec(command="true", lines=("#PBS -t 1-3",))
    assert "#PBS -r n" in DIALECTS["torque"].script(own) and not DIALECTS["torque"].restarts(own)


@pytest.mark.row("L16", "L07")
def test_a_task_has_the_word_of_its_own_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    array = Record("80[].head", "run", "pbspro", 0.0, "python run.py", token="t", tasks_cancelled=[2])
    marker("t.1").write_text("4 10 20")
    one, two = (of_task(f"80[{task}]", task, [array]) for task in (1, 2))
    assert one is not None and one.end is not None and (one.end.status, one.cancelled) == (4, False)
    assert two is not None and two.end is None and two.cancelled
    assert of_task("81[1]", 1, [array]) is None and of_task("8[1]", 1, [array]) is None
