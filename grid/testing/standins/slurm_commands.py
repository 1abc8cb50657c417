"""sbatch, squeue, scancel, scontrol, srun of Slurm 22.05, and qsub of slurm-wlm-torque, as they did when tried.

Its jobs have Slurm's variables; with Torque's commands also those of spank_pbs, and a PBS_NODEFILE. sbatch hands the
whole environment of the submitter on, `SLURM_NTASKS` of an outer job and the like included.
"""

from __future__ import annotations

import getopt
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from grid.testing.standins.engine import ENDED, TICK_S, Base, Job, tell, whoami
from grid.testing.standins.pbs_server import seconds
from grid.testing.standins.sge_commands import carry

SBATCH_LONG = (
    *("job-name=", "nodes=", "ntasks=", "ntasks-per-node=", "time=", "partition=", "account=", "output=", "error="),
    *("dependency=", "export=", "parsable", "requeue", "no-requeue", "exclusive", "mem=", "cpus-per-task=", "array="),
    *("constraint=", "nodelist=", "hold"),
)
SRUN_LONG = (
    *("overlap", "nodes=", "ntasks=", "ntasks-per-node=", "nodelist=", "export=", "cpu-bind=", "mpi=", "unbuffered"),
    *("quiet", "jobid=", "kill-on-bad-exit=", "het-group=", "exclusive"),
)


class SlurmWords:
    """What the server does in this system's way."""

    walltime_text = ""
    ended_letter = "C"

    def __init__(self, torque: bool) -> None:
        self.torque = torque

    def warning(self, job: Job) -> int:
        return signal.SIGTERM

    def status_of(self, job: Job, status: int) -> int:
        return status

    def begin(self, base: Base, job: Job) -> tuple[dict[str, str], list[str], str]:
        names = ",".join(node for node, _ in job["layout"])
        counts = ",".join(str(want["lines"]) for want in job["want"])
        cpus = ",".join(str(cpus) for _, cpus in job["layout"])
        number = str(job["number"])
        env = {
            **job["variables"],
            "HOME": job["home"],
            "USER": job["owner"],
            "LOGNAME": job["owner"],
            "GRID_STANDIN": str(base.path),
            "SLURM_JOB_ID": number,
            "SLURM_JOBID": number,
            "SLURM_JOB_NAME": job["name"],
            "SLURM_JOB_NODELIST": names,
            "SLURM_NODELIST": names,
            "SLURM_JOB_NUM_NODES": str(len(job["layout"])),
            "SLURM_NNODES": str(len(job["layout"])),
            "SLURM_TASKS_PER_NODE": counts,
            "SLURM_JOB_CPUS_PER_NODE": cpus,
            "SLURM_JOB_PARTITION": job["queue"],
            "SLURM_SUBMIT_DIR": job["cwd"],
            "SLURMD_NODENAME": job["layout"][0][0],
            "SLURM_PROCID": "0",
            "SLURM_NODEID": "0",
            **base.config.get("environment", {}),
        }
        if job["ntasks"]:
            env |= {"SLURM_NTASKS": str(job["ntasks"]), "SLURM_NPROCS": str(job["ntasks"])}
        if self.torque:
            listed = base.path / "aux" / number
            lines = [
                node for (node, _), want in zip(job["layout"], job["want"], strict=True) for _ in range(want["lines"])
            ]
            listed.write_text("".join(f"{line}\n" for line in lines))
            listed.chmod(0o644)
            env |= {"PBS_JOBID": number, "PBS_JOBNAME": job["name"], "PBS_NODENUM": "0", "PBS_NODEFILE": str(listed)}
            env |= {"PBS_O_WORKDIR": job["cwd"], "PBS_ENVIRONMENT": "PBS_BATCH", "PBS_JOBDIR": job["home"]}
        script = base.file(job["number"], "script")
        shell = script.read_text().split("\n", 1)[0].removeprefix("#!").split()
        return env, [*shell, str(script)], job["cwd"]

    def can_copy(self, job: Job) -> bool:
        return True

    def copies(self, job: Job) -> list[tuple[str, str]]:
        return []  # its streams are files from the start


def say_and_end(text: str, status: int = 1) -> NoReturn:
    sys.stderr.write(text + "\n")
    sys.exit(status)


