"""qsub, qstat, qdel, qconf, qrsh as gridengine 8.1.9 has them, by its manuals and by what it did when tried.

Strict, as `pbs_commands.py` is: PBS's `-l nodes=` is an unknown resource, slots come through a parallel environment
that `qconf -spl` lists, and a job of one slot has no PE_HOSTFILE.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from grid.testing.standins.engine import ARRAY, ENDED, TICK_S, Base, Job, exit_of, number_of_task, tell, whoami
from grid.testing.standins.pbs_server import indices_of, place_of, seconds

ENVIRONMENTS = {"mpi": 2, "mpi1": 1, "smp": 4}
"""Parallel environments -> slots on each host: fixed numbers, as an `allocation_rule` may say."""
WITH_VALUE = ("N", "S", "q", "P", "o", "e", "l", "hold_jid", "v", "r", "j", "wd", "p", "w", "m", "M", "t", "A", "b")
PLAIN = ("V", "cwd", "terse", "h", "notify")


class SgeWords:
    """What the server does in this system's way."""

    walltime_text = ""
    ended_letter = "C"

    def warning(self, job: Job) -> int:
        """SIGKILL at once, to all that has the job's group id, unless it has asked for a warning."""
        return signal.SIGUSR2 if job["notify"] else signal.SIGKILL

    def status_of(self, job: Job, status: int) -> int:
        return 128 - status if status < 0 else status

    def begin(self, base: Base, job: Job) -> tuple[dict[str, str], list[str], str]:
        env = {**job["variables"], **self.environment(base, job)}
        if job["pe"]:
            listed = base.path / "aux" / f"{job['number']}.pe_hostfile"
            listed.write_text("".join(f"{node} {slots} batch@{node} UNDEFINED\n" for node, slots in job["layout"]))
            listed.chmod(0o644)
            env |= {"PE": job["pe"], "PE_HOSTFILE": str(listed), "NSLOTS": str(sum(n for _, n in job["layout"]))}
        return env, [job["shell"], str(base.file(job["number"], "script"))], job["home"]

    def environment(self, base: Base, job: Job) -> dict[str, str]:
        return {
            "HOME": job["home"],
            "USER": job["owner"],
            "LOGNAME": job["owner"],
            "SHELL": "/bin/bash",
            "PATH": f"{base.config['programs']}:/usr/local/bin:/bin:/usr/bin",
            "ENVIRONMENT": "BATCH",
            "JOB_ID": str(job.get("array", job["number"])),
            "JOB_NAME": job["name"],
            "SGE_TASK_ID": str(job.get("index", "undefined")),
            "SGE_O_WORKDIR": job["cwd"],
            "SGE_O_HOST": job["host"],
            "QUEUE": "batch",
            "NSLOTS": "1",
            "NHOSTS": str(len(job["layout"])),
            "GRID_STANDIN": str(base.path),
            **base.config.get("environment", {}),
        }

    def can_copy(self, job: Job) -> bool:
        return True

    def copies(self, job: Job) -> list[tuple[str, str]]:
        found = [("OU", job["output"])]
        return found if job["join"] else [*found, ("ER", job["error"])]


def refuse(why: str) -> NoReturn:
    sys.stderr.write(f"Unable to run job: {why}\nExiting.\n")
    sys.exit(1)


def reach(base: Base) -> None:
    while base.mode() == "hung":
        time.sleep(TICK_S)
    if base.mode() == "down":
        server = base.config["server"]
        sys.stderr.write(
            f"error: commlib error: got select error (Connection refused)\nunable to send message to "
            "qmaster using port "
            f'6444 on host "{server}": got send error\n'
        )
        sys.exit(1)


