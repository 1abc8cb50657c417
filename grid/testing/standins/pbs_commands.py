"""qsub, qstat, qdel, pbsdsh, pbs_tmrsh as TORQUE 6.1.3 and OpenPBS (23.06.06, and git of April 2026) have them.

Made from records of the real ones: what they print, on which stream, with which exit status; what stands in a job's
environment; what happens at its end. They are strict: an option that the real command does not have ends as it ends
there. `config["system"]` is torque, openpbs or openpbs-git; `history` says whether OpenPBS keeps one.
"""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from grid.testing.standins.engine import ARRAY, ENDED, TICK_S, Base, Job, exit_of, number_of_task, tell, whoami

TORQUE_QSUB_USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-b secs]
    [-c [ none | { enabled | periodic | shutdown |
    depth=<int> | dir=<path> | interval=<minutes>}... ]
    [-C directive_prefix] [-d path] [-D path]
    [-e path] [-h] [-I] [-j oe|eo|n] [-k {oe}] [-K <kill delay seconds>]
    [-l resource_list] [-m n|{abe}] [-M user_list] [-N jobname] [-o path]
    [-p priority] [-P proxy_user [-J <jobid]] [-q queue] [-r y|n]
    [-S path] [-t number_to_submit] [-T type]  [-u user_list] [-w] path
    [-W additional_attributes] [-v variable_list] [-V ] [-x] [-X] [-z] [script]
"""
PBS_QSUB_USAGE = """\
usage: qsub [-a date_time] [-A account_string] [-c interval]
\t[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
\t[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
\t[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
\t[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
\t[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
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
LOGIN_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
HISTORY_OFF = "PBS is not configured to maintain job history"
FINISHED = "Job has finished, use -x or -H to obtain historical job information"


class Words:
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


# -- qsub --------------------------------------------------------------------------------------------------------------


def qsub(base: Base, args: list[str]) -> None:
    torque = base.config["system"] == "torque"
    options = "a:A:b:c:C:d:D:e:F:hIj:k:K:l:m:M:N:o:p:P:J:q:r:S:t:T:u:w:W:v:VxXzn" if torque else (
        "a:A:c:C:e:fhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:W:v:VXzG"
    )  # fmt: skip
    text = TORQUE_QSUB_USAGE if torque else PBS_QSUB_USAGE
    if args == ["--version"]:
        print(version(base))
        return
    try:
        given, rest = getopt.gnu_getopt(args, options)
    except getopt.GetoptError as exc:
        head = f"qsub: invalid option -- '{exc.opt}'\n" + ("[exiting]\n\n" if torque else "")
        usage(base, head + text)
    if len(rest) > 1:
        usage(base, "[index issues]\n\n" + text if torque else text)
    if rest:
        try:
            script = Path(rest[0]).read_text()
        except OSError:
            why = (
                f"qsub: script file '{rest[0]}' cannot be loaded - No such file or directory\n"
                if torque
                else "qsub: script file:: No such file or directory\n"
            )
            usage(base, why, 1)
        name = os.path.basename(rest[0])[:15]
    else:
        script, name = sys.stdin.read(), "STDIN"
    if ("-I", "") in given:
        usage(base, "qsub:\tstandard input and output must be a terminal for\n\tinteractive job submission\n", 1)
    directives: list[tuple[str, str]] = []
    for line in script.splitlines():
        if line.startswith("#PBS "):
            with contextlib.suppress(getopt.GetoptError):
                directives += getopt.gnu_getopt(line[5:].split(), options)[0]
        elif line.strip() and not line.startswith("#"):
            break
    asked = Asked(base, name)
    for option, value in [*directives, *given]:
        asked.take(option, value, text)
    if not torque and not asked.foreground and base.mode() == "hung":
        hand_over(base, asked, script)
    reach(base, "qsub")
    asked.check()
    if not torque and os.uname().nodename in base.config["nodes"] and not base.config.get("flatuid"):
        usage(base, "qsub: Bad UID for job execution\n", 175)
    if torque and os.uname().nodename in base.config["nodes"]:
        usage(base, "qsub: submit error (Bad UID for job execution MSG=ruserok failed validating)\n", 177)
    number = base.submit(asked.job(), script)
    if not asked.quiet:
        print(f"{number}{'[]' if asked.indices else ''}.{base.config['server']}")


def hand_over(base: Base, asked: Asked, script: str) -> NoReturn:
    """To a process in the background, as the real one does: it submits the job when a hung server goes on, whatever

    has become of us by then. We hang.
    """
    code = (
        f"import sys; sys.path[:0] = {sys.path[:1]!r}; from grid.testing.standins import pbs_commands as c; c.later()"
    )
    handed = json.dumps([asked.job(), script])
    null = subprocess.DEVNULL
    subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "GRID_STANDIN": str(base.path), "GRID_STANDIN_LATER": handed},
        stdin=null,
        stdout=null,
        stderr=null,
        start_new_session=True,
    )
    while True:
        time.sleep(60)


def later() -> None:
    """The process in the background."""
    base = Base()
    job, script = json.loads(os.environ["GRID_STANDIN_LATER"])
    end = time.time() + 60
    while base.mode() == "hung":
        if time.time() > end:
            return
        time.sleep(TICK_S)
    base.submit(job, script)


class Asked:
    """What a job asks for, as the options and directives say."""

    def __init__(self, base: Base, name: str) -> None:
        self.base, self.torque = base, base.config["system"] == "torque"
        self.name, self.queue, self.output, self.error = name, base.config["queue"], "", ""
        self.join = self.foreground = self.quiet = self.hold = False
        self.rerunable = True
        self.everything = False
        self.variables: dict[str, str] = {}
        self.depend: list[tuple[str, int]] = []
        self.resources: dict[str, str] = {}
        self.indices: list[int] = []

    def take(self, option: str, value: str, text: str) -> None:
        letter = option[1]
        if letter == "N":
            if not re.fullmatch(r"[^\s]+", value):
                usage(self.base, ("[qsub: illegal -N value]\n\n" if self.torque else "qsub: illegal -N value\n") + text)
            self.name = value
        elif letter == "l":
            for part in split_outside(value):
                key, _, rest = part.partition("=")
                self.resources[key] = rest
        elif letter == "q":
            self.queue = value
        elif letter in "oe":
            setattr(self, "output" if letter == "o" else "error", value.rpartition(":")[2])
        elif letter == "j":
            if value not in ("oe", "eo", "n"):
                usage(self.base, ("[qsub: illegal -j value]\n\n" if self.torque else "qsub: illegal -j value\n") + text)
            self.join = value != "n"
        elif letter == "W":
            self._attribute(value, text)
        elif letter == "v":
            for part in value.split(","):
                key, equals, rest = part.partition("=")
                if equals:
                    self.variables[key] = rest
                elif key in os.environ:
                    self.variables[key] = os.environ[key]
                elif not self.torque:
                    usage(self.base, "qsub: cannot send environment with the job\n", 1)
        elif letter == "V":
            self.everything = True
        elif letter == "f":
            self.foreground = True
        elif letter == "h":
            self.hold = True
        elif letter == "z":
            self.quiet = True
        elif letter == "r":
            self.rerunable = value == "y"
        elif letter == ("t" if self.torque else "J"):
            self.indices = indices_of(value)

    def _attribute(self, value: str, text: str) -> None:
        key, _, rest = value.partition("=")
        if key == "depend":
            kind = rest.partition(":")[0]
            if kind not in ("after", "afterok", "afternotok", "afterany", "before", "beforeok"):
                usage(self.base, "qsub: illegal -W value\n" + text)
            self.depend = [(kind, int(job.partition(".")[0].rstrip("[]"))) for job in rest.split(":")[1:]]
        elif self.torque and key not in ("depend", "group_list", "umask", "stagein", "stageout", "x"):
            usage(
                self.base,
                "qsub: submit error (Undefined attribute  MSG=detected presence of an unknown attribute)\n",
                154,
            )

    def check(self) -> None:
        refuse = self._torque_checks if self.torque else self._pbs_checks
        refuse()

    def _torque_checks(self) -> None:
        def refuse(status: int, why: str) -> NoReturn:
            usage(self.base, f"qsub: submit error ({why})\n", status)

        if self.queue != self.base.config["queue"]:
            refuse(172, "Unknown queue MSG=requested queue not found")
        for key, value in self.resources.items():
            if key not in ("nodes", "walltime", "mem", "pmem", "vmem", "ncpus", "procs", "select", "cput", "place"):
                refuse(189, f"Unknown resource type  Resource_List.{key}")
            if key == "walltime" and not re.fullmatch(r"[\d:]+", value):
                refuse(168, "Illegal attribute or resource value for Resource_List.walltime")
        sizes = self.base.config["nodes"]
        want = self.want()
        if len(want) > len(sizes) or any(
            each["cpus"] > max(sizes.values()) or each.get("host") not in (None, *sizes) for each in want
        ):
            refuse(
                190,
                "Job exceeds queue resource limits MSG=cannot locate feasible nodes (nodes file is empty, all systems "
                "are busy, or no nodes have the requested feature)",
            )
        for kind, other in self.depend:
            before = self.base.load(other)
            if before is None or (kind == "afterok" and before["state"] == "C"):
                refuse(208, "Invalid Job Dependency")

    def _pbs_checks(self) -> None:
        def refuse(status: int, why: str) -> NoReturn:
            usage(self.base, f"qsub: {why}\n", status)

        if self.indices and not self.rerunable:
            refuse(255, "cannot submit non-rerunable Array Job\nqsub: directive error: -r n ")
        if self.queue != self.base.config["queue"]:
            refuse(170, "Unknown queue")
        chunked = "select" in self.resources or "place" in self.resources
        for key, value in self.resources.items():
            if key not in ("nodes", "walltime", "mem", "pmem", "vmem", "ncpus", "select", "place", "cput", "mpiprocs"):
                refuse(187, f"Unknown resource Resource_List.{key}")
            if key == "walltime" and not re.fullmatch(r"[\d:]+", value):
                refuse(166, "Illegal attribute or resource value Resource_List.walltime")
            if key == "nodes" and chunked:
                refuse(6, "Cannot be used with select or place: nodes")
            if key in ("mem", "ncpus", "vmem", "mpiprocs") and chunked:
                refuse(5, f'"-lresource=" cannot be used with "select" or "place", resource is: {key}')
        for chunk in self.resources.get("select", "").split("+"):
            for part in chunk.split(":")[1:]:
                if part.partition("=")[0] not in ("ncpus", "mpiprocs", "ompthreads", "mem", "host", "vnode"):
                    refuse(187, f"Unknown resource: {part.partition('=')[0]}")
        if self.resources.get("nodes", "1").partition(":")[0] == "0":
            refuse(241, "node(s) specification error")
        if self.resources.get("select", "1").partition(":")[0] == "0":
            refuse(166, "Illegal attribute or resource value")

    def want(self) -> list[dict[str, Any]]:
        """Nodes, or chunks: cpus, lines of the node file, and more, of each."""
        if "select" in self.resources and not self.torque:
            return [each for chunk in self.resources["select"].split("+") for each in self._chunk(chunk)]
        found: list[dict[str, Any]] = []
        for part in self.resources.get("nodes", "1").split("+"):
            first, *more = part.split(":")
            ppn = next((int(each[4:]) for each in more if each.startswith("ppn=")), 1)
            host = None if first.isdigit() else first
            found += [{"cpus": ppn, "lines": ppn, "host": host}] * (int(first) if first.isdigit() else 1)
        if not self.torque and "nodes" not in self.resources and "ncpus" in self.resources:
            return [{"cpus": int(self.resources["ncpus"]), "lines": 1}]
        return found

    def _chunk(self, chunk: str) -> list[dict[str, Any]]:
        first, *more = chunk.split(":") if chunk[:1].isdigit() else ["1", *chunk.split(":")]
        given = dict(each.partition("=")[::2] for each in more)
        cpus = int(given.get("ncpus", 1))
        made = {"cpus": cpus, "lines": int(given.get("mpiprocs", 1)), "host": given.get("host")}
        if "ompthreads" in given:
            made["threads"] = int(given["ompthreads"])
        return [made] * int(first)

    def job(self) -> Job:
        here = os.getcwd()
        variables = {**(dict(os.environ) if self.everything else {}), **self.variables}
        variables = {key: value for key, value in variables.items() if not key.startswith("PBS_")}
        want = self.want()
        scatter = self.torque or "select" not in self.resources or self.resources.get("place", "").startswith("scatter")
        server_number = "%d"  # known when it is submitted
        return {
            "name": self.name,
            "queue": self.queue,
            "want": want,
            "scatter": scatter,
            "walltime": seconds(self.resources.get("walltime", "1:00:00")),
            "resources": self.resources,
            "output": place_of(here, self.output, f"{self.name}.o{server_number}"),
            "error": place_of(here, self.error, f"{self.name}.e{server_number}"),
            "join": self.join,
            "rerunable": self.rerunable,
            "variables": variables,
            "depend": self.depend,
            "user_hold": self.hold,
            "state": "H" if self.hold or self.depend else "Q",
            "cwd": here,
            "path": os.environ.get("PATH", ""),
            **({"indices": self.indices, "mark": "-" if self.torque else "."} if self.indices else {}),
        }


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


# -- qstat, qdel -------------------------------------------------------------------------------------------------------


def version(base: Base) -> str:
    torque = "Version: 6.1.3.h5\nCommit: 4decc716daa73044648b5578ef68d89713d2f6a2"
    return torque if base.config["system"] == "torque" else "pbs_version = 23.06.06"


def qstat(base: Base, args: list[str]) -> None:
    system = base.config["system"]
    torque = system == "torque"
    if args == ["--version"]:
        print(version(base))
        return
    try:
        given, ids = getopt.gnu_getopt(args, "afe1iGMnqrsu:QBxt" if torque else "afEF:HiGMnpqrstTu:wQBx1J")
    except getopt.GetoptError as exc:
        usage(base, f"qstat: invalid option -- '{exc.opt}'\nusage: qstat [-f] [-J] [-p] [-t] [-x] [ job_id... ]\n")
    options = {name for name, _ in given}
    formed = dict(given).get("-F")
    reach(base, "qstat")
    with_history = not torque and ("-x" in options or "-H" in options)
    if torque and "-x" in options:
        print("<Data></Data>")
        return
    if with_history and not base.config["history"]:
        for word in ids or [""]:
            sys.stderr.write(f"qstat: {HISTORY_OFF} {full(base, word) if word else ''}\n")
        if formed == "json":
            print(json_of(base, []))
        return
    status = 0
    found: list[Job] = []
    if not ids or "" in ids or (torque and any("[]" in job for job in ids) and "-t" not in options):
        found = [job for job in base.jobs() if with_history or torque or job["state"] not in ENDED]
        found = [job for job in found if "-t" in options or "array" not in job]
    else:
        for word in ids:
            match = ID.fullmatch(word)
            if not match:
                sys.stderr.write(f"qstat: Unknown queue destination {word}\n")
                status = 172 if torque else 170
                continue
            job = find(base, match)
            if job is None:
                says = "Unknown Job Id Error" if torque else "Unknown Job Id"
                sys.stderr.write(f"qstat: {says} {full(base, word)}\n")
                status = 153
            elif torque and job["owner"] != whoami():
                sys.stderr.write(f"qstat: Unauthorized Request  {full(base, word)}\n")
                status = 159
            elif not torque and has_ended(base, job) and not with_history:
                sys.stderr.write(f"qstat: {full(base, word)} {FINISHED}\n")
                status = 35
            elif "tasks" in job and "-t" in options:
                found += [*([] if torque else [job]), *base.tasks(job)]
            else:
                found.append(job)
    if formed == "json":
        print(json_of(base, found[:1] if system == "openpbs-git" and ids else found))
    elif "-f" in options:
        for job in found:
            print(full_text(base, job))
    elif found:
        print("Job id            Name             User              Time Use S Queue")
        print("----------------  ---------------- ----------------  -------- - -----")
        for job in found:
            row = f"{job_id(base, job):<17} {job['name'][:16]:<16} {job['owner']:<16} 0 "
            print(f"{row}{letter_of(base, job)} {job['queue']}")
    sys.exit(status)


def has_ended(base: Base, job: Job) -> bool:
    """Whether only the history has it: a task that has ended is told of as long as its array runs."""
    whole = base.load(job["array"]) if "array" in job else job
    return whole is None or whole["state"] in ENDED


def full(base: Base, word: str) -> str:
    return word if "." in word else f"{word}.{base.config['server']}"


def facts_of(base: Base, job: Job) -> dict[str, str]:
    torque = base.config["system"] == "torque"
    facts = {"Job_Name": job["name"], "Job_Owner": f"{job['owner']}@{base.config['server']}"}
    used = clock((job.get("ended") or time.time()) - job["started"]) if job.get("started") else None
    if used and (job["state"] in ENDED or not torque):
        facts["resources_used.walltime"] = used
    facts |= {"job_state": letter_of(base, job), "queue": job["queue"], "server": base.config["server"]}
    if job.get("layout"):
        facts["exec_host"] = "+".join(f"{node}/0" for node, _ in job["layout"])
        if not torque:
            facts["exec_vnode"] = "+".join(f"({node}:ncpus={cpus})" for node, cpus in job["layout"])
    facts |= {"Error_Path": f"{job['host']}:{job['error']}", "Output_Path": f"{job['host']}:{job['output']}"}
    facts["Rerunable"] = str(job["rerunable"])
    facts |= {f"Resource_List.{name}": value for name, value in job["resources"].items()}
    facts["Resource_List.walltime"] = clock(job["walltime"])
    facts["Variable_List"] = ",".join(f"{name}={value}" for name, value in job["variables"].items())
    facts["comment"] = comment_of(base, job)
    if "array" in job and not torque:
        facts |= {"array_id": f"{job['array']}[].{base.config['server']}", "array_index": str(job["index"])}
    if "tasks" in job:
        facts["array"] = "True"
    if job["state"] == "R" and torque:
        facts["Walltime.Remaining"] = str(int(job["walltime"] - (time.time() - job["started"])))
    if job["state"] in ENDED:
        if not torque:
            facts["substate"] = (
                "91"
                if job.get("deleted") or job.get("cancel") == "deleted"
                else "92"
                if "failed_parent" in job
                else "93"
            )
        if job.get("status") is not None:
            facts["exit_status" if torque else "Exit_status"] = str(job["status"])
        elif torque:
            facts["exit_status"] = "271"
        if torque and job.get("output_lost"):
            facts["sched_hint"] = "Unable to copy files back - please see the mother superior's log for exact details."
    return {name: value for name, value in facts.items() if value != ""}


def comment_of(base: Base, job: Job) -> str:
    if base.config["system"] == "torque":
        if job["state"] == "Q":
            return "Not Running: Not enough of the right type of nodes are available"
        return "Job started on Fri Nov 20 at 22:20" if job.get("started") else ""
    sizes = base.config["nodes"]
    if job["state"] == "Q":
        if max(want["cpus"] for want in job["want"]) > max(sizes.values()):
            return f"Can Never Run: Insufficient amount of resource: ncpus (R: {job['want'][0]['cpus']} A: 12 T: 12)"
        if job["scatter"] and len(job["want"]) > len(sizes):
            return "Can Never Run: Not enough total nodes available"
        return "Not Running: Insufficient amount of resource: ncpus"
    if not job.get("started"):
        return ""
    where = "+".join(f"({node}:ncpus={cpus})" for node, cpus in job["layout"])
    text = f"Job run at Wed Nov 25 at 23:13 on {where}"
    if job["state"] in ENDED:
        if job.get("cancel") == "walltime":
            return f"{text} and exceeded resource walltime"
        if job.get("cancel"):
            return f"{text} and terminated by {job['owner']}"
        return f"{text} and {'finished' if job.get('status') == 0 else 'failed'}"
    return text


def full_text(base: Base, job: Job) -> str:
    """Folded as qstat folds: at 79 columns, by newline and tab."""
    lines = [f"Job Id: {job_id(base, job)}"]
    for name, value in facts_of(base, job).items():
        line = f"    {name} = {value}"
        while len(line) > 79:
            lines.append(line[:79])
            line = "\t" + line[79:]
        lines.append(line)
    return "\n".join([*lines, ""])


def json_of(base: Base, jobs: list[Job]) -> str:
    told: dict[str, Any] = {
        "timestamp": int(time.time()),
        "pbs_version": "23.06.06",
        "pbs_server": base.config["server"],
    }
    if jobs:
        told["Jobs"] = {job_id(base, job): facts_of(base, job) for job in jobs}
    return json.dumps(told, indent="\t")


def qdel(base: Base, args: list[str]) -> None:
    torque = base.config["system"] == "torque"
    try:
        _, ids = getopt.gnu_getopt(args, "acm:ptW:b:" if torque else "W:xGH")
    except getopt.GetoptError as exc:
        usage(
            base,
            f"qdel: invalid option -- '{exc.opt}'\nusage: qdel [-W force|suppress_email=X] [-x] job_identifier...\n",
        )
    reach(base, "qdel")
    status = 0
    for word in ids:
        match = ID.fullmatch(word)
        if not match:
            sys.stderr.write(f"qdel: illegally formed job identifier: {word}\n")
            status = 1
            continue
        job = find(base, match)
        if job is None:
            sys.stderr.write(
                f"qdel: nonexistent job id: {word}\n" if torque else f"qdel: Unknown Job Id {full(base, word)}\n"
            )
            status = 153
        elif job["owner"] != whoami() and os.getuid() != 0:
            sys.stderr.write(
                f"qdel: Unauthorized Request  {'MSG=operation not permitted ' if torque else ''}{full(base, word)}\n"
            )
            status = 159
        elif job["state"] in ENDED:
            says = (
                f"Request invalid for state of job MSG=invalid state for job - COMPLETE {full(base, word)}"
                if torque
                else f"Job has finished {full(base, word)}"
            )
            sys.stderr.write(f"qdel: {says}\n")
            status = 170 if torque else 35
        elif job["state"] == "E":
            sys.stderr.write(f"qdel: Request invalid for state of job {full(base, word)}\n")
            status = 170 if torque else 168
        else:
            base.cancel(job)
    sys.exit(status)


# -- in a job ----------------------------------------------------------------------------------------------------------


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


COMMANDS = {"qsub": qsub, "qstat": qstat, "qdel": qdel, "pbsdsh": pbsdsh, "pbs_tmrsh": pbs_tmrsh}
