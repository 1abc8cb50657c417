"""Things that grids hold, and that crashed ones left, on this machine: finding them, and removing them.

    look(temp_paths)  -> facts            changes nothing
    clear(chosen)     -> what was done    checks everything anew: between look and clearing, time has passed

Values in and out are JSON, because both run at the far end of an ssh connection as well (`care/remains.py`), with the
host's own Python and nothing of ours installed.

What is left over is told apart from what lives by these, in this order: a lease whose agent runs and keeps it renewed
protects all that it lists; a lease whose agent is gone, or that ran out, gives up all that it lists; of the rest, what
has the form of our names, is ours, is in no process's use, and is not new, was left behind. Whatever a process keeps
locked (`held`) lives: process ids of another pid namespace say nothing here, and another runtime directory has leases
of its own.

Lives here: reading leases, registrations, directories, processes; removing what was chosen.
Elsewhere:  the choice (`care/remains.py`), leases themselves (`lease`), what a server is told of itself (`serve`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grid.kernel import held, made
from grid.kernel.lease import lease_dir, read_leases, start_ticks
from grid.wire.places import runtime_dir

_IN_USE_S = 7200.0
"""A kernel that runs in an environment of packages touches it each hour."""
END_S = 5.0
"""After SIGKILL a process ends at once, unless it hangs in a dead file system."""

_UNIQUE = r"(?P<grid>\d+-[0-9a-f]{8})-\w+"
_FORMS = (
    (re.compile(rf"run-{_UNIQUE}\Z"), "run"),
    (re.compile(r"code-\w+\Z"), "code"),
    (re.compile(r"ssh-(?P<pid>\d+)-\w+\Z"), "ssh"),
    (re.compile(r"fwd-(?P<pid>\d+)-\w+\.sock\Z"), "ssh"),
)
_SOCKETS = re.compile(rf"{_UNIQUE}\Z")
_MEMORY = re.compile(rf"(?:grid-(?P<uid>\d+)-)?{_UNIQUE}\Z")
_PACKAGES = re.compile(r"[0-9a-f]{16}\Z")
_SPOOL = re.compile(r"(?P<host>.+)-(?P<pid>\d{1,9})-(?P<ticks>\d{1,18})\Z")
_REGISTERED = re.compile(r"(?P<grid>(?P<pid>\d+)-[0-9a-f]{8})\.(?:json|sock|logs)\Z")


def look(temp_paths: Iterable[str] = ()) -> dict[str, Any]:
    """The files and processes here.

    Args:
        temp_paths: Where else than in the runtime directory this user's runs have their directories.
    Returns:
        `machine`  tells whether two looks were at the same one
        `now`      its clock
        `clients`  ids of the grids whose client runs here
        `leases`   as `read_leases` gives them, each with `state`: alive, expired (its agent runs), dead; and with
                   `processes`: (pid, start, name) of what still runs of it
        `loose`    what no lease lists: `path`, `kind`, `grid` or None, `age_s`, `in_use`, `elsewhere` (another host's)
    """
    base = runtime_dir()
    running = list(_our_processes())
    leases = read_leases()
    for lease in leases:
        alive = lease["agent"] in lease["alive"] and not _is_zombie(lease["agent"])
        if not lease["native"]:  # its pids mean nothing here: what can't be proved dead lives
            alive = lease["held"] is not False
        lease["state"] = "dead" if not alive else "expired" if lease["expired"] else "alive"
        lease["processes"] = _processes_of(lease, running) if lease["native"] else []
    clients, dead = registrations(base / "grids")
    listed = {path for lease in leases for path in lease.get("directories", ())}
    # Leases of other machines here mean that the directory is shared with them, and so may be what no lease lists.
    shared = _foreign_leases()
    loose: list[dict[str, Any]] = [
        {"path": path, "kind": "grid", "grid": name, "age_s": None, "elsewhere": False} for path, name in dead
    ]
    loose += _loose(base, shared)
    for sockets in _entries(base / "s"):
        loose += _one(sockets, _SOCKETS.match(sockets.name), "sockets", shared)
    for place in (base / "shm", Path("/dev/shm")):
        for blobs in _entries(place):
            match = _MEMORY.match(blobs.name)
            mine = match is not None and (match["uid"] == str(os.getuid()) or place != Path("/dev/shm"))
            loose += _one(blobs, match if mine else None, "memory", False)
    for path in {os.path.abspath(os.path.expanduser(path)) for path in temp_paths} - {str(base)}:
        loose += _loose(Path(path), True)
    loose += _of_jobs(Path.home() / ".grid")
    for one in loose:
        locked = one["kind"] != "grid" and bool(held.is_held(Path(one["path"])))
        one["in_use"] = locked or any(one["path"] in words for _, _, _, words in running)
    return {
        "machine": f"{os.uname().nodename} {_first_line('/proc/sys/kernel/random/boot_id')} {_pid_namespace()} {base}",
        "host": os.uname().nodename,
        "now": time.time(),
        "clients": clients,
        "leases": leases,
        "loose": sorted((one for one in loose if one["path"] not in listed), key=lambda one: one["path"]),
    }


def _of_jobs(home: Path) -> Iterator[dict[str, Any]]:
    """Files of kernels in batch jobs: of a client of this machine that is dead, of a pilot that has ended."""
    for path in _entries(Path(os.environ.get("GRID_SPOOL") or home / "spool")):
        match = _SPOOL.match(path.name)
        if match and match["host"] == os.uname().nodename and start_ticks(int(match["pid"])) != int(match["ticks"]):
            yield {"path": str(path), "kind": "spool", "grid": None, "age_s": None, "elsewhere": False}
    for path in _entries(home / "env"):  # see `environments`, which knows what wheels go with them
        try:
            age_s = time.time() - (path / ".used").stat().st_mtime
        except OSError:
            continue
        yield {"path": str(path), "kind": "packages", "grid": None, "age_s": age_s, "elsewhere": False}
    for path in _entries(home / "pilots"):
        try:
            age_s = time.time() - (path / "ended").stat().st_mtime
        except OSError:
            continue  # it may be waiting in a queue
        yield {"path": str(path), "kind": "pilot", "grid": None, "age_s": age_s, "elsewhere": False}


def clear(chosen: dict[str, Any]) -> dict[str, Any]:
    """Remove what was chosen of a look: `leases` (their paths) with all that they hold, `paths`, and no more.

    Returns:
        `killed`: (pid, name); `removed`: paths; `kept`: (path, why)
    """
    killed: list[tuple[int, str]] = []
    removed: list[str] = []
    kept: list[tuple[str, str]] = []
    facts = look()
    by_path = {lease["path"]: lease for lease in facts["leases"]}
    spared = set(chosen.get("spare", ()))
    for lease in facts["leases"]:
        if lease["state"] == "alive":
            spared.update(lease.get("directories", ()))
    for path in chosen["leases"]:
        lease = by_path.get(path)
        if lease is None:
            continue  # it ended by itself meanwhile
        if lease["state"] == "alive":
            kept.append((path, "its agent came back to life"))
            continue
        for pid, started, name in lease["processes"]:
            if _end(pid, started):
                killed.append((pid, name))
            else:
                kept.append((path, f"process {pid} ({name}) does not end"))
        for directory in lease.get("directories", ()):
            if directory in spared:
                kept.append((directory, "others may use it"))
            else:
                _remove(Path(directory), removed, kept)
        _remove(Path(path), removed, kept)
    for path in chosen["paths"]:
        if Path(path).parent == Path.home() / ".grid" / "env":
            _remove_packages(Path(path), removed, kept)
            continue
        for pid, started, name, words in _our_processes():
            # A master whose client has ended.
            if path in words and name.startswith("ssh") and _end(pid, started):
                killed.append((pid, name))
        if path not in spared:
            _remove(Path(path), removed, kept)
    return {"killed": killed, "removed": removed, "kept": kept}


# ---- processes ---------------------------------------------------------------------------------------------


def _our_processes() -> Iterator[tuple[int, int, str, str]]:
    """(pid, start, name, words that name its directories) of this user's processes, this one left out."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return  # no /proc here: what the leases say must do
    for pid in pids:
        try:
            if pid == os.getpid() or os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it ended, or does not show itself
        ours = [line for line in environment if line.startswith(("GRID_ROOT=", "GRID_SERVER="))]
        server = next((line.partition("=")[2] for line in ours if line.startswith("GRID_SERVER=")), "")
        name = server or os.path.basename(command.split(" ")[0])
        if ours or name.startswith("ssh"):
            started = start_ticks(pid)
            if started is not None:
                yield pid, started, name, " ".join([*ours, command])


def _processes_of(lease: dict[str, Any], running: list[tuple[int, int, str, str]]) -> list[tuple[int, int, str]]:
    """The agent first, so that it does not report or replace servers that end; then whatever bears the run's marks."""
    found = {}
    held = {"agent": (lease["agent"], lease["agent_started"])}
    if "zygote" in lease:
        held["zygote"] = tuple(lease["zygote"])
    held.update({name: tuple(process) for name, process in lease["servers"].items()})
    for name, (pid, started) in held.items():
        if pid in lease["alive"]:
            found[pid] = (pid, started, name)
    places = [lease.get("run", ""), *lease.get("directories", ())]
    for pid, started, name, words in running:
        ours = any(place and place in words for place in places)
        if ours and (name in lease["servers"] or lease.get("run", "\0") in words):
            found.setdefault(pid, (pid, started, name))
    return list(found.values())


def _end(pid: int, started: int) -> bool:
    """Kill one process, if its id still means the same one; says whether it has ended."""
    if start_ticks(pid) != started or _is_zombie(pid):
        return True
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    deadline = time.monotonic() + END_S
    while start_ticks(pid) == started and not _is_zombie(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def is_alive(record: dict[str, Any], path: Path) -> bool:
    """Whether the client that registered in the file `path` lives; True if nobody can know here."""
    if record.get("namespace", held.namespace()) != held.namespace():
        return held.is_held(path) is not False
    return bool(start_ticks(record["pid"]) == record["started"])


def answers(path: Path) -> bool:
    """Whether somebody listens at a UNIX socket; in another pid namespace, perhaps."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(0.5)
            line.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError:
        return True
    return True


# ---- directories -------------------------------------------------------------------------------------------


def registrations(place: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Grids whose client runs here, and (path, grid) of what those left that do not."""
    files = [(path, match) for path in _entries(place) if (match := _REGISTERED.match(path.name))]
    alive = set()
    for path, match in files:
        if path.suffix != ".json":
            continue
        try:
            record = json.loads(path.read_text())
            if is_alive(record, path):
                alive.add(match["grid"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # half written: its process decides, below
    named = {match["grid"] for path, match in files if path.suffix == ".json"}
    # One that has no record yet, or just lost it, is judged by the process id in its name, and by whether it answers.
    alive |= {
        match["grid"]
        for path, match in files
        if match["grid"] not in named and (start_ticks(int(match["pid"])) or answers(path))
    }
    dead = [(str(path), match["grid"]) for path, match in files if match["grid"] not in alive]
    return sorted(alive), dead


def _loose(place: Path, shared: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in _entries(place):
        for form, kind in _FORMS:
            match = form.match(path.name)
            if match is not None and kind == "ssh":
                if start_ticks(int(match["pid"])) is None and not answers(path / "m" if path.is_dir() else path):
                    found += _one(path, match, kind, False, age=False)
            elif match is not None:
                found += _one(path, match, kind, shared)
    return found


def _one(path: Path, match: re.Match[str] | None, kind: str, shared: bool, *, age: bool = True) -> list[dict[str, Any]]:
    if match is None:
        return []
    try:
        info = path.lstat()
    except OSError:
        return []
    if info.st_uid != os.getuid() or stat.S_ISLNK(info.st_mode):
        return []
    grid = match.groupdict().get("grid")
    elsewhere = shared and _first_line(str(path / "host")) != os.uname().nodename
    old = max(0.0, time.time() - info.st_mtime) if age else None
    return [{"path": str(path), "kind": kind, "grid": grid, "age_s": old, "elsewhere": elsewhere}]


def _foreign_leases() -> bool:
    for path in _entries(lease_dir()):
        try:
            if path.suffix == ".json" and json.loads(path.read_text())["host"] != os.uname().nodename:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            pass  # half written
    return False


def _remove_packages(path: Path, removed: list[str], kept: list[tuple[str, str]]) -> None:
    """An environment: moved aside first, because half of it must not count."""
    if not _PACKAGES.match(path.name):
        kept.append((str(path), "this is no name that grid gives"))
        return
    aside = path.with_name(f".going-{path.name}-{os.getpid()}")
    try:
        if time.time() - (path / ".used").stat().st_mtime < _IN_USE_S:
            kept.append((str(path), "it came into use meanwhile"))
            return
        os.rename(path, aside)
    except FileNotFoundError:
        return  # another host that shares the home directory was first
    except OSError as exc:
        kept.append((str(path), str(exc.strerror)))
        return
    shutil.rmtree(aside, ignore_errors=True)
    removed.append(str(path))


def _remove(path: Path, removed: list[str], kept: list[tuple[str, str]]) -> None:
    """A directory, file or socket of ours, and never what only a damaged record takes for that."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    except OSError as exc:
        kept.append((str(path), str(exc.strerror)))
        return
    if path.suffix not in (".json", ".sock", ".logs") and held.is_held(path):
        kept.append((str(path), "somebody lives there"))
        return
    in_a_room = path.parent.name in ("s", "shm", "grids", "leases") and path.parent.parent == runtime_dir()
    if not (in_a_room or any(form.match(path.name) for form, _ in _FORMS) or _MEMORY.match(path.name)):
        kept.append((str(path), "this is no name that grid gives"))
        return
    if info.st_uid != os.getuid() or stat.S_ISLNK(info.st_mode):
        kept.append((str(path), "it is not ours"))
        return
    try:
        if stat.S_ISDIR(info.st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass  # something ended by itself and took it along
    except OSError as exc:
        kept.append((str(path), f"{exc.strerror}: {exc.filename}"))
        return
    removed.append(str(path))
    made.leave(path.parent)


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _first_line(path: str) -> str:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