def reach(base: Base, command: str) -> None:
    while base.mode() == "hung":
        time.sleep(TICK_S)
    if base.mode() == "down":
        say_and_end(f"{command}: error: Unable to contact slurm controller (connect failure)")


def parse(command: str, args: list[str], short: str, long: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    try:
        given, rest = getopt.getopt(args, short, list(long))
    except getopt.GetoptError as exc:
        say_and_end(f"{command}: unrecognized option '--{exc.opt}'\nTry \"{command} --help\" for more information", 255)
    return {name.lstrip("-"): value for name, value in given}, rest


def sbatch(base: Base, args: list[str]) -> None:
    asked, rest = parse("sbatch", args, "N:n:J:t:p:A:o:e:d:a:w:H", SBATCH_LONG)
    try:
        script = Path(rest[0]).read_text()
    except (OSError, IndexError):
        say_and_end(f"sbatch: error: Unable to open file {rest[0] if rest else ''}")
    if not script.startswith("#!"):
        say_and_end(
            "sbatch: error: This does not look like a batch script.  The first\n"
            "sbatch: error: line must start with #! followed by the path to an interpreter."
        )
    directives: list[str] = []
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            directives += shlex.split(line[8:])
        elif line.strip() and not line.startswith("#"):
            break
    before, _ = parse("sbatch", directives, "N:n:J:t:p:A:o:e:d:a:w:H", SBATCH_LONG)
    number = submit(base, "sbatch", {**before, **asked}, script, os.path.basename(rest[0]))
    print(number if "parsable" in asked else f"Submitted batch job {number}")


def submit(base: Base, command: str, asked: dict[str, str], script: str, name: str) -> int:
    def get(*names: str, usual: str = "") -> str:
        return next((asked[each] for each in names if each in asked), usual)

    reach(base, "sbatch")
    nodes = int(get("N", "nodes", usual="1"))
    per_node = int(get("ntasks-per-node", usual="0"))
    tasks = int(get("n", "ntasks", usual="0")) or per_node * nodes
    cpus = int(get("cpus-per-task", usual="1"))
    lines = [tasks // nodes + (number < tasks % nodes) for number in range(nodes)] if tasks else [1] * nodes
    sizes = base.config["nodes"]
    partition = get("p", "partition", usual=base.config["queue"])
    failed = "sbatch: error: Batch job submission failed: "
    if partition != base.config["queue"]:
        say_and_end(
            f"sbatch: error: invalid partition specified: {partition}\n{failed}Invalid partition name specified"
        )
    if nodes > len(sizes) or max(lines) * cpus > max(sizes.values()):
        say_and_end(f"{failed}Requested node configuration is not available")
    kind, _, others = get("d", "dependency").partition(":")
    depend = [(kind, int(other)) for other in others.split(":") if other]
    if depend and any(base.load(other) is None for _, other in depend):
        say_and_end(f"{failed}Job dependency problem")
    here = os.getcwd()
    exported = get("export", usual="ALL")
    whole = exported.split(",")[0] == "ALL"
    output = get("o", "output", usual="slurm-%j.out")
    error = get("e", "error", usual=output)
    variables = dict(os.environ) if whole else {"PATH": os.environ["PATH"]}
    for pair in exported.split(","):
        key, equals, value = pair.partition("=")
        variables |= {key: value} if equals else {}
    return base.submit(
        {
            "name": get("J", "job-name", usual=name),
            "queue": partition,
            "want": [{"cpus": count * cpus, "lines": count} for count in lines],
            "scatter": True,
            "ntasks": tasks,
            "walltime": seconds(get("t", "time", usual="1:00:00")),
            "output": "",
            "error": "",
            "streams": {
                "output": os.path.join(here, output.replace("%j", "%d")),
                "error": os.path.join(here, error.replace("%j", "%d")),
            },
            "variables": variables,
            "depend": depend,
            "state": "H" if depend else "Q",
            "cwd": here,
            "path": os.environ.get("PATH", ""),
        },
        script,
    )


def qsub(base: Base, args: list[str]) -> None:
    """The wrapper, which is a perl script around sbatch."""
    options = "a:A:e:hIj:J:l:m:M:N:o:p:P:q:r:S:t:v:VW:"
    usage = (
        "Usage:\n    qsub [-a start_time] [-A account] [-e err_path] [-I] [-l resource_list] [-m mail_options] ...\n"
    )
    try:
        given, rest = getopt.getopt(args, options)
    except getopt.GetoptError as exc:
        say_and_end(f"Unknown option: {exc.opt}\n{usage}", 2)
    if not rest:
        say_and_end(usage, 2)
    script = Path(rest[0]).read_text()
    honoured: list[tuple[str, str]] = []
    for line in script.splitlines():
        match = re.match(r"#PBS -([Nlq]) (\S+)", line)
        honoured += [(f"-{match[1]}", match[2])] if match else []
    asked = dict([*honoured, *given])  # the last -l alone counts
    words: dict[str, str] = {"export": "ALL" if "-V" in asked or "-v" not in asked else f"NONE,{asked['-v']}"}
    for part in asked.get("-l", "nodes=1").split(","):
        name, _, value = part.partition("=")
        if name == "nodes":
            first, *more = value.split(":")
            ppn = next((int(each[4:]) for each in more if each.startswith("ppn=")), 1)
            if first.isdigit():
                words |= {"nodes": first, "ntasks": str(int(first) * ppn)}
        elif name == "walltime":
            words["time"] = value
    pairs = {"-N": "job-name", "-q": "partition", "-A": "account", "-o": "output", "-e": "error"}
    words |= {to: asked[name] for name, to in pairs.items() if name in asked}
    if "-W" in asked:
        words["dependency"] = asked["-W"].partition("=")[2]
    name = words.get("job-name", os.path.basename(rest[0]))
    words.setdefault("output", f"{name}.o%j")
    words.setdefault("error", f"{name}.e%j")
    if not script.startswith("#!"):
        print("There was an error running the Slurm sbatch command.")
        sys.exit(1)
    try:
        print(submit(base, "qsub", words, script, name))
    except SystemExit as exc:
        print("There was an error running the Slurm sbatch command.\nThe command was:\n'sbatch ... 2>&1'")
        sys.exit(exc.code)


PREEMPTED = "preempted"
"""Why the server ends a job: `Base.cancel(job, by=PREEMPTED)`. It has the partition's `GraceTime` from SIGTERM on."""


def letter_of(job: Job) -> tuple[str, str]:
    """What squeue calls its state, and why."""
    if job["state"] in ENDED:
        if job.get("cancel") == "walltime":
            return "TO", "TimeLimit"
        if job.get("cancel") == PREEMPTED:
            return "PR", "None"
        if job.get("cancel"):
            return "CA", "None"
        status = job.get("status")
        if status is None:
            return "CA", "DependencyNeverSatisfied"
        if status == -53:
            return "F", "JobLaunchFailure"
        return ("CD", "None") if status == 0 else ("F", "NonZeroExitCode")
    if job["state"] == "E" or job.get("cancel"):
        return "CG", "None"
    return {"Q": ("PD", "Resources"), "H": ("PD", "Dependency"), "R": ("R", "None")}[job["state"]]


def squeue(base: Base, args: list[str]) -> None:
    asked, _ = parse("squeue", args, "hu:j:t:o:", ("noheader", "states=", "user=", "format=", "jobs=", "partition="))
    reach(base, "squeue")
    wanted = [int(word.partition("_")[0]) for word in asked.get("jobs", asked.get("j", "")).split(",") if word]
    if len(wanted) == 1 and base.load(wanted[0]) is None:
        say_and_end("slurm_load_jobs error: Invalid job id specified")
    for job in base.jobs():
        if wanted and job["number"] not in wanted:
            continue
        if "user" in asked and job["owner"] != asked["user"]:
            continue
        if job["state"] in ENDED and asked.get("states") != "all":
            continue
        letter, reason = letter_of(job)
        left = max(0, int(job["walltime"] - (time.time() - job.get("started", time.time()))))
        facts = {
            "i": str(job["number"]),
            "t": letter,
            "r": reason,
            "N": ",".join(node for node, _ in job.get("layout", [])),
            "L": f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}",
            "j": job["name"],
        }
        print(re.sub(r"%([a-zA-Z])", lambda match, facts=facts: facts[match[1]], asked.get("format", "%i %t")))  # type: ignore[misc]


def scancel(base: Base, args: list[str]) -> None:
    _, ids = parse("scancel", args, "u:s:f", ("user=", "signal=", "full"))
    reach(base, "scancel")
    for word in ids:
        job = base.load(int(word)) if word.isdigit() else None
        if job is None:
            say_and_end(f"scancel: error: Kill job error on job id {word}: Invalid job id specified")
        if job["owner"] != whoami() and os.getuid() != 0:
            say_and_end(f"scancel: error: Kill job error on job id {word}: Access/permission denied")
        base.cancel(job)


def scontrol(base: Base, args: list[str]) -> None:
    words = [word for word in args if not word.startswith("-")]
    if words[:2] == ["show", "hostnames"]:
        print("\n".join(words[2].split(",")))
        return
    reach(base, "scontrol")
    job = base.load(int(words[2])) if words[:2] == ["show", "job"] and words[2].isdigit() else None
    if job is None:
        say_and_end("slurm_load_jobs error: Invalid job id specified")
    status = job.get("status") or 0
    code = f"{status}:0" if status >= 0 else f"0:{-status}"
    print(f"JobId={job['number']} JobName={job['name']} JobState=X ExitCode={code} RunTime=00:00:01")


def srun(base: Base, args: list[str]) -> None:
    asked, command = parse("srun", args, "N:n:w:", SRUN_LONG)
    number = asked.get("jobid") or os.environ.get("SLURM_JOB_ID", "")
    job = base.load(int(number)) if number.isdigit() else None
    if job is None or job["state"] != "R":
        say_and_end("srun: error: Unable to confirm allocation for job: Invalid job id specified")
    if "SLURM_EXPORT_ENV" in os.environ and os.environ["SLURM_EXPORT_ENV"].startswith("NONE"):
        say_and_end(f"slurmstepd: error: execve(): {command[0]}: No such file or directory", 2)
    for name in ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE"):
        other = {"SLURM_MEM_PER_CPU": "SLURM_MEM_PER_NODE"}.get(name, "SLURM_MEM_PER_CPU")
        if name in os.environ and other in os.environ:
            say_and_end(
                "srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_GPU, and SLURM_MEM_PER_NODE are mutually exclusive."
            )
    nodes = [node for node, _ in job["layout"]]
    wanted = asked["nodelist"].split(",") if "nodelist" in asked else nodes[: int(asked.get("nodes", len(nodes)))]
    tasks = int(asked.get("ntasks", os.environ.get("SLURM_NTASKS", len(wanted))))
    if any(node not in nodes for node in wanted):
        say_and_end("srun: error: Unable to create step for job: Requested nodes are not in the job's allocation")
    if tasks != len(wanted):
        say_and_end(f"srun: error: Unable to create step for job {number}: More processors requested than permitted")
    started: list[tuple[Path, dict[str, str]]] = []
    for rank, node in enumerate(wanted):
        env = {**os.environ, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURMD_NODENAME": node}
        env |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": ",".join(wanted), "SLURM_NTASKS": str(tasks)}
        env |= {"SLURM_TASKS_PER_NODE": "1" if len(wanted) == 1 else f"1(x{len(wanted)})"}
        stamp = f"{number}-{os.getpid()}-{time.time_ns()}"
        streams = {name: str(base.path / "streams" / f"{stamp}.{name}") for name in ("i", "o", "e")}
        if len(wanted) == 1:
            os.mkfifo(streams["i"])
            source = streams["i"]
        else:
            source = os.devnull  # where several are started nobody has input for them
            del streams["i"]
        for name in ("o", "e"):
            Path(streams[name]).touch()
        shell = f"exec <{shlex.quote(source)}; exec {shlex.join(command)}"
        task = base.start_task(
            job, node, ["/bin/sh", "-c", shell], env, os.getcwd(), output=streams["o"], error=streams["e"]
        )
        started.append((task, streams))

    def pass_on(signum: int, frame: Any) -> None:
        for task, _ in started:
            tell(task, signum)

    signal.signal(signal.SIGTERM, pass_on)
    sys.exit(max(carry(task, streams) for task, streams in started))


COMMANDS = {
    "sbatch": sbatch,
    "squeue": squeue,
    "scancel": scancel,
    "scontrol": scontrol,
    "srun": srun,
    "qsub": qsub,
}
