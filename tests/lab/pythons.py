"""Interpreters for the test hosts: whole, readable, and holding just the packages that a host should have.

Lives here: finding CPython of a wanted minor version on this machine, copying it with packages into the cache.
Elsewhere:  Pythons that are newer than this machine (`unstable.py`), putting a copy in a host's /usr/local/bin
            (`host.py`, `init.sh`).

A copy and not a venv: a venv points back to its base, which often lies in a home of mode 0700 where another user can't
read it, and a symbolic link to a venv's python forgets the venv. A copy may be mounted and linked anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from tests.lab import unstable
from tests.lab.ground import MissingPart, MissingPython, call

CLIENT = f"{sys.version_info.major}.{sys.version_info.minor}"  # "3.11", say
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
OTHERS = tuple(minor for minor in SUPPORTED if minor != CLIENT)
KERNEL_PACKAGES = ("pyzmq", "dill")  # all that the kernel needs on a host
CORE_PACKAGES = (
    *("pyzmq", "dill", "cloudpickle", "click", "PyYAML", "rich", "paramiko"),  # what grid needs
    *("numpy", "pydantic", "attrs", "msgspec"),  # what its users have
    *("pytest", "hypothesis", "psutil", "SQLAlchemy", "alembic"),  # what its units need
)
"""For clients of other versions, and for hosts that they use: one list, so that there is one copy for each Python."""
UNUSED_DAYS = 14
LAYOUT = 4  # raise when copies of an older making must not be used any more

_UNNEEDED = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "config-*", "*.a", "lib2to3"
)
_ASK = """
import json, sys, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "executable": sys.executable,
    "version": sys.version,
    "minor": "%d.%d" % sys.version_info[:2],
    "stdlib": paths["stdlib"],
    "platstdlib": paths["platstdlib"],
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """One copy in the cache, to be mounted at /opt/python<minor> of a host."""

    minor: str
    path: Path
    library: str  # where its binary looks for libpython or its loader, and finds a link in the host; "" if it has none

    @property
    def program(self) -> Path:
        """To be run on this machine; on hosts it is in /usr/local/bin."""
        return self.path / f"bin/python{self.minor}"


