"""One look at a host from inside: a shell script and a Python program, sent and answered in one round trip.

Lives here: what is asked, and the answer as plain values.
Elsewhere:  what the answers mean for a user (`doctor.py`), what is done about them (`environment.py`).

The answers are lines that start with a mark: whatever else a login shell prints is told apart from them. The Python
program runs on any Python since 2.7, because the first thing to find out is whether it is too old.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shlex
import socket
import sys
import time
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from grid.errors import ConnectError
from grid.hosts import Host
from grid.launch.command import python_of, variables, with_variables
from grid.launch.connection import Connection, RemoteProcess
from grid.launch.shell import LOGIN_PATH, find_python_script, safe_program

MARK = "grid-probe "
SLOTS = ("needs", "resources", "cores", "devices", "places", "groups", "find")
"""Modules of `grid/slots` that go along."""
PYTHONS = tuple(f"python3.{minor}" for minor in range(6, 20))

_LIST_PYTHONS = (
    f"printf '{MARK}shell %s\\n' \"${{SHELL:-unknown}}\"; "
    f'for p in "$HOME"/.grid/env/py3*/bin/python {" ".join(PYTHONS)} python3 python '
    '"$HOME"/.pyenv/versions/*/bin/python; do '
    'p=$(command -v "$p" 2>/dev/null) && [ -x "$p" ] || continue; '
    'v=$("$p" -c \'import sys; print("%d.%d.%d" % sys.version_info[:3])\' 2>/dev/null) || continue; '
    f'printf \'{MARK}python %s %s\\n\' "$v" "$p"; done; '
)

_PROGRAM = r"""
import json, os, platform, shutil, socket, subprocess, sys, tempfile, time
MARK, TEMP_PATH = sys.argv[1], sys.argv[2]

def say(**facts):
    sys.stdout.write(MARK + json.dumps(facts) + "\n")
    sys.stdout.flush()

def module(name):
    try:
        found = __import__(name)
        return {"version": str(getattr(found, "__version__", "?"))}
    except BaseException as exc:
        return {"error": "%s: %s" % (type(exc).__name__, exc)}

def has(name):
    try:
        __import__(name)
        return True
    except Exception:
        return False

def temp():
    path = os.path.expanduser(TEMP_PATH) if TEMP_PATH else tempfile.gettempdir()
    facts = {"path": path, "exists": os.path.isdir(path)}
    place = os.path.abspath(path)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    try:
        disk = os.statvfs(place)
        facts["free_bytes"] = disk.f_bavail * disk.f_frsize
        facts["free_inodes"] = disk.f_favail if disk.f_files else None
        handle, name = tempfile.mkstemp(prefix=".grid-probe-", dir=place)
        try:
            os.write(handle, b"x" * 4096)
        finally:
            os.close(handle)
            os.unlink(name)
    except (OSError, IOError) as exc:
        facts["error"] = exc.strerror or str(exc)
    return facts

def memory():
    facts = {}
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                name, value = line.split(":", 1)
                if name in ("MemTotal", "MemAvailable"):
                    facts[name] = int(value.split()[0]) * 1024
    except (OSError, IOError):
        pass
    return facts

def cores():
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        import multiprocessing
        return multiprocessing.cpu_count()

def first_line(*command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=5)
    except Exception:
        return ""
    text = done.stdout.decode("utf-8", "replace").strip()
    return text[:300]

def batch():
    names = ("qsub", "qstat", "qdel", "pbsdsh", "pbsnodes", "qrsh", "qconf", "sbatch", "srun")
    path = os.environ.get("GRID_LOGIN_PATH") or os.environ.get("PATH", "")
    os.environ["PATH"] = path  # as a log-in shell has it: batch systems come by /etc/profile.d
    found = dict((name, shutil.which(name)) for name in names if shutil.which(name))
    said = {}
    if "sbatch" in found:
        said["sbatch --version"] = first_line("sbatch", "--version")
    elif "qsub" in found:
        said["qsub --version"] = first_line("qsub", "--version")
        if "qconf" in found:
            said["qsub -help"] = first_line("qsub", "-help")
    return {"found": found, "said": said}

