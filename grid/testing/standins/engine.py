"""A batch system to be spoken to by any system's commands: queue, nodes, tasks, signals, copies of output.

    base/config.json         which system, its nodes and slots, how it is set up
    base/jobs/ID.json        a job; ID.script its script, ID.OU and ID.ER its output before it is copied. Of an
                             array each task is one as well, with a number that nobody sees
    base/tasks/NODE/         what a node is to start: N.json, and how that ended: N.exit; N.signal ends it
    base/mode                `up`, `down` or `hung`: how the server answers

`serve` is the server with its scheduler: one process. `mom` is one process on each node, and starts tasks there as the
job's owner. All speak by files below `base`, which all see; whoever changes one holds its lock. On one machine, and as
one user, that needs nothing at all; in a lab each node is a host of its own.

Lives here: all that the systems share. Elsewhere: their commands (`pbs_commands.py`, `sge_commands.py`,
`slurm_commands.py`), starting it (`__init__.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TICK_S = 0.02
Job = dict[str, Any]


class Base:
    """The directory that all parts of one stand-in share."""

    def __init__(self, path: str | None = None) -> None:
        self.path = Path(path or os.environ["GRID_STANDIN"])
        self.config: dict[str, Any] = json.loads((self.path / "config.json").read_text())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with open(self.path / "lock", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def mode(self) -> str:
        return (self.path / "mode").read_text().strip()

    def jobs(self) -> list[Job]:
        numbers = sorted(int(path.stem) for path in (self.path / "jobs").glob("*.json"))
        return [job for number in numbers if (job := self.load(number)) is not None]

    def load(self, number: int) -> Job | None:
        try:
            job: Job = json.loads((self.path / "jobs" / f"{number}.json").read_text())
        except (OSError, ValueError):
            return None
        return job

    def save(self, job: Job) -> None:
        write(self.path / "jobs" / f"{job['number']}.json", json.dumps(job))

    def file(self, number: int, end: str) -> Path:
        return self.path / "jobs" / f"{number}.{end}"

    def submit(self, job: Job, script: str) -> int:
        """Put a job into the queue."""
        with self.locked():
            number = int((self.path / "number").read_text())
            write(self.path / "number", str(number + 1))
            write(self.file(number, "script"), script)
            made = {"owner": whoami(), "home": os.environ["HOME"], "submitted": time.time(), "runs": 0}
            whole: Job = {"state": "Q", "number": number, "host": os.uname().nodename, **made, **job}
            indices, mark = whole.pop("indices", None), whole.pop("mark", ".")
            tasks = [
                {**whole, "number": number_of_task(number, index), "array": number, "index": index}
                for index in indices or ()
            ]
            for each in [whole, *tasks]:
                name = f"{number}{mark}{each['index']}" if "index" in each else str(number)
                for stream in ("output", "error"):
                    each[stream] = str(each.get(stream, "")).replace("%d", name)
                if "streams" in each:
                    each["streams"] = {key: path.replace("%d", name) for key, path in each["streams"].items()}
                if each is not whole:
                    write(self.file(each["number"], "script"), script)
                    self.save(each)
            self.save({**whole, "state": ARRAY, "tasks": list(indices)} if indices else whole)
        return number

    def tasks(self, job: Job) -> list[Job]:
        """Those of an array; a job that is none has none."""
        numbers = (number_of_task(job["number"], index) for index in job.get("tasks", ()))
        return [task for number in numbers if (task := self.load(number)) is not None]

    def cancel(self, job: Job, *, by: str = "deleted") -> None:
        with self.locked():
            for each in [job, *self.tasks(job)]:
                found = self.load(each["number"])
                if found is not None and found["state"] not in ENDED:
                    found["cancel"] = found.get("cancel") or by
                    self.save(found)

    def start_task(self, job: Job, node: str, argv: list[str], env: dict[str, str], cwd: str, **kw: Any) -> Path:
        """Have a node start a program of a job; the file that tells of it."""
        place = self.path / "tasks" / node
        name = f"{job['number']}-{time.time_ns()}-{os.getpid()}"
        task = {"job": job["number"], "owner": job["owner"], "argv": argv, "env": env, "cwd": cwd, **kw}
        write(place / f"{name}.json", json.dumps(task))
        return place / f"{name}.json"


ENDED = ("C", "F")
ARRAY = "B"
"""State of an array until all its tasks have ended."""


def number_of_task(array: int, index: int) -> int:
    """Of a task as a job: far beyond those of other jobs."""
    return (array << 24) + index


def whoami() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER", str(os.getuid()))


def write(path: Path, text: str) -> None:
    """Whole or not at all, and for everybody: server, nodes and users have different accounts."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    with contextlib.suppress(OSError):
        new.chmod(0o666)
    os.replace(new, path)


