"""A stand-in for TORQUE's qsub, qstat and qdel on this machine, and what every batch system must do, as checks.

    with fake_torque(directory, nodes=3) as environment:      # qsub, qstat, qdel, pbsdsh are first on PATH
        system = BatchSystem(connect(Host("here", ssh="local")))

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_batch_system(check):
        check(BatchSystem(...), "/a/directory/that/jobs/see")

The stand-in runs jobs on this machine, as many as its nodes allow, and answers in the words that TORQUE 6.1.3 was
recorded with: ids like `12.fake`, refusals with exit status 170 to 190, `qstat -f`. Its jobs get SIGTERM and then
SIGKILL at qdel and at the end of their walltime, and their output when they have ended.

Lives here: the programs' texts, the checks. Elsewhere: pbsdsh and qrsh (`launchers.py`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grid.batch import BatchSystem, JobSpec, JobState
from grid.errors import SubmitError
from grid.testing.launchers import PBSDSH

_COMMON = """\
import fcntl, json, os, re, signal, subprocess, sys, time
BASE = os.environ["FAKE_TORQUE"]
def locked():
    file = open(BASE + "/lock", "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file
def job_of(word):
    return word.split(".")[0]
def path(number):
    return "%s/%s.json" % (BASE, number)
def load(number):
    with open(path(number)) as file:
        return json.load(file)
def save(job):
    with open(path(job["number"]) + ".new", "w") as file:
        json.dump(job, file)
    os.rename(path(job["number"]) + ".new", path(job["number"]))
def jobs():
    names = [name for name in os.listdir(BASE) if re.match(r"\\d+\\.json$", name)]
    return [load(name.split(".")[0]) for name in sorted(names, key=lambda name: int(name.split(".")[0]))]
def seconds(text):
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total
"""

_QSUB = (
    _COMMON
    + """\
NODES = int(os.environ["FAKE_TORQUE_NODES"])
SLOTS = 4
def refuse(status, text):
    sys.stderr.write("qsub: submit error (%s)\\n" % text)
    sys.exit(status)
with open(sys.argv[-1]) as file:
    text = file.read()
asked = {"N": "job", "nodes": 1, "ppn": 1, "walltime": "01:00:00", "o": None, "e": None, "j": "n", "depend": None}
for option, value in re.findall(r"^#PBS -(\\S+) ?(.*)$", text, re.M):
    if option == "l":
        for part in value.split(","):
            name, _, rest = part.partition("=")
            if name == "nodes":
                first, *more = rest.split(":")
                asked["nodes"] = int(first)
                for each in more:
                    asked["ppn"] = int(each.partition("=")[2])
            elif name == "walltime":
                asked["walltime"] = rest
            elif name not in ("mem", "pmem"):
                refuse(189, "Unknown resource type  %s" % name)
    elif option == "q" and value != "batch":
        refuse(172, "Unknown queue MSG=cannot locate queue")
    elif option == "W":
        asked["depend"] = value.partition("=")[2]
    elif option in asked:
        asked[option] = value
if asked["nodes"] > NODES or asked["ppn"] > SLOTS:
    refuse(190, "Job exceeds queue resource limits MSG=cannot locate feasible nodes (nodes file is empty, all systems "
                "are busy, or no nodes have the requested feature)")
with locked():
    number = max([job["number"] for job in jobs()] or [11]) + 1
    here = os.getcwd()
    save({"number": number, "state": "Q", "asked": asked, "text": text, "here": here, "submitted": time.time(),
          "path": os.environ["PATH"], "session": os.environ.get("GRID_TEST_SESSION", "")})
subprocess.Popen([sys.executable, BASE + "/bin/pbs_mom", str(number)], stdin=subprocess.DEVNULL,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
print("%d.fake" % number)
"""
)

_MOM = (
    _COMMON
    + """\
number = int(sys.argv[1])
def may_run(job):
    kind, _, other = (job["asked"]["depend"] or ":").partition(":")
    if kind:
        before = load(job_of(other))
        if before["state"] != "C":
            return False
        if kind == "afterok" and before["status"] != 0:
            raise LookupError
    busy = sum(other["asked"]["nodes"] for other in jobs() if other["state"] == "R")
    return busy + job["asked"]["nodes"] <= int(os.environ["FAKE_TORQUE_NODES"])
while True:
    with locked():
        job = load(number)
        if job["state"] == "C":
            sys.exit()
        try:
            ready = may_run(job)
        except LookupError:
            job.update(state="C", status=271)
            save(job)
            sys.exit()
        if ready:
            job.update(state="R", started=time.time())
            nodes = ["node%d" % (i + 1) for i in range(job["asked"]["nodes"]) for _ in range(job["asked"]["ppn"])]
            with open("%s/%d.nodes" % (BASE, number), "w") as file:
                file.write("".join(node + "\\n" for node in nodes))
            with open("%s/%d.script" % (BASE, number), "w") as file:
                file.write(job["text"])
            home = os.environ["HOME"]
            env = {"PATH": job["path"], "HOME": home, "USER": os.environ.get("USER", ""),
                   "PBS_JOBID": "%d.fake" % number, "PBS_NODEFILE": "%s/%d.nodes" % (BASE, number),
                   "PBS_NODENUM": "0", "PBS_ENVIRONMENT": "PBS_BATCH",
                   "PBS_O_WORKDIR": job["here"], "PBS_QUEUE": "batch", "FAKE_JOB_OUTPUT": "%s/%d.out" % (BASE, number),
                   "GRID_TEST_SESSION": job["session"], "FAKE_TASKS": "%s/%d.tasks" % (BASE, number)}
            for name in ("GRID_RUNTIME_DIR", "TMPDIR"):
                if name in os.environ:
                    env[name] = os.environ[name]
            output = open("%s/%d.out" % (BASE, number), "ab")
            errors = output if job["asked"]["j"] == "oe" else open("%s/%d.err" % (BASE, number), "ab")
            child = subprocess.Popen(["/bin/sh", "%s/%d.script" % (BASE, number)], cwd=home, env=env, umask=0o077,
                                     stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True)
            job["pid"] = child.pid
            save(job)
            break
    time.sleep(0.02)
def kill_all(which):
    groups = [child.pid]
    if os.path.exists("%s/%d.tasks" % (BASE, number)):
        with open("%s/%d.tasks" % (BASE, number)) as file:
            groups += [int(line) for line in file]
    for group in groups:
        try:
            os.killpg(group, which)
        except ProcessLookupError:
            pass
limit, status = time.time() + seconds(job["asked"]["walltime"]), None
while status is None:
    try:
        status = child.wait(0.02)
    except subprocess.TimeoutExpired:
        pass
    if status is None and (time.time() > limit or load(number).get("deleted")):
        over = time.time() > limit
        kill_all(signal.SIGTERM)
        try:
            child.wait(0.5)
        except subprocess.TimeoutExpired:
            pass
        kill_all(signal.SIGKILL)
        child.wait()
        status = -11 if over else 271
with locked():
    job = load(number)
    for option, end in (("o", "out"), ("e", "err")):
        source = "%s/%d.%s" % (BASE, number, end)
        target = job["asked"][option] or "%s/%s.%s%d" % (job["here"], job["asked"]["N"], option, number)
        if os.path.exists(source):
            with open(source, "rb") as file, open(target, "wb") as copy:
                copy.write(file.read())
    job.update(state="C", status=256 - status if -64 < status < 0 and status != -11 else status)
    save(job)
"""
)

_QSTAT = (
    _COMMON
    + """\
words = [word for word in sys.argv[1:] if not word.startswith("-")]
if "--version" in sys.argv:
    print("Version: 6.1.3")
    sys.exit()
missing = False
for word in words or ["%d" % job["number"] for job in jobs()]:
    try:
        job = load(job_of(word))
    except OSError:
        sys.stderr.write("qstat: Unknown Job Id Error %s.fake\\n" % job_of(word))
        missing = True
        continue
    lines = ["Job Id: %d.fake" % job["number"], "    Job_Name = " + job["asked"]["N"],
             "    job_state = " + job["state"], "    queue = batch",
             "    Resource_List.walltime = " + job["asked"]["walltime"]]
    if job["state"] == "R":
        used = int(time.time() - job["started"])
        lines.append("    resources_used.walltime = %02d:%02d:%02d" % (used // 3600, used // 60 % 60, used % 60))
        lines.append("    exec_host = " + "+".join("node%d/0" % (i + 1) for i in range(job["asked"]["nodes"])))
    if job["state"] == "C":
        lines.append("    exit_status = %d" % job["status"])
    if job["state"] == "Q":
        lines.append("    comment = Not Running: Not enough of the right type of nodes\\n\\tavailable")
    print("\\n".join(lines) + "\\n")
sys.exit(153 if missing else 0)
"""
)

_QDEL = (
    _COMMON
    + """\
for word in sys.argv[1:]:
    with locked():
        try:
            job = load(job_of(word))
        except OSError:
            sys.exit("qdel: nonexistent job id: " + word)
        if job["state"] == "C":
            sys.stderr.write("qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE %s\\n" % word)
            sys.exit(170)
        job["deleted"] = True
        if job["state"] == "Q":
            job.update(state="C", status=271)
        save(job)
"""
)


@contextmanager
def fake_torque(directory: Path, nodes: int = 4) -> Iterator[None]:
    """A batch system of so many nodes with 4 slots each; its commands are first on PATH. Its jobs end with it."""
    programs = directory / "bin"
    programs.mkdir(parents=True)
    texts = {"qsub": _QSUB, "qstat": _QSTAT, "qdel": _QDEL, "pbs_mom": _MOM, "pbsdsh": PBSDSH}
    for name, text in texts.items():
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    ours = {
        "FAKE_TORQUE": str(directory),
        "FAKE_TORQUE_NODES": str(nodes),
        "GRID_DIALECT": "torque",  # this machine may have another batch system
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
        _end_all(programs)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_all(programs: Path) -> None:
    import subprocess

    for path in programs.parent.glob("[0-9]*.json"):
        subprocess.run([str(programs / "qdel"), path.stem], capture_output=True, timeout=30, check=False)


# -- what every batch system must do -----------------------------------------------------------------------------------


def a_job_runs_where_it_was_told_and_leaves_its_output(system: BatchSystem, place: str) -> None:
    spec = JobSpec(
        command="pwd; echo to-error >&2; echo \"$A\"; exit 3",
        name="first",
        walltime_s=60,
        workdir=place,
        output=f"{place}/out",
        error=f"{place}/err",
        variables={"A": "it's \"x,y\"\nand more"},
    )
    job = system.submit(spec)
    wait_for(system, job, JobState.DONE)
    text = read(system, f"cat {place}/out", lambda text: "and more" in text)
    assert text.splitlines() == [place, "it's \"x,y\"", "and more"], text
    assert "to-error" in read(system, f"cat {place}/err", lambda text: "to-error" in text)


def states_go_from_queued_or_running_to_done(system: BatchSystem, place: str) -> None:
    job = system.submit(JobSpec(command="while [ ! -e go ]; do sleep 0.05; done", walltime_s=60, **quiet(place)))
    wait_for(system, job, JobState.RUNNING)
    status = system.status([job])[job]
    assert status.name == "grid" and status.nodes, status
    assert status.left_s is not None and 0 < status.left_s <= 60, status
    system._connection.run(f"touch {place}/go")
    wait_for(system, job, JobState.DONE)


def a_job_that_is_cancelled_ends(system: BatchSystem, place: str) -> None:
    job = system.submit(JobSpec(command="exec sleep 1000", walltime_s=60, **quiet(place)))
    wait_for(system, job, JobState.RUNNING)
    system.cancel(job)
    wait_for(system, job, JobState.DONE)
    system.cancel(job)  # harmless


def a_job_that_nobody_knows_is_unknown_and_not_done(system: BatchSystem, place: str) -> None:
    assert system.status(["987654"])["987654"].state is JobState.UNKNOWN
    assert system.status([]) == {}
    system.cancel("987654")


def one_question_tells_of_many_jobs(system: BatchSystem, place: str) -> None:
    jobs = [system.submit(JobSpec(command=":", walltime_s=60, **quiet(place))) for _ in range(4)]
    assert len(set(jobs)) == 4
    for job in jobs:
        wait_for(system, job, JobState.DONE)
    found = system.status([*jobs, "987654"])
    assert [found[job].state for job in jobs] == [JobState.DONE] * 4
    assert found["987654"].state is JobState.UNKNOWN


def what_can_never_run_is_refused_in_the_systems_own_words(system: BatchSystem, place: str) -> None:
    changes: list[dict[str, Any]] = [{"nodes": 900}, {"queue": "nosuchqueue"}]
    for change in changes:
        try:
            system.submit(JobSpec(command=":", walltime_s=60, **{**quiet(place), **change}))
        except SubmitError as exc:
            assert exc.status != 0 and not exc.connection
            assert len(exc.what) > len("the job was refused (exit status 1): "), exc
        else:
            raise AssertionError(f"{change} was taken")


def a_job_waits_for_another(system: BatchSystem, place: str) -> None:
    first = system.submit(JobSpec(command="while [ ! -e go2 ]; do sleep 0.05; done", walltime_s=60, **quiet(place)))
    second = system.submit(JobSpec(command="touch second", walltime_s=60, depend=f"afterok:{first}", **quiet(place)))
    wait_for(system, first, JobState.RUNNING)
    assert system.status([second])[second].state in (JobState.QUEUED, JobState.HELD)
    assert not system._connection.run(f"ls {place}/second").stdout
    system._connection.run(f"touch {place}/go2")
    wait_for(system, second, JobState.DONE)
    assert system._connection.run(f"ls {place}/second").stdout


CHECKS: tuple[Callable[[BatchSystem, str], None], ...] = (
    a_job_runs_where_it_was_told_and_leaves_its_output,
    states_go_from_queued_or_running_to_done,
    a_job_that_is_cancelled_ends,
    a_job_that_nobody_knows_is_unknown_and_not_done,
    one_question_tells_of_many_jobs,
    what_can_never_run_is_refused_in_the_systems_own_words,
    a_job_waits_for_another,
)


def quiet(place: str) -> dict[str, Any]:
    """Fields of a job whose output nobody wants."""
    return {"workdir": place, "output": "/dev/null", "error": "/dev/null"}


def wait_for(system: BatchSystem, job: str, state: JobState, limit_s: float = 60.0) -> None:
    """Ask until a job is in that state."""
    end = time.monotonic() + limit_s
    while (found := system.status([job])[job]).state is not state:
        if time.monotonic() > end:
            raise TimeoutError(f"job {job} is {found} after {limit_s:g} s, not {state}")
        time.sleep(0.05)


def read(system: BatchSystem, command: str, enough: Callable[[str], bool], limit_s: float = 30.0) -> str:
    """What a command prints once it is enough: a job's output may come late."""
    end = time.monotonic() + limit_s
    while not enough(text := system._connection.run(command).text) and time.monotonic() < end:
        time.sleep(0.05)
    return text