def slots(bundle):
    # what servers with needs would find, by grid's own modules, which come along as text
    try:
        import base64, types, zlib
        texts = json.loads(zlib.decompress(base64.b64decode(bundle)).decode("utf-8"))
        for name, text in texts:
            made = sys.modules[name] = types.ModuleType(name)
            made.__path__ = []
            exec(compile(text, name, "exec"), made.__dict__)
        from grid.kernel import devices
        from grid.slots.find import find
        from grid.slots.places import host_root, locks_dir
        found = find(host_root())
        used = dict((each.id, devices.holder(locks_dir(), each)) for each in found.devices)
        from grid.slots.groups import find_place
        return dict(found.plain(), used=used, limits=find_place(host_root())[1])
    except Exception as exc:
        return {"error": "%s: %s" % (type(exc).__name__, exc)}

facts = {"version": list(sys.version_info[:3]), "executable": sys.executable, "prefix": sys.prefix}
if sys.version_info < (3, 6):
    say(**facts)
    sys.exit(0)
bundle = sys.stdin.readline()  # not an argument: csh has a limit of 1 kB for words
import sysconfig
def listening():
    try:
        made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::", 0))
    except (OSError, AttributeError):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.bind(("", 0))
    made.listen(4)
    return made
def greet():
    while True:
        try:
            near, _ = listener.accept()
            near.sendall(b"x")
            near.close()
        except OSError:
            return
import threading
listener = listening()
greeter = threading.Thread(target=greet)
greeter.daemon = True
greeter.start()
try:
    import pwd
    user = pwd.getpwuid(os.getuid()).pw_name
except Exception:
    user = str(os.getuid())
say(cache_tag=sys.implementation.cache_tag, platform=sysconfig.get_platform(), libc=list(platform.libc_ver()),
    modules={"zmq": module("zmq"), "dill": module("dill")}, has=dict((n, has(n)) for n in ("venv", "ensurepip", "pip")),
    slots=slots(bundle) if sys.version_info >= (3, 10) else None,
    temp=temp(), memory=memory(), cores=cores(), load=os.getloadavg()[0], batch=batch(), user=user,
    hostname=socket.gethostname(), port=listener.getsockname()[1], home=os.path.expanduser("~"), **facts)
while True:
    if not sys.stdin.readline():
        break
    say(time=time.time())
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that was found on the host."""

    version: tuple[int, int, int]
    path: str


@dataclass
class Facts:
    """Facts that a host reported. `python` is None if no interpreter was found or it did not run."""

    shell: str = ""
    began: bool = True  # our command came to run
    tunnel: bool | None = None  # whether a connection through ssh to a port there came about; None: not tried
    noise: str = ""  # what else came on standard output before our answers
    pythons: list[Interpreter] = field(default_factory=list)
    python: dict[str, Any] | None = None  # what the chosen one said: see the end of the program
    complaint: str = ""  # the end of standard error
    skew_s: float | None = None  # the host's clock less ours
    round_trip_s: float | None = None
    direct: bool | None = None  # whether a TCP connection to a port there came about; None: not tried
    address: str | None = None


def examine(connection: Connection, timeout: float | None = None) -> Facts:
    """Look at the host from inside.

    Raises:
        ConnectError: The connection broke, or there was no answer in time.
    """
    host = connection.host
    deadline = time.monotonic() + (timeout or connection.limits.command_s)
    facts = Facts()
    with connection.start(probe_script(host, sys.version_info.minor)) as process:
        with contextlib.suppress(BrokenPipeError, TimeoutError):  # what became of it is read below
            process.write(variables(host.env) + _bundle() + b"\n", max(0.1, deadline - time.monotonic()))
        _listen(process, facts, deadline, host)
        if facts.python is not None and "port" in facts.python:
            facts.skew_s, facts.round_trip_s = _compare_clocks(process, deadline)
            facts.address = None if host.transport == "tunnel" else connection.server_address()
            if facts.address is not None:
                facts.direct = _connects(facts.address, int(facts.python["port"]))
            if not facts.direct and connection.has_forwards and host.ssh != "local":
                facts.tunnel = _tunnels(connection, int(facts.python["port"]))
        process.close_stdin()
        if process.wait(min(5.0, connection.limits.close_s)) is None:
            process.kill()
        facts.complaint = process.stderr_bytes(0.5)[-2000:].decode("utf-8", "replace").strip()
    return facts


NEEDS = {"zmq": ("pyzmq", (25, 1)), "dill": ("dill", (0, 3, 8))}
"""Module -> the package that has it, and the oldest version that will do."""


def lacking(modules: dict[str, Any]) -> list[str]:
    """Reasons why an interpreter can't run a kernel, from its report about its modules; empty if there is none."""
    faults = []
    for name, (package, oldest) in NEEDS.items():
        found = modules.get(name, {"error": "not there"})
        if "error" in found:
            faults.append(f"{package}: {found['error']}")
        elif tuple(int(part) for part in re.findall(r"\d+", found["version"])[:3]) < oldest:
            faults.append(f"{package}: {found['version']} is older than {'.'.join(map(str, oldest))}")
    return faults