def qsub(base: Base, args: list[str]) -> None:
    given: list[tuple[str, str]] = []
    path = None
    words = list(args)
    directives: list[str] = []

    def parse(words: list[str]) -> str | None:
        while words:
            word = words.pop(0)
            if not word.startswith("-"):
                return word
            name = word[1:]
            if name == "pe":
                given.append(("pe", f"{words.pop(0)} {words.pop(0)}"))
            elif name in WITH_VALUE:
                given.append((name, words.pop(0)))
            elif name in PLAIN:
                given.append((name, ""))
            else:
                sys.stderr.write(f"qsub: Unknown option {word}\n")
                sys.exit(1)
        return None

    path = parse(words)
    try:
        script = Path(path).read_text() if path else sys.stdin.read()
    except OSError as exc:
        refuse(f'error opening script file "{path}": {exc.strerror}.')
    command_line = list(given)
    given.clear()
    for line in script.splitlines():
        if line.startswith("#$ "):
            directives += shlex.split(line[3:])
    parse(directives)
    reach(base)
    asked = dict([*given, *command_line])
    for name, value in [*given, *command_line]:
        if name == "l":
            for part in value.split(","):
                if part.partition("=")[0] not in ("h_rt", "h_vmem", "s_rt", "mem_free", "h", "hostname"):
                    refuse(f'unknown resource "{part.partition("=")[0]}".')
    if asked.get("q", "batch") != "batch":
        refuse(f'Job was rejected because job requests unknown queue "{asked["q"]}".')
    pe, slots = "", 1
    if "pe" in asked:
        pe, count = asked["pe"].split()
        slots = int(count)
        if pe not in ENVIRONMENTS:
            refuse(f'job rejected: the requested parallel environment "{pe}" does not exist.')
    per_node = ENVIRONMENTS.get(pe, 1)
    want = [{"cpus": min(per_node, slots - done), "lines": 1} for done in range(0, slots, per_node)]
    limits = dict(
        part.partition("=")[::2] for name, value in [*given, *command_line] if name == "l" for part in value.split(",")
    )
    here = os.getcwd()
    name = asked.get("N", os.path.basename(path or "STDIN"))
    everything = dict(os.environ) if "V" in asked else {}
    before = [int(word) for word in asked.get("hold_jid", "").split(",") if word.isdigit()]
    number = base.submit(
        {
            "name": name,
            "pe": pe,
            "shell": asked.get("S", "/bin/sh"),
            "want": want,
            "scatter": True,
            "walltime": seconds(limits.get("h_rt", "24:00:00")),
            # without -cwd a job's files are below $HOME
            "output": place_of(os.environ["HOME"], asked.get("o", ""), f"{name}.o%d"),
            "error": place_of(os.environ["HOME"], asked.get("e", ""), f"{name}.e%d"),
            "notify": "notify" in asked,
            "join": asked.get("j", "n").startswith("y"),
            "variables": {key: value for key, value in everything.items() if key not in ("PE_HOSTFILE", "JOB_ID")},
            "depend": [("afterany", job) for job in before],
            "state": "H" if before else "Q",
            "cwd": here,
            "path": os.environ.get("PATH", ""),
            "queue": "batch",
            **({"indices": indices_of(asked["t"])} if "t" in asked else {}),
        },
        script,
    )
    kind, told = "job", str(number)
    if "t" in asked:
        kind, told = "job-array", f"{number}.{asked['t']}{'' if ':' in asked['t'] else ':1'}"
    print(told if "terse" in asked else f'Your {kind} {told} ("{name}") has been submitted')


def qstat(base: Base, args: list[str]) -> None:
    if args and args[0] not in ("-u", "-j", "-s", "-xml", "-f", "-g", "-help"):
        sys.stderr.write(f"error: Unknown option {args[0]}\n")
        sys.exit(1)
    if args[:1] == ["-help"]:
        print("SGE 8.1.9\nusage: qstat [options]")
        return
    reach(base)
    if args[:1] == ["-j"]:
        job = base.load(int(args[1])) if args[1].isdigit() else None
        if job is None or job["state"] in ENDED:
            sys.stderr.write(f"Following jobs do not exist: \n{args[1]}\n")
            sys.exit(1)
        print(f"job_number:                 {job['number']}\nowner:                      {job['owner']}")
        return
    wanted = args[1] if args[:1] == ["-u"] else whoami()
    alive = [job for job in base.jobs() if job["state"] not in ENDED and wanted in ("*", job["owner"])]
    waiting: dict[int, list[int]] = {}  # tasks of an array that wait are told of in one row
    for job in alive:
        if job["state"] == "Q" and "array" in job:
            waiting.setdefault(job["array"], []).append(job["index"])
    rows = [(job, str(job.get("index", ""))) for job in alive if "tasks" not in job]
    rows = [(job, index) for job, index in rows if job["state"] != "Q" or "array" not in job]
    rows += [(base.load(array) or {}, f"{min(found)}-{max(found)}:1") for array, found in waiting.items()]
    if not alive:
        return
    print(
        "job-ID  prior   name       user         state submit/start at     queue                          "
        "slots ja-task-ID "
    )
    print("-" * 117)
    letters = {"Q": "qw", ARRAY: "qw", "H": "hqw", "R": "r", "E": "r"}
    for job, task in rows:
        state = "dr" if job.get("cancel") and job["state"] == "R" else letters[job["state"]]
        at = f"batch@{job['layout'][0][0]}" if job.get("layout") else ""
        slots = sum(want["cpus"] for want in job["want"])
        print(
            f"{job.get('array', job['number']):>7} 0.55500 {job['name'][:10]:<10} {job['owner'][:12]:<12} {state:<5} "
            f"11/26/2026 01:00:00 {at:<30} {slots:>5} {task}"
        )


