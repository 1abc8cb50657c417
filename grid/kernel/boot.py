"""First words over a launch channel: see what the host has, put our code there, become the agent.

The launch command runs `python -c SCOUT`, which reads everything else from standard input, so that no key or code ever
stands on a command line:

    line 1        length of `PROGRAM`, decimal
    then          `PROGRAM`: its text
    line          length of a JSON object, decimal; then the object: the agent's config and the size of our code
    then          our code: a zip archive of `grid/` (only `wire`, `kernel`, `slots`, and the modules they need)

and is answered with lines on standard output that start with `GRID1 ` and go on in JSON; other lines are noise of the
user's shell and are passed over. Standard input stays open: it is the lifeline.

`PROGRAM` must be understood by any Python, so that a host with 2.7 or 3.6 can say what is wrong with it.

Lives here: the texts, the archive, the report's marker.
Elsewhere:  running them (`grids/starting.py`), what happens next (`agent`).
"""

from __future__ import annotations

import io
import json
import py_compile
import sys
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from grid.wire import proven

MARK = "GRID1 "

SCOUT = "import sys;sys.path[:]=[p for p in sys.path if p];i=getattr(sys.stdin,'buffer',sys.stdin);" + (
    "exec(i.read(int(i.readline())))"
)
"""For `python -c`, which would else import a json.py of the directory that it starts in. No quotes that a shell could
stumble over beyond single ones."""

PROGRAM = r"""
import json, os, sys
os.environ.pop("GRID_STARTS_KERNEL", None)
def report(facts):
    sys.stdout.write("GRID1 " + json.dumps(facts) + "\n")
    sys.stdout.flush()
def refuse(text, hint):
    report({"error": text, "hint": hint, "kind": "PythonError"})
    sys.exit(1)
version = ".".join(str(part) for part in sys.version_info[:3])
if sys.version_info < (3, 10):
    refuse("Python " + version + " (" + sys.executable + ") is too old; 3.10 is needed",
           "Name a newer interpreter with python:, or let `grid hosts setup` look for one")
lacks = []
try:
    import zmq
except ImportError:
    lacks.append("pyzmq")
else:
    if not zmq.has("curve"):
        lacks.append("pyzmq with CURVE")
import importlib.util
if importlib.util.find_spec("dill") is None:
    lacks.append("dill")
if lacks:
    pip = importlib.util.find_spec("pip") is not None
    refuse(sys.executable + " (Python " + version + ") lacks " + " and ".join(lacks),
           "Run `grid hosts setup` for this host"
           + (", or `" + sys.executable + " -m pip install pyzmq dill` on it" if pip else ""))
config = json.loads(i.read(int(i.readline())))
import shutil, signal
unpacked = None
def told(number, frame):  # whoever sends this may kill us soon after: nothing may stay
    if "heir" not in config:  # later the zygote does it, which may just be loading our code
        for path in [unpacked or ""] + [str(path) for path in config.get("ours", ())]:
            shutil.rmtree(path, ignore_errors=True)
    os._exit(128 + number)
signal.signal(signal.SIGTERM, told)
if config["code"]["size"]:
    import io, tempfile, zipfile
    data = i.read(config["code"]["size"])
    if len(data) < config["code"]["size"]:
        sys.exit(1)  # the client has ended meanwhile
    base = os.environ.get("GRID_RUNTIME_DIR") or "/tmp"
    own = "grid-%d" % os.getuid()
    trust = {"__name__": "grid_trust"}
    exec(config["code"]["trust"], trust)
    try:
        if os.environ.get("GRID_RUNTIME_DIR"):
            base = trust["own_place"](base, own)
        else:
            base = trust["make_private"](os.path.join(base, own))
        where = unpacked = tempfile.mkdtemp(prefix="code-", dir=base)
        config["code"]["unpacked"] = where
        zipfile.ZipFile(io.BytesIO(data)).extractall(where)
    except OSError as exc:
        if unpacked:
            shutil.rmtree(unpacked, ignore_errors=True)
        why = str(exc.strerror) + (": " + str(exc.filename) if exc.filename else "")
        report({"error": "can't put our code into " + base + " (" + why + ")", "kind": "DiskError",
                "hint": "Free some space there, see to whom it belongs, or set GRID_RUNTIME_DIR in the host's env"})
        sys.exit(1)
else:
    where = config["code"]["path"]
sys.path.insert(0, where)
if config["loader"]:
    name, text = config["loader"]
    exec(compile(text, name, "exec"), {"__name__": "grid_loader", "config": config, "report": report})
else:
    from grid.kernel import agent
    agent.main(config, report)
"""

_SHIPPED = (
    *("__init__.py", "_version.py", "causes.py", "errors.py", "lazy.py", "limits.py", "text.py", "trust.py"),
    *("wire", "kernel", "slots", "testing/__init__.py", "testing/probe.py"),
    *("jobs/__init__.py", "jobs/host", "compat/__init__.py", "compat/imp.py"),
    *(f"ranks/{name}.py" for name in ("__init__", "arrays", "collectives", "comm", "desk", "lane", "mailbox")),
    *(f"ranks/{name}.py" for name in ("post", "rank", "requests", "scripts", "shim", "words")),
    *(f"tasks/{name}.py" for name in ("__init__", "abstract", "command", "life", "runner", "service")),
    *(f"commands/{name}.py" for name in ("__init__", "onhost", "outcome", "portable", "template")),
    *("arguments.py", "staging/__init__.py", "staging/whole.py"),
)


@lru_cache(maxsize=1)
def archive() -> bytes:
    """Our code for a host: a zip archive of sources, and of their byte code for a Python of our own version.

    Compiling takes a new host 0.1 s; the byte code is of the kind that is used unchecked, and any other Python passes
    it over.
    """
    top = Path(__file__).parents[1]
    buffer = io.BytesIO()
    files = []
    for entry in _SHIPPED:
        path = top / entry
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            files.append((file, Path("grid", file.relative_to(top))))
    ours = Path(*proven.NAME.split(".")).with_suffix(".py")
    files = [(file, name) for file, name in files if name != ours] + [(proven.source(), ours)]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as scratch:
        for file, name in files:
            archive.writestr(zipfile.ZipInfo(name.as_posix()), file.read_bytes())
            compiled = Path(scratch, "x.pyc")
            kind = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(file), str(compiled), name.as_posix(), invalidation_mode=kind)
            place = name.parent / "__pycache__" / f"{name.stem}.{sys.implementation.cache_tag}.pyc"
            archive.writestr(zipfile.ZipInfo(place.as_posix()), compiled.read_bytes())
    return buffer.getvalue()


def words(config: dict[str, Any], *, local: bool) -> bytes:
    """All that is written to the standard input of `SCOUT`."""
    code = b"" if local else archive()
    rule = "" if local else (Path(__file__).parents[1] / "trust.py").read_text()
    about = {"size": len(code), "path": str(Path(__file__).parents[2]), "trust": rule}
    config = {"loader": None, **config, "code": about}
    program, settings = PROGRAM.encode(), json.dumps(config).encode()
    return b"%d\n%s%d\n%s%s" % (len(program), program, len(settings), settings, code)
