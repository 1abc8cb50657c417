"""What the commands of TORQUE and PBS share: the server's part, ids of jobs, times, and a server that is not there.

Lives here: `PbsWords`, as the engine asks for them; what two commands or more need.
Elsewhere:  the commands (`pbs_qsub.py`, `pbs_qstat.py`, `pbs_inside.py`), the server's life (`engine.py`).
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import NoReturn

from grid.testing.standins.engine import ARRAY, ENDED, TICK_S, Base, Job, number_of_task

LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"


class PbsWords:
    """What the server does in this system's way."""

    walltime_text = "=>> PBS: job killed: walltime %d exceeded limit %d\n"

    def __init__(self, system: str) -> None:
        self.torque = system == "torque"
        self.ended_letter = "C" if self.torque else "F"

    def warning(self, job: Job) -> int:
        return signal.SIGTERM

    def status_of(self, job: Job, status: int) -> int:
        if job.get("cancel") == "walltime":
            return -11 if self.torque else -29
        if status < 0:
            return 256 - status
        return status

    def begin(self, base: Base, job: Job) -> tuple[dict[str, str], list[str], str]:
        lines = [node for (node, _), want in zip(job["layout"], job["want"], strict=True) for _ in range(want["lines"])]
        listed = base.path / "aux" / job_id(base, job)
        listed.write_text("".join(f"{line}\n" for line in lines))
        listed.chmod(0o644)
        script = base.file(job["number"], "script")
        env = {**job["variables"], **self.environment(base, job, str(listed))}
        shell = ["/bin/bash", "-l"] if base.config.get("login_shell") else ["/bin/bash"]
        return env, [*shell, str(script)], job["home"]

    def environment(self, base: Base, job: Job, listed: str) -> dict[str, str]:
        """As recorded from a job's first node."""
        home, user = job["home"], job["owner"]
        programs = base.config["programs"]
        shared = {
            "ENVIRONMENT": "BATCH",
            "HOME": home,
            "LOGNAME": user,
            "USER": user,
            "SHELL": "/bin/bash",
            "PATH": f"{LOGIN_PATH}:{programs}",
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBCOOKIE": "0123456789ABCDEF0123456789ABCDEF",
            "PBS_JOBID": job_id(base, job),
            "PBS_JOBNAME": job["name"],
            "PBS_MOMPORT": "15003",
            "PBS_NODEFILE": listed,
            "PBS_NODENUM": "0",
            "PBS_O_HOME": home,
            "PBS_O_HOST": job["host"],
            "PBS_O_LOGNAME": user,
            "PBS_O_PATH": job["path"],
            "PBS_O_QUEUE": job["queue"],
            "PBS_O_WORKDIR": job["cwd"],
            "PBS_QUEUE": job["queue"],
            "PBS_TASKNUM": "1",
            "GRID_STANDIN": str(base.path),
            **base.config.get("environment", {}),
        }
        first = job["want"][0]
        if "array" in job:
            shared["PBS_ARRAYID" if self.torque else "PBS_ARRAY_INDEX"] = str(job["index"])
        if self.torque:
            own = {
                "LANG": "C.UTF-8",
                "PBS_GPUFILE": f"{listed}gpu",
                "PBS_NP": str(sum(want["lines"] for want in job["want"])),
                "PBS_NUM_NODES": str(len(job["want"])),
                "PBS_NUM_PPN": str(first["lines"]),
                "PBS_O_SERVER": base.config["server"],
                "PBS_VERSION": "TORQUE-6.1.3.h5",
                "PBS_VNODENUM": "0",
                "PBS_WALLTIME": str(int(job["walltime"])),
            }
        else:
            threads = str(first.get("threads") or first["cpus"])
            own = {
                "NCPUS": str(first["cpus"]),
                "OMP_NUM_THREADS": threads,
                "PBS_JOBDIR": home,
                "PBS_O_INTERACTIVE_AUTH_METHOD": "resvport",
                "PBS_O_INTERACTIVE_ENCRYPT_METHOD": "",
                "PBS_O_SYSTEM": "Linux",
            }
        return {**shared, **own}

    def can_copy(self, job: Job) -> bool:
        return all(target == "/dev/null" or os.path.isdir(os.path.dirname(target)) for _, target in self.copies(job))

    def copies(self, job: Job) -> list[tuple[str, str]]:
        found = [("OU", job["output"])]
        return found if job["join"] else [*found, ("ER", job["error"])]


def job_id(base: Base, job: Job) -> str:
    name = f"{job['array']}[{job['index']}]" if "array" in job else f"{job['number']}{'[]' if 'tasks' in job else ''}"
    return f"{name}.{base.config['server']}"


ID = re.compile(r"(\d+)(\[\d*\])?(\..*)?")


def find(base: Base, match: re.Match[str]) -> Job | None:
    """`12`, `12[]` of an array, `12[1]` of one of its tasks."""
    number, inside = int(match[1]), match[2]
    job = base.load(number_of_task(number, int(inside[1:-1])) if inside and inside != "[]" else number)
    return None if job is None or ("tasks" in job) != (inside == "[]") else job


def indices_of(text: str) -> list[int]:
    """`1-7:2`, `0,3`, `1-4%2`."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def letter_of(base: Base, job: Job) -> str:
    """The state as qstat has it."""
    torque = base.config["system"] == "torque"
    if job["state"] == ARRAY:
        begun = any(task["state"] != "Q" for task in base.tasks(job))
        return "Q" if not begun else "R" if torque else "B"
    return "X" if "array" in job and job["state"] in ENDED and not torque else str(job["state"])


def usage(base: Base, text: str, status: int = 2) -> NoReturn:
    sys.stderr.write(text)
    sys.exit(status)


def reach(base: Base, command: str) -> None:
    """The server, or what the command says when it is not there."""
    hung = False
    while (mode := base.mode()) == "hung":
        hung = True
        time.sleep(TICK_S)  # for as long as it lasts: so does the real one
    del hung
    if mode != "down":
        return
    server = base.config["server"]
    if base.config["system"] == "torque":
        sys.stderr.write(
            f"\nUnable to communicate with {server}(127.0.0.1)\nCannot connect to specified server host '{server}'.\n"
            f"{command}: cannot connect to server {server} (errno=111) Connection refused\n"
        )
        sys.exit(111)
    sys.stderr.write("Connection refused\n")
    if command == "qdel":
        sys.stderr.write(f"Couldn't connect to cluster: {server}\n")
        sys.exit(162)
    sys.stderr.write(f"{command}: cannot connect to server {server} (errno=15010)\n")
    sys.exit(255 if command == "qstat" else 162)


def place_of(here: str, path: str, usual: str) -> str:
    found = os.path.join(here, path or usual)
    return os.path.join(found, usual) if path and os.path.isdir(found) else found


def split_outside(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def seconds(text: str) -> float:
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part or 0)
    return float(total)


def clock(total: float) -> str:
    whole = int(total)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def version(base: Base) -> str:
    torque = "Version: 6.1.3.h5\nCommit: 4decc716daa73044648b5578ef68d89713d2f6a2"
    return torque if base.config["system"] == "torque" else "pbs_version = 23.06.06"


def has_ended(base: Base, job: Job) -> bool:
    """Whether only the history has it: a task that has ended is told of as long as its array runs."""
    whole = base.load(job["array"]) if "array" in job else job
    return whole is None or whole["state"] in ENDED


def full(base: Base, word: str) -> str:
    return word if "." in word else f"{word}.{base.config['server']}"