def qdel(base: Base, args: list[str]) -> None:
    reach(base)
    status = 0
    for word in args:
        number, _, index = word.partition(".")
        whole = base.load(int(number)) if number.isdigit() else None
        job = base.load(number_of_task(int(number), int(index))) if whole is not None and index.isdigit() else whole
        if whole is None or whole["state"] in ENDED:
            print(f'denied: job "{number}" does not exist')
            status = 1
        elif job is None or job["state"] in ENDED:
            print(f'job "{number}" task "{index}" does not exist')
            status = 1
        elif job["owner"] != whoami() and os.getuid() != 0:
            print(f'{whoami()} - you do not have the necessary privileges to delete the job "{word}"')
            status = 1
        else:
            base.cancel(job)
            verb = "has registered the job" if job["state"] == "R" else "has deleted job"
            verb = verb.replace("the job", "the job-array task") if index else verb
            print(f"{whoami()} {verb} {word}" + (" for deletion" if job["state"] == "R" else ""))
    sys.exit(status)


def qconf(base: Base, args: list[str]) -> None:
    if args == ["-spl"]:
        print("\n".join(ENVIRONMENTS))
        return
    sys.stderr.write(f"error: unknown option {args[0] if args else ''}\n")
    sys.exit(1)


def qacct(base: Base, args: list[str]) -> None:
    job = base.load(int(args[1])) if args[:1] == ["-j"] and len(args) > 1 and args[1].isdigit() else None
    if job is None or job["state"] not in ENDED:
        sys.stderr.write(f"error: job id {args[-1]} not found\n")
        sys.exit(1)
    failed = "100 : assumedly after job" if job.get("cancel") else "0    "
    print("=" * 62)
    print(f"qname        batch               \njobname      {job['name']}\njobnumber    {job['number']}")
    print(f"failed       {failed}\nexit_status  {job.get('status') or 0}                   ")
    print(f"ru_wallclock {int(job['ended'] - job.get('started', job['ended']))}s")


def qrsh(base: Base, args: list[str]) -> None:
    """Within a job: a task on one of its nodes, whose streams are ours."""
    words = list(args)
    everything = inherit = False
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-inherit":
            inherit = True
        elif word == "-V":
            everything = True
        else:
            sys.stderr.write(f"qrsh: Unknown option {word}\n")
            sys.exit(1)
    number, index = os.environ.get("JOB_ID", ""), os.environ.get("SGE_TASK_ID", "")
    job = base.load(number_of_task(int(number), int(index)) if index.isdigit() else int(number)) if number else None
    host, command = words[0], " ".join(words[1:])
    nodes = [node for node, _ in job["layout"]] if job else []
    if not inherit or job is None or job["state"] != "R" or host not in nodes or not job["pe"]:
        sys.stderr.write(f"error: executing task of job {number or 0} failed: failed sending task to execd@{host}\n")
        sys.exit(1)
    env = {**(dict(os.environ) if everything else {}), **SgeWords().environment(base, job)}
    if "PE_HOSTFILE" in os.environ:
        env["PE_HOSTFILE"] = os.environ["PE_HOSTFILE"]
    streams = {
        name: str(base.path / "streams" / f"{number}-{os.getpid()}-{time.time_ns()}.{name}") for name in ("i", "o", "e")
    }
    for name, path in streams.items():
        if name == "i":
            os.mkfifo(path)
        else:
            Path(path).touch()
    # one process: the real starter hands signals on, and ends with what it has started
    shell = f"exec <{shlex.quote(streams['i'])}; exec {command}"
    task = base.start_task(
        job, host, ["/bin/sh", "-c", shell], env, job["home"], output=streams["o"], error=streams["e"]
    )
    signal.signal(signal.SIGTERM, lambda signum, frame: tell(task, signum))
    sys.exit(carry(task, streams))


def carry(task: Path, streams: dict[str, str]) -> int:
    """Input there, output here, until it ends."""
    import threading

    def feed() -> None:
        with open(streams["i"], "wb", buffering=0) as pipe:
            while data := os.read(0, 1 << 16):
                try:
                    pipe.write(data)
                except BrokenPipeError:
                    return

    if "i" in streams:
        threading.Thread(target=feed, daemon=True).start()
    with open(streams["o"], "rb") as out, open(streams["e"], "rb") as err:
        while True:
            status = exit_of(task)  # before looking: what it wrote last is there by then
            for file, to in ((out, 1), (err, 2)):
                while data := file.read(1 << 16):
                    os.write(to, data)
            if status is not None:
                for path in streams.values():
                    os.unlink(path)
                return 128 - status if status < 0 else status
            time.sleep(TICK_S / 2)


COMMANDS = {"qsub": qsub, "qstat": qstat, "qdel": qdel, "qconf": qconf, "qrsh": qrsh, "qacct": qacct}