def cache_directory() -> Path:
    """Shared between runs; hosts see parts of it through bind mounts, so that its own parents may be private."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "grid-lab"


def interpreter(minor: str, packages: tuple[str, ...]) -> Interpreter:
    """A copy of CPython `minor` with `packages` and no others, made at the first demand.

    Raises:
        MissingPython: There is no such Python on this machine.
        MissingPart: Its packages can't be had.
    """
    facts = _find(minor)
    versions = {name: _installed_version(name) if minor == CLIENT else None for name in packages}
    key = hashlib.sha256(json.dumps([LAYOUT, facts, versions], sort_keys=True).encode()).hexdigest()[:12]
    target = cache_directory() / f"python{minor}-{key}"
    with _made_once(target) as is_new:
        if is_new:
            _copy(facts, target)
            _add_packages(target, minor, packages, versions)
            if facts["root"]:  # Debian's packages are without byte code, and on hosts none can be written
                program = [str(target / f"bin/python{minor}"), "-m", "compileall", "-q"]
                subprocess.run([*program, str(target / f"lib/python{minor}")], timeout=300)
    library = unstable.loader_of(target) if facts["root"] else facts["library"]
    return Interpreter(minor, target, library)


@contextlib.contextmanager
def _made_once(target: Path) -> Iterator[bool]:
    """Whether the caller has to fill this directory of the cache. Others who want it wait until it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = target / ".whole"
    with open(f"{target}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_new = not mark.exists()
        if is_new:
            _forget_unused(target.parent)
            shutil.rmtree(target, ignore_errors=True)  # half made by somebody who was killed
            target.mkdir()
        yield is_new
        mark.touch()
        os.utime(target)


def _forget_unused(cache: Path) -> None:
    for path in cache.iterdir():
        if path.is_dir() and time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(path, ignore_errors=True)


@cache
def _find(minor: str) -> dict[str, str]:
    for candidate in _candidates(minor):
        try:
            answer = subprocess.run(
                [candidate, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=True
            )
            facts: dict[str, str] = json.loads(answer.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            continue  # a shim without a version behind it, a broken installation: the next one
        if facts["minor"] == minor:
            return {**facts, "library": _shared_library(facts["executable"]), "root": ""}
    if minor in unstable.MINORS:
        return _find_unstable(minor)
    raise MissingPython(f"no CPython {minor} on this machine")


def _find_unstable(minor: str) -> dict[str, str]:
    root = cache_directory() / f"unstable-{LAYOUT}"
    with _made_once(root) as is_new:
        if is_new:
            unstable.unpack(root)
    library = root / f"usr/lib/python{minor}"
    executable = root / f"usr/bin/python{minor}"
    # the date of the program, so that copies of an older root are told apart
    return {
        "executable": str(executable),
        "version": f"{minor} {executable.stat().st_mtime}",
        "minor": minor,
        "stdlib": str(library),
        "platstdlib": str(library),
        "library": "",
        "root": str(root),
    }


def _shared_library(executable: str) -> str:
    """Where the binary finds its libpython; "" if it is linked into it. (sysconfig doesn't know: Debian says both.)"""
    found = re.search(r"libpython\S+ => (/\S+)", call("ldd", os.path.realpath(executable), check=False))
    return found[1] if found else ""


def _candidates(minor: str) -> list[str]:
    name = f"python{minor}"
    found = []
    if minor == CLIENT:
        found.append(f"{sys.base_prefix}/bin/{name}")
    home = Path.home()
    for pattern in (
        f".pyenv/versions/{minor}.*/bin/{name}",
        f".local/share/uv/python/cpython-{minor}.*/bin/{name}",
    ):
        found += [str(path) for path in sorted(home.glob(pattern), reverse=True)]
    found += [f"/usr/local/bin/{name}", f"/usr/bin/{name}", f"/opt/{name}/bin/{name}"]
    ours = f"{cache_directory()}/"  # a run by one of our own copies: it is made from what the copy was made from
    return [path for path in found if os.path.exists(path) and not path.startswith(ours)]


def _copy(facts: dict[str, str], target: Path) -> None:
    minor = facts["minor"]
    stdlib = target / f"lib/python{minor}"
    (target / "bin").mkdir()
    shutil.copy2(os.path.realpath(facts["executable"]), target / f"bin/python{minor}")
    for name in ("python3", "python"):
        (target / "bin" / name).symlink_to(f"python{minor}")
    # copy2 keeps the times, so that the byte code that lies beside the sources stays valid
    shutil.copytree(facts["stdlib"], stdlib, ignore=_UNNEEDED, ignore_dangling_symlinks=True)
    if facts["platstdlib"] != facts["stdlib"]:
        shutil.copytree(facts["platstdlib"], stdlib, ignore=_UNNEEDED, dirs_exist_ok=True)
    (stdlib / "site-packages").mkdir(exist_ok=True)
    (target / "lib/python3").mkdir()  # under this name Debian's Python looks for packages
    (target / "lib/python3/dist-packages").symlink_to(f"../python{minor}/site-packages")
    if facts["library"]:
        shutil.copy2(facts["library"], target / "lib")
    if facts["root"]:
        (stdlib / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
        unstable.settle(Path(facts["root"]), target / f"bin/python{minor}", target)
    subprocess.run(["chmod", "-R", "u+rwX,go+rX,go-w", str(target)], check=True)


def is_installed(name: str) -> bool:
    """Whether this interpreter has a package: then a host can have a copy of it."""
    return _installed_version(name) is not None


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _add_packages(home: Path, minor: str, packages: tuple[str, ...], versions: dict[str, str | None]) -> None:
    site = home / f"lib/python{minor}/site-packages"
    for name in packages:
        if versions[name] is not None:  # what the client itself uses: no network needed, and equal versions
            for file in metadata.files(name) or ():
                if not file.parts[0].startswith(".."):
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file.locate(), site / file)
    wanted = [name for name in packages if versions[name] is None]
    if wanted:
        # By the interpreter itself, so that conditions on versions of Python are judged rightly.
        command = [str(home / f"bin/python{minor}"), "-m", "pip", "install", "--only-binary=:all:"]
        _pip(command, site, wanted, PYTHONPATH=str(_pip_for(home, minor)))
    subprocess.run(["chmod", "-R", "u+rwX,go+rX,go-w", str(site)], check=True)


def _pip_for(home: Path, minor: str) -> Path:
    """The new pip; for a Python that is too old for it the one that this Python brought along."""
    new = _new_pip()
    (pip,) = metadata.distributions(name="pip", path=[str(new)])
    oldest = re.match(r">=3\.(\d+)", pip.metadata["Requires-Python"] or "")
    if oldest is not None and int(minor.partition(".")[2]) < int(oldest[1]):
        for wheel in (home / f"lib/python{minor}/ensurepip/_bundled").glob("pip-*.whl"):
            target = cache_directory() / wheel.stem
            with _made_once(target) as is_new:
                if is_new:  # run from the wheel it would leave its certificates in the temp directory
                    shutil.unpack_archive(wheel, target, "zip")
            return target
    return new


def _new_pip() -> Path:
    """A pip that is newer than the newest Python: that of an environment is often older, and fails there."""
    target = cache_directory() / f"pip-{LAYOUT}"
    with _made_once(target) as is_new:
        if is_new:
            _pip([sys.executable, "-m", "pip", "install", "--upgrade"], target, ["pip"])
    return target


def _pip(command: list[str], target: Path, wanted: list[str], **variables: str) -> None:
    command += ["--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target), *wanted]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment.update(variables)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, env=environment
    )
    if done.returncode:
        reason = re.sub(r"\s+", " ", done.stderr).strip()[-300:]
        raise MissingPart(f"pip could not get {', '.join(wanted)} by {command[0]}: {reason}")
