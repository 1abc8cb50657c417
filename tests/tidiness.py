"""What a test may leave behind: a look before, a look after, and the difference.

Lives here: processes, threads, open files and sockets of this process, temp files, the same on test hosts.
Elsewhere:  when to look (`conftest.py`).

One look takes about 5 ms: most of it goes into reading every process's environment, which finds daemons as well.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.lab import Lab

# Opened once by a library, for the life of the process.
HARMLESS_FILES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/tty", "/proc/")
ROOMS = {(name,) for name in ("grids", "leases", "s", "shm", "code")}


class Process(NamedTuple):
    pid: int
    started: str  # in clock ticks; with it a pid that is used again is another process


class Look(NamedTuple):
    processes: dict[Process, str]
    threads: dict[int, str]
    files: dict[tuple[str, str], str]
    litter: dict[str, str]


class Scene:
    """Made before a test; says afterwards what is there that was not."""

    def __init__(self, labs: Sequence[Lab] = ()) -> None:
        self._labs = labs
        self._marker = f"GRID_TEST_SESSION={os.environ['GRID_TEST_SESSION']}".encode()
        self._namespace = _namespace(os.getpid())
        self._before = self._look()

    def left_behind(self, grace_s: float) -> list[str]:
        """A line for each thing, once `grace_s` has not been enough for it to go away."""
        end = time.monotonic() + grace_s
        left = self._difference()
        if left:
            gc.collect()  # a cycle may hold a socket that nobody can reach any more
        while left and time.monotonic() < end:
            time.sleep(0.02)
            left = self._difference()
        return left

    def clear_up(self) -> None:
        """Kill what the test started, here and on its hosts, so that the next test is judged by its own deeds.

        Nothing else: a grid that several tests share must outlive the one that was untidy.
        """
        for process in self._look().processes.keys() - self._before.processes.keys():
            _kill(process.pid)

    def _difference(self) -> list[str]:
        now = self._look()
        lines = []
        for before, after in zip(self._before, now, strict=True):
            lines += [after[key] for key in after if key not in before]
        return lines

    def _look(self) -> Look:
        processes = self._processes()
        litter = self._litter({process.pid for process in processes})
        for host in (host for lab in self._labs for host in lab.hosts.values() if host.is_on):
            for pid, command in host.processes():
                processes[Process(pid, host.name)] = f"process {pid} on test host {host.name}: {command}"
            for path in host.litter():
                parts = Path(path).parts[2:]  # after /tmp, /dev/shm or the like
                if parts[0].startswith("grid-") and path.startswith("/tmp/") and _is_kept(parts[1:]):
                    continue
                litter[f"{host.name}:{path}"] = f"{path} on test host {host.name}"
        return Look(processes, _threads(), _files(), litter)

    def _processes(self) -> dict[Process, str]:
        """Whatever descends from us or has our mark in its environment."""
        parents: dict[int, int] = {}
        starts: dict[int, str] = {}
        marked: set[int] = set()
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            pid = int(name)
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name stands in brackets and may hold blanks and brackets itself.
                    fields = file.read().rpartition(b")")[2].split()
                if fields[0] in (b"Z", b"X"):
                    if int(fields[1]) != os.getpid():
                        continue  # not ours to reap
                else:
                    with open(f"/proc/{name}/environ", "rb") as file:
                        if self._marker in file.read():
                            marked.add(pid)
            except OSError:
                continue  # ended as we looked, or a user's that we can't read
            parents[pid], starts[pid] = int(fields[1]), fields[19].decode()
        us = os.getpid()
        found = {}
        for pid in parents:
            above = pid
            while above in parents and above != us:
                above = parents[above]
            # What runs inside a test host is that host's matter: its lab is asked, or was left open and shows as such.
            if pid != us and (above == us or pid in marked) and _namespace(pid) == self._namespace:
                found[Process(pid, starts[pid])] = f"process {pid}: {_command(pid)}"
        return found

    def _litter(self, ours: set[int]) -> dict[str, str]:
        runtime, temporary = Path(os.environ["GRID_RUNTIME_DIR"]), Path(os.environ["TMPDIR"])
        found = [str(path) for path in _below(runtime) if not _is_kept(path.relative_to(runtime).parts)]
        for top in temporary.iterdir():
            if not top.name.startswith("pytest-of-"):  # tmp_path's own, which pytest keeps and removes
                found += [str(path) for path in (top, *_below(top))]
        for path in Path("/dev/shm").glob(f"grid-{os.getuid()}*"):
            # Shared memory is the whole machine's: leave out what belongs to a grid that runs outside of these tests.
            owner = next((int(word) for word in path.name.split("-")[2:] if word.isdigit()), 0)
            if owner == os.getpid() or owner in ours or not os.path.exists(f"/proc/{owner}"):
                found.append(str(path))
        return {path: path for path in found}


def _below(directory: Path) -> Iterator[Path]:
    """All in it; unlike `rglob` it does not mind what is removed meanwhile."""
    for place, folders, files in os.walk(directory):
        for name in (*folders, *files):
            yield Path(place, name)


def _is_kept(parts: tuple[str, ...]) -> bool:
    """What grid keeps on purpose in a user's runtime directory: its rooms, which may be empty, and code by its hash."""
    return len(parts) == 0 or parts in ROOMS or parts[0] == "code"


def _threads() -> dict[int, str]:
    return {id(thread): f"thread {thread.name}" for thread in threading.enumerate()}


def _files() -> dict[tuple[str, str], str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the one that listed the directory
        if not target.startswith(HARMLESS_FILES):
            found[fd, target] = f"open file {fd}: {target}"
    return found


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(ended)"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass  # ended meanwhile
    try:
        os.waitpid(pid, 0)  # returns soon: nothing survives SIGKILL
    except OSError:
        pass  # not a child of ours