@lru_cache(maxsize=1)
def _bundle() -> bytes:
    """Modules that look at a host's cores, memory and devices, in the order in which they are loaded; as one line."""
    top = Path(__file__).parents[1]
    texts: list[tuple[str, str]] = [(name, "") for name in ("grid", "grid.slots", "grid.kernel")]
    for name in (*(f"slots.{each}" for each in SLOTS), "kernel.devices"):
        texts.append((f"grid.{name}", (top / f"{name.replace('.', '/')}.py").read_text()))
    return base64.b64encode(zlib.compress(json.dumps(texts).encode(), 9))


def probe_script(host: Host, client_minor: int) -> str:
    """POSIX shell text: list the interpreters, pick the one that a launch would pick, run the program with it."""
    words = " ".join(shlex.quote(word) for word in (safe_program(_PROGRAM), MARK, host.temp_path or ""))
    run = f'env GRID_LOGIN_PATH="{LOGIN_PATH}" $PY -c {words}'
    find = f'{_LIST_PYTHONS}{find_python_script(python_of(host), client_minor)}; [ -n "$PY" ] || exit 0; '
    return with_variables(host, find, run)


def _listen(process: RemoteProcess, facts: Facts, deadline: float, host: Host) -> None:
    noise = []
    while True:
        try:
            line = process.read_line(max(0.1, deadline - time.monotonic())).decode("utf-8", "replace")
        except (TimeoutError, ValueError) as exc:
            raise ConnectError(
                f"no answer from its shell in time{': ' + process.stderr_tail() if process.stderr_tail() else ''}",
                host=host.label,
                hint="Its login shell, init_cmd or home directory hangs: try `ssh` by hand",
                stage="shell",
            ) from exc
        if not line:
            break
        before, found, content = line.partition(MARK)
        if not found:
            noise.append(line)
            continue
        noise.append(before)
        content = content.strip()
        if content.startswith("{"):
            facts.python, _ = json.JSONDecoder().raw_decode(content)
            break
        kind, _, rest = content.partition(" ")
        if kind == "shell":
            facts.shell = rest
        elif kind == "python":
            version, _, path = rest.partition(" ")
            numbers = tuple(int(part) for part in version.split("."))
            one = Interpreter((numbers[0], numbers[1], numbers[2]), path)
            if one not in facts.pythons:
                facts.pythons.append(one)
    facts.noise = process.noise.decode("utf-8", "replace") + "".join(noise)
    facts.began = process.began


def _compare_clocks(process: RemoteProcess, deadline: float) -> tuple[float | None, float | None]:
    """The best of three: the fastest round trip says most."""
    best: tuple[float, float] | None = None
    for _ in range(3):
        before, started = time.time(), time.monotonic()
        try:
            process.write(b"\n", 5)
            line = process.read_line(max(0.1, deadline - time.monotonic())).decode("utf-8", "replace")
        except (OSError, ValueError):
            break
        took = time.monotonic() - started
        _, found, answer = line.partition(MARK)
        if not found:
            break
        skew = json.JSONDecoder().raw_decode(answer)[0]["time"] - (before + took / 2)
        best = min(best or (took, skew), (took, skew))
    return (None, None) if best is None else (best[1], best[0])


def _tunnels(connection: Connection, port: int) -> bool:
    """Whether a connection through ssh comes about: the listener there greets."""
    try:
        path = connection.forward("127.0.0.1", port)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as near:
                near.settimeout(connection.limits.channel_s)
                near.connect(path)
                return near.recv(1) == b"x"
        finally:
            connection.unforward("127.0.0.1", port)
    except (OSError, ConnectError):
        return False


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2.0).close()
        return True
    except OSError:
        return False
