"""pbsdsh and pbs_tmrsh: programs that start other programs on the nodes of the job that they are in.

Lives here: both commands. Elsewhere: how a node is simulated (`engine.py`).
"""

from __future__ import annotations

import getopt
import os
import signal
import sys
import time
from pathlib import Path

from grid.testing.standins.engine import TICK_S, Base, Job, exit_of, tell
from grid.testing.standins.pbs_server import ID, find, job_id, usage

PBSDSH_USAGE = """\
Usage: pbsdsh [-c copies][-s][-v][-o] -- program [args...]
       pbsdsh [-n node_index][-s][-v][-o] -- program [args...]
       pbsdsh --version
Where -c copies =  run a copy of "program" on the first "copies" nodes,
      -n node_index = run a copy of "program" on the "node_index"-th node,
      -s = forces synchronous execution,
      -v = forces verbose output.
      -o = no obits are waited for.
"""


def job_here(base: Base, command: str) -> Job:
    torque = base.config["system"] == "torque"
    if not torque and "PBS_ENVIRONMENT" not in os.environ:
        usage(base, f"{command}: not executing under PBS\n", 1)
    match = ID.fullmatch(os.environ.get("PBS_JOBID", ""))
    job = find(base, match) if match else None
    if job is None or job["state"] != "R":
        usage(base, f"{command}: tm_init failed, rc = bad environment (17005) (17005)\n", 1)
    if torque and (base.path / "jobs" / f"{job['number']}.tm-broken").exists():
        usage(base, "pbsdsh(): tm_init failed, rc = TM_ENOEVENT (17001)\n", 1)
    return job


def lines_of(job: Job) -> list[str]:
    return [node for (node, _), want in zip(job["layout"], job["want"], strict=True) for _ in range(want["lines"])]


def start_on(base: Base, job: Job, line: int, argv: list[str]) -> Path:
    """A task with the environment that was recorded: next to nothing."""
    torque = base.config["system"] == "torque"
    lines = lines_of(job)
    node = lines[line]
    hosts = list(dict.fromkeys(lines))
    first = node == hosts[0]
    env = {"ENVIRONMENT": "BATCH", "HOME": job["home"], "PATH": "/bin:/usr/bin", "PBS_ENVIRONMENT": "PBS_BATCH"}
    env |= {"PBS_JOBID": job_id(base, job), "PBS_JOBNAME": job["name"], "PBS_NODENUM": str(hosts.index(node))}
    env |= {"PBS_QUEUE": job["queue"], "PBS_O_HOME": job["home"], "PBS_O_WORKDIR": job["cwd"]}
    env |= {"PBS_JOBCOOKIE": "0123456789ABCDEF0123456789ABCDEF", "PBS_MOMPORT": "15003", "GRID_STANDIN": str(base.path)}
    env |= base.config.get("environment", {})
    env |= job["variables"]
    listed = str(base.path / "aux" / job_id(base, job))
    if torque:
        env |= {"PBS_VNODENUM": str(line), "PBS_TASKNUM": str(line + 2), "PBS_VERSION": "TORQUE-6.1.3.h5"}
        env |= {"PBS_NUM_NODES": str(len(hosts)), "PBS_NUM_PPN": str(job["want"][0]["lines"]), "LANG": "C.UTF-8"}
        env |= {"PBS_NODEFILE": listed} if first else {}
    else:
        cpus = str(job["want"][0]["cpus"])
        env |= {"PBS_TASKNUM": f"{line + 2:08X}", "PBS_JOBDIR": job["home"], "PBS_O_SYSTEM": "Linux"}
        env |= {"NCPUS": cpus, "OMP_NUM_THREADS": cpus}
        env |= {} if first else {"PBS_NODEFILE": listed}
    output = str(base.file(job["number"], "OU"))
    return base.start_task(job, node, argv, env, job["home"], output=output, error=output, pbsdsh=os.getpid())


def pbsdsh(base: Base, args: list[str]) -> None:
    system = base.config["system"]
    torque = system == "torque"
    short = "c:n:h:osvu" if torque else "c:n:h:osv" if system == "openpbs-git" else "c:n:osv"
    try:
        given, argv = getopt.getopt(args, short)
    except getopt.GetoptError as exc:
        usage(base, f"pbsdsh: invalid option -- '{exc.opt}'\n{PBSDSH_USAGE}", 1)
    chosen = dict(given)
    if not argv:
        usage(base, PBSDSH_USAGE, 1)
    job = job_here(base, "pbsdsh")
    lines = lines_of(job)
    if "-u" in chosen:
        numbers = [lines.index(node) for node in dict.fromkeys(lines)]
    elif "-n" in chosen:
        numbers = [int(chosen["-n"]) % len(lines)]
    elif "-h" in chosen:
        if chosen["-h"] not in lines:
            usage(base, f"pbsdsh(): {chosen['-h']} not found\n" if torque else PBSDSH_USAGE, 1)
        numbers = [lines.index(chosen["-h"])]
    elif "-c" in chosen:
        numbers = list(range(int(chosen["-c"])))
    else:
        numbers = list(range(len(lines)))
    broken = base.path / "jobs" / f"{job['number']}.tm-broken"
    tasks = [start_on(base, job, number, argv) for number in numbers]
    told: set[Path] = set()

    def pass_on(signum: int, frame: object) -> None:
        for number, task in enumerate(tasks):
            if exit_of(task) is None:
                says = f"pbsdsh(): killing task {number}" if torque else f"pbsdsh: killing task 0x{number:08X}"
                sys.stderr.write(f"{says} signal {signum}\n")
                tell(task, signum)
        if torque:
            broken.touch()

    signal.signal(signal.SIGTERM, pass_on)
    for number, task in enumerate(tasks):
        while (status := exit_of(task)) is None:
            time.sleep(TICK_S / 2)
        told.add(task)
        if status:
            code = 256 - status if status < 0 else status
            if torque:
                sys.stderr.write(f"pbsdsh(): task {numbers[number]} exit status {code}\n")
            else:
                print(f"pbsdsh: task 0x{number:08X} exit status {code}")


def pbs_tmrsh(base: Base, args: list[str]) -> None:
    if base.config["system"] == "torque":
        usage(base, "pbs_tmrsh: not found\n", 127)
    if len(args) < 2:
        usage(base, "usage: pbs_tmrsh [-n][-l username] host [-n][-l username] command\n", 1)
    job = job_here(base, "pbs_tmrsh")
    lines = lines_of(job)
    if args[0] not in lines:
        usage(base, f'pbs_tmrsh: host "{args[0]}" is not a node of this job\n', 255)
    task = start_on(base, job, lines.index(args[0]), args[1:])
    signal.signal(signal.SIGTERM, lambda signum, frame: tell(task, signum))
    while (status := exit_of(task)) is None:
        time.sleep(TICK_S / 2)
    sys.exit(256 + status if status < 0 else status)