def exit_of(task: Path) -> int | None:
    try:
        return int(task.with_suffix(".exit").read_text())
    except (OSError, ValueError):
        return None


def tell(task: Path, number: int) -> None:
    write(task.with_suffix(f".signal{number}"), "")


# -- the server --------------------------------------------------------------------------------------------------------


class StandinServer:
    """Gives nodes to jobs, starts their scripts, ends them, copies what they printed."""

    def __init__(self, base: Base, jobs: Any) -> None:
        self.base, self.words = base, jobs
        self.nodes: dict[str, int] = base.config["nodes"]

    def run(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:  # whoever started it has ended: so does it
            if self.base.mode() == "up":
                with self.base.locked():
                    for job in self.base.jobs():
                        if job["state"] not in ENDED:
                            self._drive(job)
            time.sleep(TICK_S)

    def _drive(self, job: Job) -> None:
        if job["state"] in ("Q", "H"):
            self._wait(job)
        elif job["state"] == "R":
            self._watch(job)
        elif job["state"] == "E" and time.time() >= job["copied_at"]:
            self._end(job)
        elif job["state"] == ARRAY and all(task["state"] in ENDED for task in self.base.tasks(job)):
            statuses = [task.get("status") for task in self.base.tasks(job)]
            job.update(state=self.words.ended_letter, ended=time.time(), status=int(any(statuses)))
            self.base.save(job)
            if not self.base.config.get("history", True):
                for each in [*self.base.tasks(job), job]:
                    self.base.file(each["number"], "json").unlink(missing_ok=True)

    def _wait(self, job: Job) -> None:
        if job.get("cancel"):
            job.update(state=self.words.ended_letter, status=None, deleted=True)
            self._end(job)
            return
        for kind, other in job.get("depend", []):
            before = self.base.load(other)
            if before is None or before["state"] not in ENDED:
                if before is not None:
                    return
            elif kind == "afterok" and before.get("status") != 0:
                job.update(status=None, failed_parent=other)
                self._end(job)
                return
        if job["state"] == "H" and job.get("user_hold"):
            return
        layout = self._find_nodes(job)
        if layout is not None:
            self._start(job, layout)

    def _find_nodes(self, job: Job) -> list[tuple[str, int]] | None:
        """(node, slots) for each node of the job, if it can begin now."""
        busy: dict[str, int] = dict.fromkeys(self.nodes, 0)
        for other in self.base.jobs():
            if other["state"] in ("R", "E"):
                for node, slots in other["layout"]:
                    busy[node] += slots
        dead = set(self.base.config.get("dead", ()))
        free = {node: total - busy[node] for node, total in self.nodes.items() if node not in dead}
        found: list[tuple[str, int]] = []
        for want in job["want"]:
            taken = {node for node, _ in found} if job.get("scatter", True) else set()
            able = [
                node
                for node, slots in free.items()
                if node not in taken and slots >= want["cpus"] and want.get("host") in (None, node)
            ]
            if not able:
                return None
            node = (
                able[0]
                if job.get("scatter", True) or not found
                else (found[-1][0] if found[-1][0] in able else able[0])
            )
            found.append((node, want["cpus"]))
            free[node] -= want["cpus"]
        return found

    def _start(self, job: Job, layout: list[tuple[str, int]]) -> None:
        job.update(state="R", layout=layout, started=time.time(), runs=job["runs"] + 1)
        env, argv, cwd = self.words.begin(self.base, job)
        streams = {
            "output": str(self.base.file(job["number"], "OU")),
            "error": str(self.base.file(job["number"], "ER")),
        }
        if job.get("join"):
            streams["error"] = streams["output"]
        streams |= job.get("streams", {})
        task = self.base.start_task(job, layout[0][0], argv, env, cwd, **streams, script=True)
        job["task"] = str(task)
        self.base.save(job)

    def _watch(self, job: Job) -> None:
        now = time.time()
        task = Path(job["task"])
        status = exit_of(task)
        if status is not None:
            self._script_ended(job, status)
            return
        if now - job["started"] > job["walltime"] + self.base.config.get("walltime_late_s", 0.0):
            job.setdefault("cancel", "walltime")
        if job.get("cancel"):
            if "told" not in job:
                job["told"] = now
                if job["cancel"] == "walltime" and self.words.walltime_text:
                    with open(self.base.file(job["number"], "ER"), "a") as file:
                        file.write(self.words.walltime_text % (int(now - job["started"]), int(job["walltime"])))
                self._signal_all(job, self.words.warning(job))
                self.base.save(job)
            elif "killed" not in job and now - job["told"] > self.base.config.get("kill_delay_s", 2.0):
                job["killed"] = now
                self._signal_all(job, signal.SIGKILL)
                self.base.save(job)

    def _tasks(self, job: Job) -> list[Path]:
        found = (self.base.path / "tasks").glob(f"*/{job['number']}-*.json")
        return [task for task in found if exit_of(task) is None]

    def _signal_all(self, job: Job, number: int) -> None:
        for task in self._tasks(job):
            tell(task, number)

    def _script_ended(self, job: Job, status: int) -> None:
        job["status"] = self.words.status_of(job, status)
        for task in self._tasks(job):
            tell(task, signal.SIGKILL)  # what its script has left behind
        job["state"] = "E"
        job["copied_at"] = time.time() + self.base.config.get("copy_late_s", 0.2)
        if not self.words.can_copy(job):
            job["copied_at"] = time.time() + self.base.config.get("copy_retry_s", 30.0)
        if not self.base.config.get("exiting", True):
            self._end(job)
            return
        self.base.save(job)

    def _end(self, job: Job) -> None:
        number = job["number"]
        job["output_lost"] = not self.words.can_copy(job)
        if job.get("streams") is None and job.get("started"):
            for source, target in self.words.copies(job):
                self._copy(job, self.base.file(number, source), target)
        if job.get("started"):
            for node, _ in job["layout"]:
                write(self.base.path / "tasks" / node / f"{number}.over", "")
        job.update(state=self.words.ended_letter, ended=time.time())
        self.base.save(job)
        if not self.base.config.get("history", True) and "array" not in job:
            self.base.file(number, "json").unlink(missing_ok=True)

    def _copy(self, job: Job, source: Path, target: str) -> None:
        if not source.exists() or target == "/dev/null":
            return
        try:
            if os.path.isdir(target):
                target = os.path.join(target, f"{job['name']}.o{job['number']}")
            shutil.copyfile(source, target)
            os.chmod(target, 0o600)
            if os.getuid() == 0:
                owner = pwd.getpwnam(job["owner"])
                os.chown(target, owner.pw_uid, owner.pw_gid)
        except OSError:
            kept = self.base.path / "undelivered"
            kept.mkdir(exist_ok=True)
            shutil.copyfile(source, kept / source.name)
            job["output_lost"] = True


# -- a node ------------------------------------------------------------------------------------------------------------


class Mom:
    """What runs on one node: starts tasks, tells how they ended, hands signals on to their sessions."""

    def __init__(self, base: Base, node: str) -> None:
        self.base, self.node = base, node
        self.place = base.path / "tasks" / node
        self.running: dict[Path, subprocess.Popen[bytes]] = {}
        self.seen: set[str] = set()

    def run(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:  # whoever started it has ended: so does it
            names = set(os.listdir(self.place))
            for name in sorted(names - self.seen):
                if name.startswith("."):
                    continue
                path = self.place / name
                if name.endswith(".json"):
                    self.seen.add(name)
                    self._begin(path)
                elif ".signal" in name:
                    self.seen.add(name)
                    self._signal(path)
                elif name.endswith(".over"):
                    self.seen.add(name)
                    if self.base.config.get("freezer"):
                        self._kill_marked(int(path.stem))
                    shutil.rmtree(self._scratch(int(path.stem)), ignore_errors=True)
            for path, child in list(self.running.items()):
                status = child.poll()
                if status is not None:
                    del self.running[path]
                    write(path.with_suffix(".exit"), str(status))
            time.sleep(TICK_S)

    def _scratch(self, number: int) -> str:
        return os.path.join(self.base.config.get("scratch", str(self.base.path / "scratch")), f"{self.node}.{number}")

    def _begin(self, path: Path) -> None:
        task = json.loads(path.read_text())
        env = dict(task["env"])
        env[MARK] = self._mark(task["job"])
        if "TMPDIR" not in env:
            scratch = self._scratch(task["job"])
            os.makedirs(scratch, mode=0o700, exist_ok=True)
            env["TMPDIR"] = scratch
        user: dict[str, Any] = {}
        if os.getuid() == 0 and task["owner"] != "root":
            owner = pwd.getpwnam(task["owner"])
            user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            if "TMPDIR" not in task["env"]:
                os.chown(env["TMPDIR"], owner.pw_uid, owner.pw_gid)
        with contextlib.ExitStack() as opened:
            try:
                output, error = (self._open(opened, task.get(which), user) for which in ("output", "error"))
                child = subprocess.Popen(
                    task["argv"],
                    env=env,
                    cwd=task["cwd"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=error if error is not None else subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                    **user,
                )
            except OSError as exc:
                if task.get("output"):
                    with contextlib.suppress(OSError), open(task["output"], "a") as file:
                        file.write(f"{exc.strerror}\n")
                write(path.with_suffix(".exit"), "254" if not task.get("script") else "-53")
                return
        write(path.with_suffix(".pid"), str(child.pid))
        self.running[path] = child

    def _mark(self, number: int) -> str:
        return f"{number}@{self.node}:{self.base.path}"  # other stand-ins have nodes and jobs of the same names

    def _kill_marked(self, number: int) -> None:
        wanted = f"{MARK}={self._mark(number)}".encode()
        for pid, *_ in _processes():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    os.kill(pid, signal.SIGKILL)

    def _open(self, opened: contextlib.ExitStack, path: str | None, user: dict[str, Any]) -> Any:
        if path is None:
            return None
        made = not os.path.exists(path)
        file = open(path, "ab")  # noqa: SIM115  # closed by the stack
        opened.callback(file.close)
        if made and user:
            os.chown(path, user["user"], user["group"])
        return file

    def _signal(self, path: Path) -> None:
        number = int(path.suffix.removeprefix(".signal"))
        child = self.running.get(path.with_suffix(".json"))
        if child is None:
            return
        if self.base.config.get("freezer"):  # a control group: SIGTERM to the task alone, SIGKILL to all that is in it
            if number == signal.SIGKILL:
                self._kill_marked(int(path.name.partition("-")[0]))
                return
            targets = [child.pid]
            if number == signal.SIGUSR2:  # Grid Engine's warning comes to all of a group
                targets = [found for found, _, _, group in _processes() if group == child.pid]
        else:
            targets = session_of(child.pid)
        for pid in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


MARK = "GRID_STANDIN_PLACE"
"""Variable of all processes of a job on a node: it stands in for a control group, from which nothing escapes."""


def session_of(pid: int) -> list[int]:
    """Processes of a task's session: what made a session of its own is not found, as with the real moms."""
    return [found for found, _, session, _ in _processes() if session == pid]


def family_of(pid: int) -> list[int]:
    """A task with all that descends from it."""
    found = {pid}
    rows = _processes()
    while more := {child for child, parent, session, _ in rows if parent in found or session == pid} - found:
        found |= more
    return sorted(found)


def _processes() -> list[tuple[int, int, int, int]]:
    """(pid, parent, session, group) of all."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found.append((int(name), int(fields[1]), int(fields[3]), int(fields[2])))
    return found


def main() -> None:
    """`server` or `mom NODE`, until somebody ends it."""
    os.umask(0)
    base = Base()
    if sys.argv[1] == "mom":
        Mom(base, sys.argv[2]).run()
    from grid.testing.standins import commands_of

    StandinServer(base, commands_of(base.config["system"])).run()
