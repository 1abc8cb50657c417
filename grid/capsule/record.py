"""Running a script and writing down what it was: `python -m grid.capsule FILE SCRIPT [ARGS]`.

Lives here: facts about sources, packages and hosts; the run itself, with the script as `__main__`.
Elsewhere:  what they mean (`compare`), who asks (`cli/`).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import random
import runpy
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO, cast

from grid.errors import CapsuleError
from grid.grids.abstract import AbstractGrid
from grid.hooks import Hook, of_all_grids

FORMAT = 1
KEPT_OUTPUT = 1_000_000
"""Characters of output that are kept; of longer output the hash only."""
VARIABLES = ("GRID_HOSTS", "GRID_GROUP", "GRID_LOCAL", "GRID_LOGIN", "GRID_RESOURCES", "GRID_SEED", "PYTHONHASHSEED")
"""The variables that are recorded: no others, because they may hold secrets."""


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a capsule.

    Raises:
        CapsuleError: There is no such file, or it is something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        what = f"can't read the capsule {os.fspath(path)!r} ({exc})"
        raise CapsuleError(what, hint="Name a file that `grid run --capsule` wrote") from exc
    keys = {"capsule", "command", "environment", "python", "packages", "sources", "output", "exit"}
    if not isinstance(found, dict) or not keys <= found.keys():
        raise CapsuleError(f"{os.fspath(path)!r} is no capsule", hint="Name a file that `grid run --capsule` wrote")
    if found["capsule"] != FORMAT:
        raise CapsuleError(f"{os.fspath(path)!r} is of another version of grid", hint="Use that version")
    return found


def facts(sources: Iterable[str], packages: Iterable[str]) -> dict[str, Any]:
    """Hashes of these files, versions of these packages, and the Python that runs; None for what is not there."""
    return {
        "sources": {path: _digest(Path(path)) for path in sources},
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "machine": platform.machine(),
        },
        "packages": {name: _version(name) for name in packages},
    }


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def loaded() -> tuple[list[str], list[str]]:
    """Of all modules that are imported: the user's own files, and the packages of the others."""
    installed = [os.path.realpath(path) for name, path in sysconfig.get_paths().items() if name != "data"]
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    files, tops = set(), set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or not os.path.isfile(file):
            continue
        path = os.path.realpath(file)
        if any(path.startswith(place + os.sep) for place in (*installed, ours)) or "site-packages" in path:
            tops.add(name.partition(".")[0])
        else:
            files.add(path)
    owners = importlib.metadata.packages_distributions()
    return sorted(files), sorted({owner for top in tops for owner in owners.get(top, ())})


class _Tee:
    """Standard output that is written down as well."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._parts: list[str] | None = []
        self._length = 0

    def write(self, text: str) -> int:
        self._digest.update(text.encode("utf-8", "surrogatepass"))
        self._length += len(text)
        if self._parts is not None:
            self._parts.append(text)
            if self._length > KEPT_OUTPUT:
                self._parts = None
        return self._stream.write(text)

    def told(self) -> dict[str, Any]:
        """Hash, length, and the text unless it is too long."""
        text = None if self._parts is None else "".join(self._parts)
        return {"sha256": self._digest.hexdigest(), "length": self._length, "text": text}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def run(capsule: str, script: str, args: list[str]) -> None:
    """Run the script as `__main__`; write the capsule when it has ended, however it did.

    Seeds `random` with `$GRID_SEED`. Raises what the script raised, also SystemExit.
    """
    target, began = Path(capsule).absolute(), time.time()
    script = os.path.abspath(script)
    told: dict[str, Any] = {
        "capsule": FORMAT,
        "command": {"script": script, "args": args, "directory": os.getcwd()},
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "began": began,
    }
    hosts: list[dict[str, Any]] = []
    of_all_grids.append(_Hosts(hosts))
    tee = _Tee(sys.stdout)
    sys.stdout = cast(TextIO, tee)
    sys.argv, sys.path[0] = [script, *args], os.path.dirname(script)
    random.seed(os.environ.get("GRID_SEED"))
    told["exit"] = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as exc:
        told["exit"] = exc.code if isinstance(exc.code, int) or exc.code is None else 1
        told["exit"] = told["exit"] or 0
        raise
    except BaseException as exc:
        told["exit"] = type(exc).__name__
        raise
    finally:
        sys.stdout = tee._stream
        files, packages = loaded()
        told.update(facts({*files, os.path.realpath(script)}, packages))
        told.update(output=tee.told(), hosts=hosts, seconds=time.time() - began)
        write(target, told)


def write(target: Path, told: dict[str, Any]) -> None:
    """Write a capsule; nobody sees half of one. Raises CapsuleError."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(target)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        what = f"can't write the capsule {str(target)!r} ({exc.strerror})"
        raise CapsuleError(what, hint="Name another file") from exc


class _Hosts(Hook):
    """Notes down what hosts each grid had."""

    def __init__(self, hosts: list[dict[str, Any]]) -> None:
        self._hosts = hosts

    def ending(self, grid: AbstractGrid) -> None:
        self._hosts.append(_hosts(grid))


def _hosts(grid: AbstractGrid) -> dict[str, Any]:
    status = grid.status()
    homes = status.get("homes") or [{"host": host} for host in status["hosts"]]
    keys = ("host", "slots", "python", "transport")
    return {
        "grid": status["grid"],
        "hosts": [{key: home[key] for key in keys if key in home} for home in homes],
        "failures": status["failures"],
    }
